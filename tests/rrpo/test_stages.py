"""Stages: identity by content, built once however many ask, nothing half-built is ever seen."""

import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from rrpo.stages import Context, Stage, content_hash, materialise, walk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    value: float
    log: str = ""


def build_number(config: Number, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    total = config.value + sum(float((path / "number").read_text()) for path in inputs.values())
    with Path(config.log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.2)
    (out / "number").write_text(str(total))


def build_failure(config: Number, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    (out / "number").write_text("half")
    raise RuntimeError("planted")


def number(value: float, log: Path, inputs: dict[str, Stage] | None = None) -> Stage:
    return Stage("codec", f"{__name__}:build_number", Number(value=value, log=str(log)), inputs or {})


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[build_number.__module__])


def test_keys_follow_content_not_labels(tmp_path: Path) -> None:
    a, b = number(1, tmp_path), number(1, tmp_path)
    assert a.key == b.key
    assert dataclasses.replace(a, label="other").key == a.key
    assert number(2, tmp_path).key != a.key
    assert number(1, tmp_path, {"x": b}).key != number(1, tmp_path, {"y": b}).key != a.key
    assert dataclasses.replace(a, name="judge").key != a.key


def test_hash_tells_types_and_order_apart() -> None:
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash((1, 2)) != content_hash((2, 1))
    assert content_hash("1") != content_hash(1)
    with pytest.raises(TypeError, match="a config holds a set"):
        content_hash({1, 2})


def test_inputs_come_first_and_shared_ones_once(tmp_path: Path) -> None:
    base = number(1, tmp_path / "log")
    left, right = number(2, tmp_path / "log", {"a": base}), number(3, tmp_path / "log", {"a": base})
    top = number(0, tmp_path / "log", {"l": left, "r": right})
    assert [stage.key for stage in walk(top)] == [base.key, left.key, right.key, top.key]
    folder = materialise(top, tmp_path, Context())
    assert (folder / "number").read_text() == "7.0"
    assert len((tmp_path / "log").read_text().split()) == 4
    assert json.loads((folder / "stage.json").read_text())["key"] == top.key
    materialise(top, tmp_path, Context())
    assert len((tmp_path / "log").read_text().split()) == 4


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    stage = Stage("codec", f"{__name__}:build_failure", Number(value=1))
    with pytest.raises(RuntimeError, match="planted"):
        materialise(stage, tmp_path, Context())
    assert not stage.done(tmp_path)
    assert not list((tmp_path / "stages").iterdir())
    assert not list((tmp_path / "claims").iterdir())


def test_a_folder_without_its_marker_is_built_again(tmp_path: Path) -> None:
    stage = number(1, tmp_path / "log")
    stage.path(tmp_path).mkdir(parents=True)
    (stage.path(tmp_path) / "number").write_text("torn")
    assert (materialise(stage, tmp_path, Context()) / "number").read_text() == "1"


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    stage = number(5, tmp_path / "log")
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=materialise, args=(stage, tmp_path, Context())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
