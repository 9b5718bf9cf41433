"""Building stages for commands other than `ablations.run`: progress, failures, and the GPU of each task."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import fakes
import pytest
from rich.console import Console
from tasks import Meeting

from ablations.execution import environment
from ablations.execution.building import Builder
from ablations.tracking.runs_folder import RunsFolder
from rrpo.pipeline.stages import Stage


def built(roots: list[Stage], root: Path, workers: int = 1, *, terminal: bool = False) -> tuple[dict[str, str], str]:
    """Return the reasons of failed roots, and the printed text."""
    console = Console(file=StringIO(), width=200, force_terminal=terminal)
    failures = Builder(RunsFolder(root), "cpu", workers, console).build(roots)
    return failures, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [False, True])
def test_each_stage_is_told_once_and_a_failure_is_counted_with_what_needs_it(tmp_path: Path, terminal: bool):
    (tmp_path / "trouble").write_text("raise")
    (cell,) = fakes.cells(["rrpo"], [1], {"rrpo/1": tmp_path / "trouble"})
    failures, text = built(list(cell.stages.values()), tmp_path / "runs", terminal=terminal)
    log = next((tmp_path / "runs" / "logs").glob("optimize-*.log"))
    assert failures == {
        "optimise rrpo/1": f"bug: RuntimeError: planted failure (log: {log})",
        "score rrpo/1": f"bug: optimise rrpo/1: RuntimeError: planted failure (log: {log})",
    }
    for line in (
        "done: fake codec in",
        "done: fake SFT in",
        "done: examine in",
        "FAILED optimise rrpo/1: bug: RuntimeError",
    ):
        assert text.count(line) == 1
    assert "stage 3 of 5 done" in text
    assert "built" not in text
    assert ("stages done: 3 of 5 · 2 failed" in text) == terminal
    (tmp_path / "trouble").unlink()
    failures, text = built(list(cell.stages.values()), tmp_path / "runs")
    assert not failures
    assert "stage 2 of 2 done" in text


def test_workers_share_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "gpus", lambda: {"4": 80_000, "7": 80_000})
    names = [("a", "b"), ("b", "a")]
    stages = [
        Stage("codec", "tasks:build_together", Meeting(folder=str(tmp_path), me=a, other=b), label=a) for a, b in names
    ]
    assert built(stages, tmp_path / "runs", workers=2)[0] == {}
    assert {(stage.path(tmp_path / "runs") / "gpus.txt").read_text() for stage in stages} == {"4", "7"}
