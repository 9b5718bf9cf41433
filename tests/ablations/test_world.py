"""The command that updates the frozen world, and the choice of a run's world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from fixtures import Run
from typer.testing import CliRunner, Result

from ablations import world
from ablations.execution import plan
from ablations.execution.options import Options
from ablations.execution.request import Request, request
from ablations.grids import GRIDS
from ablations.tracking.recorder import cell_params
from ablations.tracking.runs_folder import check
from rrpo.experiment import frozen
from rrpo.pipeline import stages
from rrpo.pipeline.stages import Stage
from rrpo.profiles import in_world


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stages, "LAYER", tmp_path / "layer")
    return stages.LAYER


def freezes(monkeypatch: pytest.MonkeyPatch, trouble: Path | None = None) -> tuple[Stage, ...]:
    """Let the command freeze the inputs of a fake cell."""
    (cell,) = fakes.cells(["rrpo"], [1], {"rrpo/1": trouble} if trouble else None)
    optimized = cell.stages["optimized"]
    frozen_stages = (cell.stages["examined"].inputs["codec"], optimized.inputs["policy"], optimized)
    monkeypatch.setattr(frozen, "frozen", lambda: frozen_stages)
    return frozen_stages


def call(runs: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        world.app, ["--workers", "1", "--runs-dir", str(runs), *arguments], env={"COLUMNS": "200"}
    )


def test_the_world_is_built_frozen_and_checked(runs: Path, layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, policy, _ = frozen_stages = freezes(monkeypatch)
    result = call(runs, "--check")
    assert result.exit_code == 1, result.output
    assert "3 missing, 0 outdated" in result.output
    result = call(runs)
    assert result.exit_code == 0, result.output
    assert "stage 3 of 3 done" in result.output
    assert f"added: {codec.folder} (fake codec), 0.00 MiB" in result.output
    assert result.output.splitlines()[-1].startswith("The frozen world is current: 3 stages, 0.0")
    assert {path.name for path in layer.iterdir()} == {stage.folder for stage in frozen_stages}
    assert call(runs, "--check").exit_code == 0
    result = call(runs)
    assert "added" not in result.output
    assert len(fakes.built(runs)) == 3, "frozen stages are not built again"

    monkeypatch.setitem(stages.VERSIONS, "sft", stages.VERSIONS["sft"] + 1)
    newer = freezes(monkeypatch)[1]
    result = call(runs, "--check")
    assert result.exit_code == 1
    assert f"missing: {newer.folder} (fake SFT)" in result.output
    assert f"outdated: {policy.folder}: version" in result.output
    assert codec.folder not in result.output
    assert result.output.splitlines()[-1].startswith("The frozen world is not current: 2 missing, 2 outdated.")
    result = call(runs)
    assert f"removed: {policy.folder}" in result.output
    assert call(runs, "--check").exit_code == 0


def test_a_world_that_cannot_be_built_leaves_the_layer_as_it_was(
    runs: Path, layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trouble").write_text("raise")
    freezes(monkeypatch, tmp_path / "trouble")
    result = call(runs)
    assert result.exit_code == 1
    assert "optimise rrpo/1: bug: RuntimeError: planted failure" in result.output
    assert not layer.exists()


def test_bad_input_ends_with_2(tmp_path: Path) -> None:
    for arguments in (["--device", "tpu"], ["--workers", "0"]):
        assert call(tmp_path / "runs", *arguments).exit_code == 2
    assert not (tmp_path / "runs").exists()


def test_a_run_is_asked_for_in_another_world(tmp_path: Path) -> None:
    installed, second = (
        request(Options(grid="full", seeds=1, world_seed=n, runs_dir=tmp_path / "runs")).cells[0] for n in (0, 1)
    )
    assert (installed.profile.world.seed, second.profile.world.seed) == (0, 1)
    assert installed.profile.name == second.profile.name
    assert installed.world_hash != second.world_hash
    for cell in (installed, second):
        assert cell_params(cell)["world.seed"] == str(cell.profile.world.seed)


def test_a_cell_of_another_world_is_missing_where_this_worlds_is_done(runs: Path, run: Run) -> None:
    (cell,) = fakes.cells(["rrpo"], [1])
    run([cell])
    (other_cell,) = fakes.cells(["rrpo"], [1], world="b")
    other_cell = replace(other_cell, profile=in_world(other_cell.profile, 1))
    checked = Request(grid="tiny", cells=(cell, other_cell), device="cpu", workers=1, folder=check(runs))
    assert plan.make(checked).states() == {cell.hash: "done", other_cell.hash: "missing"}


def test_a_grid_has_its_own_first_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRIDS._items, "later", replace(GRIDS["smoke"], first_seed=7))
    assert request(Options(grid="later", runs_dir=tmp_path / "runs")).seeds == [7, 8]
    assert request(Options(grid="later", first_seed=5, runs_dir=tmp_path / "runs")).seeds == [5, 6]
