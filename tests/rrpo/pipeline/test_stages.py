"""Stages: identity by content, built once for all callers, partial results are never visible."""

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from rrpo.identity import content_hash
from rrpo.pipeline import stages
from rrpo.pipeline.errors import DivergedError, Interrupted, failure_kind
from rrpo.pipeline.stages import Context, Stage, materialise, walk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number:
    value: float
    log: str = ""
    seconds: float = 0.0


def build_number(config: Number, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    total = config.value + sum(float((path / "number").read_text()) for path in inputs.values())
    with Path(config.log).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(config.seconds)
    (out / "number").write_text(str(total))


def build_failure(config: Number, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    (out / "number").write_text("half")
    raise RuntimeError("planted")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    error: str


def build_ended(config: Ended, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    assert context.checkpoints is not None
    context.checkpoints.mkdir(parents=True)
    (context.checkpoints / "1").write_text("saved")
    errors: list[type[BaseException]] = [KeyboardInterrupt, OSError, Interrupted, DivergedError]
    raise next(error for error in errors if error.__name__ == config.error)


def build_resumed(config: Number, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    context.clock.earlier += 100


def number(value: float, log: Path, inputs: dict[str, Stage] | None = None, seconds: float = 0.0) -> Stage:
    config = Number(value=value, log=str(log), seconds=seconds)
    return Stage("codec", f"{__name__}:build_number", config, inputs or {})


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
    with pytest.raises(TypeError, match="a config contains a set"):
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
    stage = number(5, tmp_path / "log", seconds=0.2)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=materialise, args=(stage, tmp_path, Context())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty layer in place of the package's."""
    monkeypatch.setattr(stages, "LAYER", tmp_path / "layer")
    stages.LAYER.mkdir()
    return stages.LAYER


def install(stage: Stage, layer: Path) -> None:
    """Build a stage and put it into the layer with a marked number, to distinguish it from one in a store."""
    folder = shutil.copytree(materialise(stage, layer.parent / "elsewhere", Context()), layer / stage.folder)
    (folder / "number").write_text("100")


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time and bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_what_the_layer_holds_is_there_and_its_inputs_are_not_asked_for(tmp_path: Path, layer: Path) -> None:
    """Three processes build a stage that reads it; the layer is unchanged."""
    store, log = tmp_path / "runs", tmp_path / "log"
    speech = number(1, log)
    held = number(2, log, {"speech": speech})
    top = number(3, log, {"held": held})
    install(held, layer)
    log.unlink()
    before = content(layer)
    layer.chmod(0o555)
    assert held.done(store)
    assert held.path(store) == layer / held.folder == materialise(held, store, Context())
    assert held.seconds(store) is not None
    assert not top.done(store)
    assert top.path(store) == store / "stages" / top.folder
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=materialise, args=(top, store, Context())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (top.path(store) / "number").read_text() == "103.0"
    assert len(log.read_text().split()) == 1
    assert [path.name for path in (store / "stages").iterdir()] == [top.folder]
    assert not speech.done(store)
    assert content(layer) == before
    layer.chmod(0o755)


def test_a_stores_own_stage_comes_before_the_layers(tmp_path: Path, layer: Path) -> None:
    stage = number(2, tmp_path / "log")
    materialise(stage, tmp_path / "runs", Context())
    install(stage, layer)
    assert stage.path(tmp_path / "runs") == tmp_path / "runs" / "stages" / stage.folder
    assert (stage.path(tmp_path / "other") / "number").read_text() == "100"


def test_another_version_or_config_is_built_as_ever(
    tmp_path: Path, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(number(2, tmp_path / "log"), layer)
    assert not number(3, tmp_path / "log").done(tmp_path / "runs")
    monkeypatch.setitem(stages.VERSIONS, "codec", stages.VERSIONS["codec"] + 1)
    newer = number(2, tmp_path / "log")
    assert (materialise(newer, tmp_path / "runs", Context()) / "number").read_text() == "2"


def test_a_folder_of_the_layer_without_its_marker_is_no_result(tmp_path: Path, layer: Path) -> None:
    stage = number(2, tmp_path / "log")
    install(stage, layer)
    (layer / stage.folder / "stage.json").unlink()
    assert (materialise(stage, tmp_path / "runs", Context()) / "number").read_text() == "2"


def test_a_stage_is_on_disk_before_its_place_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush files, then their folder, then rename, then flush the parent; no checkpoints are left."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (events.append(("fsync", os.readlink(f"/proc/self/fd/{f}"))), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("rename", str(b))), replace(a, b)))
    stage = number(1, tmp_path / "log")
    final = materialise(stage, tmp_path, Context())
    partial = str(final.with_name(f".{final.name}.{os.getpid()}"))
    done = events.index(("rename", str(final)))
    for name in (f"{partial}/number", f"{partial}/stage.json", partial):
        assert ("fsync", name) in events[:done]
    assert events[done + 1 :] == [("fsync", str(final.parent))]
    assert not (tmp_path / "checkpoints" / final.name).exists()


def test_checkpoints_outlast_everything_but_divergence(tmp_path: Path) -> None:
    for error, kept in ((KeyboardInterrupt, True), (OSError, True), (Interrupted, True), (DivergedError, False)):
        stage = Stage("codec", f"{__name__}:build_ended", Ended(error=error.__name__))
        with pytest.raises(error):
            materialise(stage, tmp_path, Context())
        assert (tmp_path / "checkpoints" / stage.path(tmp_path).name / "1").is_file() is kept


def test_checkpoints_of_a_build_that_was_killed_once_it_had_published_go_with_the_next(tmp_path: Path) -> None:
    first, second, running = (number(value, tmp_path / "log") for value in (1, 2, 3))
    materialise(first, tmp_path, Context())
    left, kept = (tmp_path / "checkpoints" / stage.path(tmp_path).name for stage in (first, running))
    for folder in (left, kept):
        folder.mkdir(parents=True)
    materialise(second, tmp_path, Context())
    assert not left.exists()
    assert kept.is_dir()


def test_an_earlier_attempts_seconds_count(tmp_path: Path) -> None:
    stage = Stage("codec", f"{__name__}:build_resumed", Number(value=1))
    materialise(stage, tmp_path, Context())
    assert 100 <= (stage.seconds(tmp_path) or 0) < 200


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DivergedError("loss nan"), "diverged"),
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
        (OSError(errno.ENOENT, "No such file"), "bug"),
        (ValueError("the memory of an elephant"), "bug"),
        (KeyError("out of memory"), "bug"),
    ],
)
def test_failures_have_kinds(error: BaseException, kind: str) -> None:
    assert failure_kind(error) == kind
    for link in ("__cause__", "__context__"):
        wrapped = RuntimeError("the stage failed")
        setattr(wrapped, link, error)
        assert failure_kind(wrapped) == kind


def test_kinds_of_a_ring_of_causes() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__context__, second.__context__ = second, first
    assert failure_kind(first) == "bug"


def test_real_allocations_that_fail_are_out_of_memory() -> None:
    for allocate in (lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert failure_kind(caught.value) == "oom"


def test_every_writer_of_a_stage_names_a_full_disk(full_disk: Path) -> None:
    """A tmpfs of 1 MiB; numpy, torch and libsndfile raise errors without an error number."""
    big = np.random.default_rng(0).random(2**19)
    writers = [
        lambda path: np.save(path, big),
        lambda path: np.savez_compressed(path, big=big),
        lambda path: torch.save(torch.from_numpy(big), path),
        lambda path: pd.DataFrame(big).to_parquet(path),
        lambda path: soundfile.write(path, big, 16000, format="WAV"),
        lambda path: path.write_text("x" * 2**22),
    ]
    for writer in writers:
        with pytest.raises((OSError, RuntimeError)) as caught:
            writer(full_disk / "file")
        assert failure_kind(caught.value) == "disk", caught.value
        for path in full_disk.iterdir():
            path.unlink()
