"""What a runner costs a cell: ``python tests/benchmarks/orchestrator.py [--cells 40] [--finished 1000]``.

The same trivial function over a grid by this runner, Hydra's basic launcher, Optuna's grid sampler and Ray Tune, one at a
time on one worker, each in a process of its own, in turn within every round. The cost of a cell is the slope between a short and
a long grid, so that starting up does not count; medians over the rounds, and their ratios to ours. Then how long a finished grid
takes to be run again, and to be planned. Libraries that are not installed are said to be so; they are no dependencies.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from ablations.grids import GRIDS, Grid
from rrpo.config import ArmConfig
from rrpo.corpus.config import WorldConfig
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.stages import Context, Stage
from rrpo.profiles import Profile

SHORT = 10
"""Cells of the short grid."""
ARMS = 10
PROFILE = Profile(name="smoke", world=WorldConfig(), sizes={})


def square(x: int) -> float:
    """The trivial function."""
    return float(x * x)


@dataclass(frozen=True, kw_only=True)
class Trivial:
    """Config of the trivial stage."""

    x: int


@dataclass(frozen=True, kw_only=True)
class TrivialCell(Cell):
    """One stage, one number, a record in MLflow."""

    @cached_property
    def stages(self) -> dict[str, Stage]:
        x = int(self.label[1:]) + ARMS * self.seed
        return {"examined": Stage("examine", "orchestrator:build", Trivial(x=x), label=f"square {x}")}

    @cached_property
    def optional(self) -> dict[str, Stage]:
        return {}

    @cached_property
    def world_hash(self) -> str:
        return "trivial"


def build(config: Trivial, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write the number down."""
    (out / "scalars.json").write_text(json.dumps({"rm_value": square(config.x)}))


def cells(count: int) -> list[Cell]:
    """So many trivial cells, seed by seed."""
    numbers = [divmod(number, ARMS) for number in range(count)]
    return [TrivialCell(label=f"a{arm}", arm=ArmConfig(), seed=seed, profile=PROFILE) for seed, arm in numbers]


def ours(count: int, folder: Path) -> None:
    """Plan, claim, build, store by hash, record in MLflow."""
    from rich.console import Console

    from ablations.execution import plan, runner
    from ablations.execution.estimate import Estimator
    from ablations.execution.request import Request
    from ablations.execution.runs_folder import check

    asked = Request(grid="trivial", cells=tuple(cells(count)), device="cpu", workers=1, folder=check(folder))
    console = Console(file=StringIO())
    outcome = runner.run_plan(plan.make(asked), Estimator(folder), console, lambda table, console, title: None)
    assert outcome.done == count


class Silent:
    """An observer of the scheduler."""

    def __getattr__(self, name: str) -> Any:
        return lambda *event: None


def scheduler(count: int, folder: Path) -> None:
    """Our scheduler and warm worker alone: nothing is stored."""
    from ablations.execution.launchers.local import LocalPool
    from ablations.execution.scheduler import Scheduler, Task

    tasks = [
        Task(key=f"t{x}", title=str(x), function="orchestrator:task", arguments=(x,), priority=(x,))
        for x in range(count)
    ]
    Scheduler(tasks, LocalPool(1), folder / "logs", Silent()).run()  # type: ignore[arg-type]


def task(x: int, report: Any) -> float:
    """The trivial function as a task."""
    return square(x)


def hydra(count: int, folder: Path) -> None:
    """Multirun with the basic launcher: runs in this process, stores each job's config and log."""
    import hydra as library

    (folder / "config.yaml").write_text("x: 0\n")
    sys.argv = ["orchestrator", "--multirun", f"x=range(0,{count})", f"hydra.sweep.dir={folder}/out"]

    @library.main(config_path=str(folder), config_name="config", version_base=None)
    def app(config: Any) -> float:
        return square(config.x)

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    app()


def optuna_memory(count: int, folder: Path) -> None:
    """Grid sampler, nothing stored."""
    _optuna(count, None)


def optuna_sqlite(count: int, folder: Path) -> None:
    """Grid sampler, trials stored in sqlite."""
    _optuna(count, f"sqlite:///{folder}/optuna.db")


def _optuna(count: int, storage: str | None) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GridSampler({"x": list(range(count))})
    study = optuna.create_study(storage=storage, sampler=sampler)
    study.optimize(lambda trial: square(trial.suggest_int("x", 0, count)), n_trials=count)
    assert len(study.trials) == count


