"""One trial: a point of the space on several development seeds, judged by `val` alone.

Seeds, and the noise that they key, are the same for every trial, so that trials are paired. What is compared is the plain mean
over seeds: less DiffRO's value of each seed it would be the same for all trials but for a constant. Stage ``score``, which asks
the ``test`` judge, is never asked for here.
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
from rrpo.pipeline import dataflow
from rrpo.pipeline.cell import collect
from rrpo.pipeline.stages import Context, Stage, materialise
from rrpo.profiles import Profile

FIRST_SEED = 1000
"""First development seed of a search; those of `FRESH_SEED` on are for the check of its winner."""
FRESH_SEED = 2000
KL = "kl_token"
"""Outcome of every trial with a policy beside the objectives: how far it went from SFT at the end, nats a token."""
Look = Callable[[Mapping[str, float]], float]
"""Of what a running policy optimisation measures at a step: a number that goes with an objective; NaN where it has none."""


class Objective(NamedTuple):
    """One number a seed."""

    direction: str
    """``maximize`` or ``minimize``."""
    label: str
    """For people."""
    read: Callable[[Record], float]
    """Reads it off a seed's record."""
    policy: bool = True
    """Whether a policy has to be optimised for it; it is then told of the final update."""
    look: Look | None = None
    """For pruning by step; None: it cannot be seen before the end."""


def clean_so_far(measures: Mapping[str, float]) -> float:
    """Share of roll-outs that the tuning judge hears right without an artefact in their frames; phones are not asked."""
    return measures.get(tuning().clean, math.nan)


def hacked_so_far(measures: Mapping[str, float]) -> float:
    """Of the roll-outs that the proxy hears right, the share that `val` hears wrong or that has a planted artefact."""
    hits = measures.get("proxy_accuracy", math.nan)
    return measures[tuning().hack_rate] / hits if hits > 0 else math.nan


def from_samples(outcome: Outcome, look: Look) -> Objective:
    """A declared outcome of the table of samples."""
    return Objective("maximize" if outcome.direction > 0 else "minimize", outcome.label, outcome.read, look=look)


def scalar(name: str) -> Callable[[Record], float]:
    """Reads one scalar."""
    return lambda record: record.scalars[name]


def cross_language(record: Record) -> float:
    """Mean accuracy over the test sets of other languages, which are named by two or three letters."""
    start = "rm_accuracy_test_"
    found = [v for k, v in record.scalars.items() if k.startswith(start) and len(k.removeprefix(start)) <= 3]
    return sum(found) / len(found) if found else math.nan


OBJECTIVES: dict[str, Objective] = {
    "clean_success": from_samples(clean_success(tuning()), clean_so_far),
    "hacked_share": from_samples(hacked_share(tuning()), hacked_so_far),
    "phone_error_rate": Objective("minimize", "phone error rate", scalar("end_phone_error_rate")),
    "gold": Objective(
        "maximize",
        "gold accuracy",
        scalar(f"end_{tuning().accuracy}"),
        look=lambda measures: measures.get(tuning().logprob, math.nan),
    ),
    "uptake": Objective(
        "minimize", "shortcut uptake", scalar("end_uptake"), look=lambda measures: measures.get("uptake", math.nan)
    ),
    "cross_language": Objective("maximize", "RM accuracy, other languages", cross_language, policy=False),
    "robustness": Objective("maximize", "RM accuracy, PGD at 0.1", scalar("rm_pgd_accuracy_0.1"), policy=False),
    "decorrelated": Objective(
        "maximize", "RM accuracy, de-correlated", scalar("rm_accuracy_test_decorrelated"), policy=False
    ),
}


@dataclass(frozen=True)
class Question:
    """What a trial measures: where, how large, on which seeds, for which objectives."""

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
        """Whether any objective is of the reward model alone."""
        return not all(OBJECTIVES[name].policy for name in self.objectives)

    def stages(self, arm: ArmConfig, seed: int) -> list[Stage]:
        """What one seed of a trial asks for; the policy optimisation first."""
        stages: list[Stage] = []
        if self.policy:
            stages += [dataflow.optimized(self.profile, arm, seed), dataflow.assessed(self.profile, arm, seed)]
        if self.reward_model:
            stages.append(dataflow.examined(self.profile, arm, seed))
        return stages


def measure(
    question: Question,
    arm: ArmConfig,
    seed: int,
    watch: Callable[[int, Mapping[str, float]], None] = lambda step, measures: None,
    report: Callable[[int, int], None] = lambda done, total: None,
    micro: int | None = None,
) -> dict[str, float]:
    """Every outcome of one seed that its stages give; ``watch`` hears of the policy optimisation's looks and may end it.

    Raises what a stage raises, `Interrupted` when this worker was asked to stop.
    """
    context = Context(device=question.device, watch=watch, report=report, stop=stopping, micro=micro)
    for stage in question.stages(arm, seed):
        materialise(stage, question.store, context)
    record = recorded(question, arm, seed)
    asked = {True: question.policy, False: question.reward_model}
    found = {name: objective.read(record) for name, objective in OBJECTIVES.items() if asked[objective.policy]}
    return found | ({KL: record.scalars[f"end_{KL}"]} if question.policy else {})


def recorded(question: Question, arm: ArmConfig, seed: int) -> Record:
    """One seed of a trial, all of whose stages are stored, as outcomes read it: scalars, and the table of samples if any."""
    stages = {stage.name: stage for stage in question.stages(arm, seed)}
    scalars, files = collect(stages, question.store)
    return Record(
        label="trial",
        seed=seed,
        cell_hash="",
        arm_hash="",
        world_hash="",
        profile=question.profile.name,
        scalars=scalars,
        find=lambda: files[SAMPLES_FILE].parent,
    )


def mean(outcomes: Mapping[int, Mapping[str, float]], name: str) -> float:
    """Mean of one outcome over seeds."""
    return sum(seed[name] for seed in outcomes.values()) / len(outcomes)
