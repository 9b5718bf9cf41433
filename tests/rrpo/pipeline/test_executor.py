"""Executors: their names, and their effect on torch's global switches."""

import json
from pathlib import Path

import pytest
import torch

from rrpo.pipeline.executor import Executor
from rrpo.pipeline.stages import MARKER, Context, Stage, materialise
from rrpo.plugins import Choice


def switches() -> tuple[str, bool, bool]:
    return (
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def note(config: Choice, inputs: dict[str, Path], out: Path, context: Context) -> None:
    (out / "found.json").write_text(json.dumps([*switches(), str(context.executor)]))


def test_names() -> None:
    assert str(Executor()) == ""
    assert str(Executor(8)) == "stacked(8)"
    assert str(Executor(0, "bf16")) == "bf16"
    assert str(Executor(3, "tf32", deterministic=True)) == "stacked(3) tf32 deterministic"
    with pytest.raises(ValueError, match="unknown precision 'fp8'; use one of fp32, tf32, bf16"):
        Executor(precision="fp8")


@pytest.mark.parametrize(
    ("name", "executor", "found"),
    [
        ("optimize", Executor(), ["highest", False, False, ""]),
        ("optimize", Executor(2, "tf32", deterministic=True), ["high", True, True, "stacked(2) tf32 deterministic"]),
        ("optimize", Executor(0, "bf16"), ["highest", False, False, "bf16"]),
        ("sft", Executor(2, "tf32", deterministic=True), ["highest", True, True, "stacked(2) deterministic"]),
    ],
)
def test_a_build_finds_its_switches_and_the_marker_names_them(
    name: str, executor: Executor, found: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages other than policy optimizations are always built one by one in float32."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = switches()
    folder = materialise(Stage(name, f"{__name__}:note", Choice(name=name)), tmp_path, Context(executor=executor))
    assert json.loads((folder / "found.json").read_text()) == found
    assert json.loads((folder / MARKER).read_text()).get("executor", "") == found[-1]
    assert switches() == before


def test_switches_are_reset_after_an_error() -> None:
    before = switches()
    with pytest.raises(ZeroDivisionError), Executor(0, "tf32", deterministic=True).applied():
        raise ZeroDivisionError
    assert switches() == before
