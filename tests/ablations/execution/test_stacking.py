"""Which trainings are stacked and how many, and that the policy optimizations of each seed use one executor."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ablations.execution import packing, plan, stacking
from ablations.execution.estimate import Estimator
from ablations.execution.jobs import longest_first, missing_below, stage_tasks, tasks
from ablations.execution.options import Options
from ablations.execution.request import Request, request
from ablations.execution.runner import GridRun
from ablations.execution.stacking import refuse_mixed, stack_tasks
from ablations.grids import arms, product
from ablations.tracking import curves
from ablations.tracking.curves import Point
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import check
from rrpo.config import ArmConfig
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.identity import canonical
from rrpo.pipeline.executor import Executor
from rrpo.pipeline.stages import MARKER, Stage, place, walk
from rrpo.profiles import SMOKE
from rrpo.stacking.groups import stack_group


def cells(labels: str = "diffro rrpo", seeds: tuple[int, ...] = (1000, 1001)) -> list[Cell]:
    known: dict[str, ArmConfig] = arms()
    return product({label: known[label] for label in labels.split()}, SMOKE, seeds)


def optimisations(cells: list[Cell]) -> list[Stage]:
    """SFT is included, because the test judges also evaluate its samples."""
    return [stage for stage in walk(*(s for cell in cells for s in cell.stages.values())) if stage.name == "optimize"]


def finished(store: Path, stage: Stage, **record: object) -> None:
    folder = place(store, stage.folder)
    folder.mkdir(parents=True)
    about = {"name": stage.name, "config": canonical(stage.config), "device": "cuda", "seconds": 1.0, "bytes": 1}
    (folder / MARKER).write_text(json.dumps(about | record))


def test_trainings_go_together_and_nothing_else_does(tmp_path: Path) -> None:
    """Two arms and seeds, at most four per stack: two stacks of three optimizations (SFT is one, of no step), one of four
    fine-tunings, and one of two for SFT and pre-training, which the arms share."""
    grid_cells = cells()
    stages = missing_below([stage for cell in grid_cells for stage in cell.stages.values()], tmp_path)
    single = stage_tasks(longest_first(stages, Estimator(tmp_path)), tmp_path, "cpu")
    by_key = {stage.folder: stage for stage in stages}
    grouped = stack_tasks(single, by_key, 4)
    stacks = [task for task in grouped if task.parts]
    kinds = [[by_key[part.key].name for part in task.parts] for task in stacks]
    assert sorted(kinds) == [["finetune"] * 4, ["optimize"] * 3, ["optimize"] * 3, ["pretrain"] * 2, ["sft"] * 2]
    trainings = {stage.folder for stage in stages if stack_group(stage) is not None}
    assert {part.key for task in stacks for part in task.parts} == trainings
    assert {task.key for task in grouped if not task.parts} == by_key.keys() - trainings
    for task in stacks:
        assert task.needs == frozenset().union(*(part.needs for part in task.parts))
        assert [stage.folder for stage in task.arguments[0]] == [part.key for part in task.parts]
        assert task.priority == min(part.priority for part in task.parts)
    assert stack_tasks(single, by_key, 0) == single


def test_a_stack_never_waits_for_itself(tmp_path: Path) -> None:
    """An iterated reward model is fine-tuned on samples of an earlier optimization, by an earlier reward model."""
    grid_cells = cells("diffro rm_iterated", (1000,))
    stages = missing_below([stage for cell in grid_cells for stage in cell.stages.values()], tmp_path)
    tasks_ = stage_tasks(longest_first(stages, Estimator(tmp_path)), tmp_path, "cpu")
    waiting = stack_tasks(tasks_, {stage.folder: stage for stage in stages}, 8)
    assert max(len(task.parts) for task in waiting) > 1
    known, finished_keys = {part.key for task in waiting for part in (task, *task.parts)}, set[str]()
    while ready := [task for task in waiting if not task.needs & known - finished_keys]:
        finished_keys |= {part.key for task in ready for part in (task, *task.parts)}
        waiting = [task for task in waiting if task not in ready]
    assert not waiting


def test_auto_is_by_measured_memory(tmp_path: Path) -> None:
    grid_cells = cells("diffro", (1000,))
    sft, diffro = sorted(optimisations(grid_cells), key=lambda stage: stage.config.steps)
    assert stacking.size("auto", "cpu", grid_cells, tmp_path, 80_000, 1) == 0
    assert stacking.size("auto", "cuda", grid_cells, tmp_path, 80_000, 1) == packing.UNMEASURED
    finished(tmp_path, diffro, peak_device_mib=1000)
    assert stacking.size("auto", "cuda", grid_cells, tmp_path, 80_000, 1) == packing.UNMEASURED, (
        "the memory of SFT was not measured"
    )
    finished(tmp_path, sft, peak_device_mib=500)
    assert stacking.size("auto", "cuda", grid_cells, tmp_path, 80_000, 1) == 71  # (.9 x 80000 - 600) / 1000
    assert stacking.size("auto", "cuda", grid_cells, tmp_path, 80_000, 2) == 35  # (36000 - 600) / 1000
    assert stacking.size("auto", "cuda", grid_cells, tmp_path, 1000, 2) == 1, "a stack of one: the same executor"
    assert stacking.size("7", "cpu", grid_cells, tmp_path, None, 1) == 7
    assert stacking.size("1", "cpu", grid_cells, tmp_path, None, 1) == 0


@pytest.mark.parametrize("text", ["0", "-1", "many", ""])
def test_a_number_that_makes_no_sense_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stack"):
        stacking.size(text, "cpu", cells(), tmp_path, None, 1)


def test_a_seed_has_one_executor(tmp_path: Path) -> None:
    grid_cells = cells()
    optimized = {cell.name: cell.stages["optimized"] for cell in grid_cells}
    missing = [stage for name, stage in optimized.items() if name != "diffro/1000"]
    single, stacked_, lower = Executor(), Executor(4), Executor(precision="bf16")
    refuse_mixed(grid_cells, [*missing, optimized["diffro/1000"]], tmp_path, stacked_)  # nothing is there yet
    finished(tmp_path, optimized["diffro/1000"])
    refuse_mixed(grid_cells, missing, tmp_path, single)
    for executor in (stacked_, lower, Executor(deterministic=True)):
        with pytest.raises(InputError, match="seed 1000 was begun with another executor") as refused:
            refuse_mixed(grid_cells, missing, tmp_path, executor)
        assert "continue with --stack 1 --precision fp32, or" in str(refused.value)
    refuse_mixed(grid_cells, [optimized["diffro/1001"], optimized["rrpo/1001"]], tmp_path, stacked_)  # another seed may
    finished(tmp_path, optimized["diffro/1001"], executor="stacked(2) bf16")
    refuse_mixed(grid_cells, [optimized["rrpo/1001"]], tmp_path, Executor(8, "bf16"))  # a stack's size may differ
    for executor in (single, stacked_, lower):
        with pytest.raises(InputError, match="diffro/1001 optimized with --stack 2 or more --precision bf16"):
            refuse_mixed(grid_cells, [optimized["rrpo/1001"]], tmp_path, executor)


def test_a_recorded_cell_counts_even_if_its_stages_are_elsewhere_or_its_arm_is_not_requested(tmp_path: Path) -> None:
    first, second, *_ = cells()
    folder = tmp_path / "artifacts" / "optimized"
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(json.dumps({"executor": "stacked(8) bf16"}))

    def record(profile: str) -> Record:
        world = first.world_hash
        return Record(label="diffro", seed=first.seed, profile=profile, world_hash=world, find=lambda: folder.parent)

    missing, recorded = [second.stages["optimized"]], {first.hash: record(first.profile.name)}
    for requested in ([first, second], [second]):
        refuse_mixed(requested, missing, tmp_path, Executor(4, "bf16"), recorded)
        with pytest.raises(InputError, match="was begun with another executor"):
            refuse_mixed(requested, missing, tmp_path, Executor(), recorded)
    refuse_mixed([second], missing, tmp_path, Executor(), {first.hash: record("another profile")})
    refuse_mixed(
        [first], [first.stages["optimized"]], tmp_path, Executor(), {"of older code": record(first.profile.name)}
    )


def test_every_task_is_told_the_executor(tmp_path: Path) -> None:
    """A stack and its members, before and after a lack of memory; other stages ignore what is not theirs (`Executor.of`)."""
    grid_cells, chosen = cells(), Executor(4, "bf16", deterministic=True)
    graph = tasks(grid_cells, [], tmp_path, "cpu", None, chosen)  # type: ignore[arg-type]
    built = [part for task in graph if not task.here for part in (task, *task.parts)]
    assert any(task.parts for task in built)
    for task in built:
        assert task.arguments[-2] == chosen
        assert task.after_oom is not None
        assert task.after_oom[-2] == chosen


def test_the_members_of_a_stack_are_shown_while_it_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid_cells, chosen, folder = cells(seeds=(1000,)), Executor(4), check(runs)
    asked = Request(grid="tiny", cells=tuple(grid_cells), device="cpu", workers=1, folder=folder, executor=chosen)
    shown: dict[str, list[Point]] = {}
    tracker = Tracker(folder, "tiny", {}, {})
    monkeypatch.setattr(Tracker, "show_cell", lambda self, cell, points: shown.update({cell.label: points}))
    run = GridRun(plan.make(asked), Estimator(runs), Console(file=StringIO()), tracker)
    optimized = [cell.stages["optimized"] for cell in grid_cells]
    (stack,) = [
        task for task in run._graph if {part.key for part in task.parts} >= {stage.folder for stage in optimized}
    ]
    run.started(stack)
    for step, stage in enumerate(optimized):
        curves.writer(curves.live_file(runs, stage.folder))(step, {"kl_token": 0.1})
    run.progressed(stack, 1, 2)
    assert shown.keys() == {"diffro", "rrpo"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "half"}, "fp32, tf32, bf16"),
        ({"precision": "tf32"}, "TF32 needs a GPU"),
        ({"stack": "x"}, "--stack"),
        ({"precision": "bf16", "arms": "rrpo,best_of_16,emodiff"}, "--precision bf16 with best_of_16, emodiff\n"),
    ],
)
def test_an_executor_that_makes_no_sense_is_refused(options: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        request(Options(grid="smoke", device="cpu", runs_dir=tmp_path, **options))  # type: ignore[arg-type]


def test_a_request_knows_its_executor(tmp_path: Path) -> None:
    assert request(Options(grid="smoke", device="cpu", runs_dir=tmp_path)).executor == Executor()
    checked = request(
        Options(grid="smoke", device="cpu", runs_dir=tmp_path, stack="2", precision="bf16", deterministic=True)
    )
    assert str(checked.executor) == "stacked(2) bf16 deterministic"
