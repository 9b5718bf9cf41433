"""Tasks per GPU by measured memory: the arithmetic, on markers that claim a GPU. No GPU is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fakes
import pytest

from ablations.execution import environment, launchers, packing
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import Launching, checked
from ablations.execution.launchers.local import LocalPool
from ablations.execution.launchers.pool import Task
from ablations.execution.options import Options
from ablations.execution.request import request
from rrpo.errors import InputError
from rrpo.identity import canonical
from rrpo.pipeline.stages import MARKER, Context, Stage, materialise


def stage(role: str) -> Stage:
    return Stage("codec" if role == "small" else "sft", "fakes:build_shared", fakes.FakeConfig(role=role), label=role)


def measured(store: Path, peaks: dict[str, int], device: str = "cuda") -> Estimator:
    """Return an estimator of a store in which stages of these names used the given MiB."""
    for number, (name, peak) in enumerate(peaks.items()):
        folder = store / "stages" / f"{name}-{number}"
        folder.mkdir(parents=True)
        record = {"name": name, "config": canonical(fakes.FakeConfig(role="another")), "device": device}
        record |= {"seconds": 1.0, "bytes": 1, "peak_device_mib": peak}
        (folder / MARKER).write_text(json.dumps(record))
    return Estimator(store, "cuda")


@pytest.mark.parametrize(
    ("peaks", "gpu_mib", "tasks"),
    [
        ({"codec": 400, "sft": 1400}, 80_000, 36),  # .9 x 80000 / (600 + 1400): the largest stage counts
        ({"codec": 400, "sft": 1400}, 24_000, 10),  # 10.8
        ({"codec": 400, "sft": 60_000}, 40_000, 1),  # too small for any task: still one, which fails with its own error
        ({"codec": 400}, 80_000, packing.UNMEASURED),  # the larger stage is not measured: at most the default
        ({"codec": 30_000}, 80_000, 2),  # and at most what the measured stage allows
        ({}, 80_000, packing.UNMEASURED),
        ({"codec": 400, "sft": 1400}, None, packing.UNMEASURED),
    ],
)
def test_as_many_as_fit(tmp_path: Path, peaks: dict[str, int], gpu_mib: int | None, tasks: int):
    assert packing.tasks_a_gpu([stage("small"), stage("large")], measured(tmp_path, peaks), gpu_mib) == tasks


def test_a_task_that_trains_a_stack_needs_the_memory_of_all_members(tmp_path: Path):
    estimator = measured(tmp_path, {"codec": 400, "sft": 1400})
    assert packing.tasks_a_gpu([stage("small"), stage("large")], estimator, 80_000, 8) == 6  # 72000 / (600 + 8 x 1400)


def test_what_a_cpu_measured_says_nothing(tmp_path: Path):
    estimator = measured(tmp_path, {"codec": 400, "sft": 1400}, device="cpu")
    assert packing.tasks_a_gpu([stage("small")], estimator, 80_000) == packing.UNMEASURED


def test_a_stage_records_its_peak_on_a_gpu_and_none_on_a_cpu(tmp_path: Path):
    folder = materialise(stage("small"), tmp_path, Context(device="cpu"))
    assert json.loads((folder / MARKER).read_text())["peak_device_mib"] is None


def test_workers_and_ray_shares_come_from_the_same_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "_no_gpu", lambda: "")
    monkeypatch.setattr(environment, "gpus", lambda: {"0": 24_000, "1": 80_000})
    monkeypatch.setattr("ablations.execution.request.os.sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(packing, "tasks_a_gpu", lambda stages, estimator, gpu_mib, members: gpu_mib // 6000)
    local = request(Options(grid="smoke", runs_dir=tmp_path / "runs"))
    assert (local.device, local.workers) == ("cuda", 8), "four on each of two GPUs, by the memory of the smaller one"
    assert request(Options(grid="smoke", workers=3, runs_dir=tmp_path / "runs")).workers == 3
    assert checked(Launching(), "cuda", 4).gpus_per_task == 0.25
    assert checked(Launching(), "cpu", 4).gpus_per_task == 0
    monkeypatch.setitem(launchers.PACKAGES, "ray", "")
    assert checked(Launching(launcher="ray", gpus_per_task=0.5), "cuda", 4).gpus_per_task == 0.5
    with pytest.raises(InputError, match=r"are for tasks on Ray and Slurm\n  got: --launcher local"):
        checked(Launching(gpus_per_task=0.5), "cuda", 4)


def test_slurm_gives_whole_gpus():
    pytest.importorskip("submitit")
    assert checked(Launching(launcher="slurm"), "cuda", 4).gpus_per_task == 1
    assert checked(Launching(launcher="slurm"), "cpu", 4).gpus_per_task == 0


def test_gpus_are_dealt_to_workers_in_turn(tmp_path: Path):
    pool = LocalPool(3, ["4", "7"])
    try:
        for key in "abc":
            pool.submit(Task(key=key, title=key, function="tasks:visible_gpus"), tmp_path / "log")
        events: dict[str, Any] = {}
        while len(events) < 3:
            events |= dict(pool.events(60))
        assert {key: event.result for key, event in events.items()} == {"a": "4", "b": "7", "c": "4"}
    finally:
        pool.stop(5)
