"""Benchmark of the overhead per cell: ``python tests/benchmarks/orchestrator.py [--cells 40] [--finished 1000]``.

This runner, Hydra's basic launcher, Optuna's grid sampler and Ray Tune evaluate the same trivial function over a grid, each with
one worker and in its own process, interleaved in every round. The cost per cell is the slope between a short and a long grid,
which excludes startup. Prints medians over the rounds and their ratios to this runner, then the time to rerun and to plan a
finished grid. Libraries that are not installed are listed as such; they are not dependencies.
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
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Context, Stage
from rrpo.profiles import Profile

SHORT = 10
"""Number of cells of the short grid."""
ARMS = 10
PROFILE = Profile(name="smoke", world=WorldConfig(), sizes={})


def square(x: int) -> float:
    """Return the square of ``x``: the trivial function."""
    return float(x * x)


@dataclass(frozen=True, kw_only=True)
class Trivial:
    """Config of the trivial stage."""

    x: int


@dataclass(frozen=True, kw_only=True)
class TrivialCell(Cell):
    """A cell with one stage, which returns one number."""

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
    """Build the trivial stage: write the square to ``scalars.json``."""
    (out / "scalars.json").write_text(json.dumps({"rm_value": square(config.x)}))


def cells(count: int) -> list[Cell]:
    """Return ``count`` trivial cells, with all arms of the first seed first."""
    numbers = [divmod(number, ARMS) for number in range(count)]
    return [TrivialCell(label=f"a{arm}", arm=ArmConfig(), seed=seed, profile=PROFILE) for seed, arm in numbers]


def ours(count: int, folder: Path) -> None:
    """Run the grid with this runner: plan, claim, build, store by hash, record in MLflow."""
    from rich.console import Console

    from ablations.execution import plan, runner
    from ablations.execution.estimate import Estimator
    from ablations.execution.request import Request
    from ablations.tracking.runs_folder import check

    request = Request(grid="trivial", cells=tuple(cells(count)), device="cpu", workers=1, folder=check(folder))
    console = Console(file=StringIO())
    outcome = runner.run_plan(plan.make(request), Estimator(folder), console)
    assert outcome.done == count


class Silent:
    """Observer of the scheduler that ignores all events."""

    def __getattr__(self, name: str) -> Any:
        return lambda *event: None


def scheduler(count: int, folder: Path) -> None:
    """Run the grid with this runner's scheduler and worker only; nothing is stored."""
    from ablations.execution.launchers.local import LocalPool
    from ablations.execution.scheduler import Scheduler, Task

    tasks = [
        Task(key=f"t{x}", title=str(x), function="orchestrator:task", arguments=(x,), priority=(x,))
        for x in range(count)
    ]
    Scheduler(tasks, LocalPool(1), folder / "logs", Silent()).run()  # type: ignore[arg-type]


def task(x: int, report: Any) -> float:
    """Evaluate the trivial function as a task."""
    return square(x)


def hydra(count: int, folder: Path) -> None:
    """Run the grid as a Hydra multirun with the basic launcher: in this process, storing each job's config and log."""
    import hydra as library

    (folder / "config.yaml").write_text("x: 0\n")
    sys.argv = ["orchestrator", "--multirun", f"x=range(0,{count})", f"hydra.sweep.dir={folder}/out"]

    @library.main(config_path=str(folder), config_name="config", version_base=None)
    def app(config: Any) -> float:
        return square(config.x)

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    app()


def optuna_memory(count: int, folder: Path) -> None:
    """Run the grid with Optuna's grid sampler in memory."""
    _optuna(count, None)


def optuna_sqlite(count: int, folder: Path) -> None:
    """Run the grid with Optuna's grid sampler, storing trials in SQLite."""
    _optuna(count, f"sqlite:///{folder}/optuna.db")


def _optuna(count: int, storage: str | None) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GridSampler({"x": list(range(count))})
    study = optuna.create_study(storage=storage, sampler=sampler)
    study.optimize(lambda trial: square(trial.suggest_int("x", 0, count)), n_trials=count)
    assert len(study.trials) == count


def ray_tune(count: int, folder: Path) -> None:
    """Run the grid as a grid search of Ray Tune on a local cluster with one CPU, storing results as Tune does by default."""
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
"""Name -> (function, required module)."""


def one(name: str, count: int) -> None:
    """Run one grid and print the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        RUNNERS[name][0](count, Path(folder))
        seconds = time.monotonic() - start
    print(f"\nseconds {seconds}", file=sys.stderr)


def timed(*arguments: str) -> float:
    """Run this file in a new process and return the seconds that it prints."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return float(done.stderr.rsplit("seconds ", 1)[1])


def again(count: int) -> None:
    """Rerun and plan a finished grid by the command itself; print the seconds, in total and without imports."""
    from ablations.tracking.recorder import Tracker, create
    from ablations.tracking.runs_folder import check

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
                print(f"  recorded {number + 1} finished cells", flush=True)
        tracker.end_invocation("FINISHED")
        for title, arguments in (("run again", []), ("planned", ["--plan"])):
            start = time.monotonic()
            after = timed("--command", str(count), "--grid", "trivial", "--runs-dir", str(runs), *arguments)
            print(f"{count} finished cells, {title:10s}{time.monotonic() - start:7.2f} s, after imports {after:.2f} s")
        after = timed("--command", str(count), "--grid", "trivial", "--runs-dir", f"{folder}/none", "--plan")
        print(f"{count} missing cells, planned{'':4s}{'':9s}  after imports {after:.2f} s")


def command(count: int, arguments: list[str]) -> None:
    """Run ``ablations.run`` on the trivial grid and print the seconds after its import."""
    from ablations import run

    GRIDS.register("trivial", Grid(cells=lambda profile, seeds: cells(count), profile="smoke", seeds=1, first_seed=1))
    start = time.monotonic()
    try:
        run.app(arguments, standalone_mode=False)
    finally:
        print(f"\nseconds {time.monotonic() - start}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40, help="number of cells by which the long grid is longer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--finished", type=int, default=1000, help="number of cells of the finished grid; 0 skips it")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--command", type=int, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.one:
        return one(options.one[0], int(options.one[1]))
    if options.command:
        return command(options.command, rest)
    slopes: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, (_, module) in RUNNERS.items():
            if not module or importlib.util.find_spec(module) is not None:
                short, long = (timed("--one", name, str(count)) for count in (SHORT, SHORT + options.cells))
                slopes.setdefault(name, []).append(1000 * (long - short) / options.cells)
    for name in RUNNERS:
        if name not in slopes:
            print(f"{name:32s}{'not installed':>14s}")
            continue
        cost = statistics.median(slopes[name])
        ratio = cost / statistics.median(slopes["this runner"])
        print(
            f"{name:32s}{cost:11.1f} ms per cell{ratio:8.2f} x ours  (rounds {', '.join(f'{s:.1f}' for s in slopes[name])})"
        )
    if options.finished:
        again(options.finished)


if __name__ == "__main__":
    import orchestrator  # pickled objects need a module name that workers can import

    orchestrator.main()
