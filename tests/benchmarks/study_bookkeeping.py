"""Benchmark of a study's overhead: ``python tests/benchmarks/study_bookkeeping.py [--trials 30] [--trial-seconds 180]``.

Runs trials without any work against every storage. Prints the time per trial for the worker (recover, ask, claim, attributes,
intermediate values for the pruner, tell) and for the parent (MLflow), and their ratio to a trial of the given length: in the
embedded world, a trial takes three seeds of a minute each. With ``--runs-dir``, the ratio is to the mean of that folder's trials.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from rrpo.profiles import PROFILES
from studies import search as searching
from studies.mlflow_bridge import Bridge
from studies.opening import opened
from studies.search import Search, one_trial
from studies.storage import folder_of, open_storage
from studies.trial import TrialSpec


def nothing(
    spec: TrialSpec, arm: Any, seed: int, on_measures: Any, report: Any, micro: int | None = None
) -> dict[str, float]:
    """Report a trial's intermediate values and return its outcomes without any work."""
    for step in range(0, spec.profile.optimize.steps, 5):
        on_measures(step, {"val_accuracy": -arm.regularizers.epsilon})
    names = ("clean_success", "hacked_share", "phone_error_rate", "gold", "uptake", "kl_token")
    return dict.fromkeys(names, arm.regularizers.epsilon)


def own_seconds(runs_dir: Path) -> float:
    """Return the mean seconds of all complete trials in a runs folder's studies."""
    import optuna

    found = []
    for journal in runs_dir.glob("studies/*/journal.log"):
        storage = open_storage(None, folder_of(runs_dir, journal.parent.name))
        for summary in optuna.get_all_study_summaries(storage):
            study = optuna.load_study(study_name=summary.study_name, storage=storage)
            found += [t.duration.total_seconds() for t in study.trials if t.state.name == "COMPLETE" and t.duration]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--trial-seconds", type=float, default=180.0)
    parser.add_argument("--runs-dir", type=Path)
    arguments = parser.parse_args()
    seconds = own_seconds(arguments.runs_dir) if arguments.runs_dir else arguments.trial_seconds
    searching.measure = nothing
    print(f"compared with trials of {seconds:.1f} s")
    for kind in ("journal", "sqlite"):
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder) / "runs"
            spec = TrialSpec(
                profile=PROFILES["embedded"], store=runs, seeds=(1000, 1001, 1002), objectives=("clean_success",)
            )
            search = Search(
                study="regularizers",
                name=kind,
                spec=spec,
                trials=arguments.trials,
                storage=f"sqlite:///{folder}/s.db" if kind == "sqlite" else None,
            )
            study = opened(search)
            bridge = Bridge(search, study, {})
            searching._opened.clear()
            wall, cpu = -time.perf_counter(), -time.process_time()
            while one_trial(search, lambda done, total: None) is not None:
                pass
            wall, cpu = (wall + time.perf_counter()) / arguments.trials, (cpu + time.process_time()) / arguments.trials
            start = time.perf_counter()
            bridge.write()
            parent = (time.perf_counter() - start) / arguments.trials
            for who, cost in (("worker, wall", wall), ("worker, CPU", cpu), ("parent (MLflow), wall", parent)):
                print(f"{kind:8s}{who:24s}{1000 * cost:8.1f} ms per trial = {100 * cost / seconds:.3f} % of its time")


if __name__ == "__main__":
    main()