def ray_tune(count: int, folder: Path) -> None:
    """A grid search on a local cluster of one CPU, results stored as Tune does."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AIR_NEW_OUTPUT="0")
    import ray
    from ray import tune

    def trainable(config: dict[str, int]) -> None:
        tune.report({"y": square(config["x"])})

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    run = tune.RunConfig(storage_path=str(folder), verbose=0)
    tuner = tune.Tuner(trainable, param_space={"x": tune.grid_search(list(range(count)))}, run_config=run)
    assert len(tuner.fit()) == count
    ray.shutdown()


RUNNERS = {
    "this runner": (ours, ""),
    "its scheduler alone": (scheduler, ""),
    "Hydra, basic launcher": (hydra, "hydra"),
    "Optuna, grid sampler, sqlite": (optuna_sqlite, "optuna"),
    "Optuna, grid sampler, memory": (optuna_memory, "optuna"),
    "Ray Tune, grid search": (ray_tune, "tensorboardX"),  # of the extra ray[tune]
}
"""Name -> (how, the module that it needs)."""


def one(name: str, count: int) -> None:
    """Run one grid and print the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        RUNNERS[name][0](count, Path(folder))
        seconds = time.monotonic() - start
    print(f"\nseconds {seconds}", file=sys.stderr)


def timed(*arguments: str) -> float:
    """Seconds that this file, started anew, prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return float(done.stderr.rsplit("seconds ", 1)[1])


def again(count: int) -> None:
    """A finished grid: run again and planned, by the command itself; seconds, and of them without imports."""
    from ablations.execution.runs_folder import check
    from ablations.tracking.recorder import Tracker, create

    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        everything = cells(count)
        create(check(runs), "trivial")
        tracker = Tracker(check(runs), "trivial", {"git_sha": "0" * 40, "dirty": "false"}, {})
        tracker = tracker.start_invocation(everything, {"device": "cpu"})
        scalars = {f"end_number_{place}": float(place) for place in range(50)}
        for number, cell in enumerate(everything):
            tracker.record_cell(cell, scalars, {}, "")
            if number % 100 == 99:
                print(f"  made {number + 1} finished cells", flush=True)
        tracker.end_invocation("FINISHED")
        for title, arguments in (("run again", []), ("planned", ["--plan"])):
            start = time.monotonic()
            after = timed("--command", str(count), "--grid", "trivial", "--runs-dir", str(runs), *arguments)
            print(f"{count} finished cells, {title:10s}{time.monotonic() - start:7.2f} s, after imports {after:.2f} s")
        after = timed("--command", str(count), "--grid", "trivial", "--runs-dir", f"{folder}/none", "--plan")
        print(f"{count} missing cells, planned{'':4s}{'':9s}  after imports {after:.2f} s")


def command(count: int, arguments: list[str]) -> None:
    """``ablations.run`` on the trivial grid; the seconds after its import."""
    from ablations import run

    GRIDS.register("trivial", Grid(cells=lambda profile, seeds: cells(count), profile="smoke", seeds=1, first_seed=1))
    start = time.monotonic()
    try:
        run.app(arguments, standalone_mode=False)
    finally:
        print(f"\nseconds {time.monotonic() - start}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40, help="by which the long grid is longer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--finished", type=int, default=1000, help="cells of the finished grid; 0: none")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--command", type=int, help=argparse.SUPPRESS)
    asked, rest = parser.parse_known_args()
    if asked.one:
        return one(asked.one[0], int(asked.one[1]))
    if asked.command:
        return command(asked.command, rest)
    slopes: dict[str, list[float]] = {}
    for _ in range(asked.rounds):
        for name, (_, module) in RUNNERS.items():
            if not module or importlib.util.find_spec(module) is not None:
                short, long = (timed("--one", name, str(count)) for count in (SHORT, SHORT + asked.cells))
                slopes.setdefault(name, []).append(1000 * (long - short) / asked.cells)
    for name in RUNNERS:
        if name not in slopes:
            print(f"{name:32s}{'not installed':>14s}")
            continue
        cost = statistics.median(slopes[name])
        ratio = cost / statistics.median(slopes["this runner"])
        print(
            f"{name:32s}{cost:11.1f} ms a cell{ratio:8.2f} x ours  (rounds {', '.join(f'{s:.1f}' for s in slopes[name])})"
        )
    if asked.finished:
        again(asked.finished)


if __name__ == "__main__":
    import orchestrator  # so that what is pickled has a name that workers can import

    orchestrator.main()
