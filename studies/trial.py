"""Measure one trial: a point of the space on several development seeds, judged by `val` only.

Seeds and their noise are the same for every trial, so that trials are paired. Trials are compared by the mean over seeds;
subtracting DiffRO's value on each seed would only change this mean by a constant. A trial never builds the stage ``score``, which
uses the ``test`` judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ablations.execution.worker import stopping
from ablations.judges import tuning
from ablations.outcomes import Outcome, clean_success, hacked_share
from ablations.tracking.records import SAMPLES_FILE, Record
from rrpo.config import ArmConfig
from rrpo.experiment import dataflow, measurements
from rrpo.experiment.cell import collect
from rrpo.pipeline.stages import Context, Stage, materialise
from rrpo.profiles import Profile

FRESH_SEED = 2000
"""First seed for the check of a search's best trial."""
KL = "kl_token"
"""Outcome stored with every trial that has a policy, in addition to the objectives: final KL to SFT, nats per token."""
Intermediate = Callable[[Mapping[str, float]], float]
"""Maps the measures of one step of a running policy optimization to an intermediate value of an objective; NaN for none."""


class Objective(NamedTuple):
    """An objective: one number per seed."""

    direction: str
    """``maximize`` or ``minimize``."""
    label: str
    """Name for display."""
    read: Callable[[Record], float]
    """Reads the objective from a seed's record."""
    policy: bool = True
    """Whether it needs a policy; it is then measured after the final update."""
    intermediate: Intermediate | None = None
    """Gives its intermediate values for pruning by step; None if there are none."""


def curve(name: str) -> Intermediate:
    """Return a function that reads one of the measures."""
    return lambda measures: measures.get(name, math.nan)


def hacked_so_far(measures: Mapping[str, float]) -> float:
    """Return the share of hacked roll-outs among those in which the proxy predicts the target emotion.

    A roll-out is hacked if `val` predicts another emotion or if it has a planted artefact.
    """
    hits = measures.get("proxy_accuracy", math.nan)
    return measures[tuning().hack_rate] / hits if hits > 0 else math.nan


def from_samples(outcome: Outcome, intermediate: Intermediate) -> Objective:
    """Return the objective of a declared outcome of the sample table."""
    return Objective(
        "maximize" if outcome.direction > 0 else "minimize", outcome.label, outcome.read, intermediate=intermediate
    )


def scalar(name: str) -> Callable[[Record], float]:
    """Return a function that reads one scalar of a record."""
    return lambda record: record.scalars[name]


def cross_language(record: Record) -> float:
    """Return the mean accuracy over the test sets of other languages, whose names have two or three letters."""
    prefix = "rm_accuracy_test_"
    accuracies = [v for k, v in record.scalars.items() if k.startswith(prefix) and len(k.removeprefix(prefix)) <= 3]
    return sum(accuracies) / len(accuracies) if accuracies else math.nan


OBJECTIVES: dict[str, Objective] = {
    # its intermediate values know nothing of phone errors, repetition and length
    "clean_success": from_samples(clean_success(tuning()), curve(tuning().clean)),
    "hacked_share": from_samples(hacked_share(tuning()), hacked_so_far),
    "phone_error_rate": Objective("minimize", "phone error rate", scalar("end_phone_error_rate")),
    "gold": Objective(
        "maximize", "gold accuracy", scalar(f"end_{tuning().accuracy}"), intermediate=curve(tuning().logprob)
    ),
    "uptake": Objective("minimize", "shortcut uptake", scalar("end_uptake"), intermediate=curve("uptake")),
    "cross_language": Objective("maximize", "RM accuracy, other languages", cross_language, policy=False),
    "robustness": Objective("maximize", "RM accuracy, PGD at 0.1", scalar("rm_pgd_accuracy_0.1"), policy=False),
    "decorrelated": Objective(
        "maximize", "RM accuracy, de-correlated", scalar("rm_accuracy_test_decorrelated"), policy=False
    ),
}


@dataclass(frozen=True)
class TrialSpec:
    """What a trial measures: profile, runs folder, seeds and objectives."""

    profile: Profile
    """Size of world and models."""
    store: Path
    """Runs folder; stages are shared with grids and other studies."""
    seeds: tuple[int, ...]
    """Development seeds, the same for every trial."""
    objectives: tuple[str, ...]
    """Keys of `OBJECTIVES`."""
    device: str = "cpu"
    """``cpu`` or ``cuda``."""

    @property
    def policy(self) -> bool:
        """Whether any objective needs a policy."""
        return any(OBJECTIVES[name].policy for name in self.objectives)

    @property
    def reward_model(self) -> bool:
        """Whether any objective is measured on the reward model only."""
        return not all(OBJECTIVES[name].policy for name in self.objectives)

    def stages(self, arm: ArmConfig, seed: int) -> list[Stage]:
        """Return the stages that one seed of a trial needs, the policy optimization first."""
        stages: list[Stage] = []
        if self.policy:
            stages += [dataflow.optimized(self.profile, arm, seed), measurements.assessed(self.profile, arm, seed)]
        if self.reward_model:
            stages.append(measurements.examined(self.profile, arm, seed))
        return stages


def measure(
    spec: TrialSpec,
    arm: ArmConfig,
    seed: int,
    on_measures: Callable[[int, Mapping[str, float]], None] = lambda step, measures: None,
    report: Callable[[int, int], None] = lambda done, total: None,
    micro: int | None = None,
) -> dict[str, float]:
    """Build the stages of one seed and return all outcomes that they give.

    ``on_measures`` is called with the step and the measures of the policy optimization, and may end it by raising TrialPruned.
    Raises what a stage raises, and `Interrupted` if this worker was asked to stop.
    """
    context = Context(device=spec.device, on_measures=on_measures, report=report, stop=stopping, micro=micro)
    stages = {stage.name: stage for stage in spec.stages(arm, seed)}
    for stage in stages.values():
        materialise(stage, spec.store, context)
    scalars, files = collect(stages, spec.store)
    record = Record(
        label="trial",
        seed=seed,
        profile=spec.profile.name,
        find=lambda: files[SAMPLES_FILE].parent,
        load=lambda: scalars,
    )
    enabled = {True: spec.policy, False: spec.reward_model}
    outcomes = {name: objective.read(record) for name, objective in OBJECTIVES.items() if enabled[objective.policy]}
    return outcomes | ({KL: record.scalars[f"end_{KL}"]} if spec.policy else {})


def mean(outcomes: Mapping[int, Mapping[str, float]], name: str) -> float:
    """Return the mean of one outcome over seeds."""
    return sum(seed[name] for seed in outcomes.values()) / len(outcomes)
