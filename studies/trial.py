"""One trial: a point of the space on several development seeds, judged by `val` alone.

Seeds are the same for every trial, so that trials are paired. The ``test`` judge's stage is never asked for here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ablations.components import BASE
from ablations.grids import arms
from ablations.judges import Judge, tuning
from ablations.statistics import STUCK, matched_kl_gain
from ablations.worker import stopping
from rrpo import pipeline
from rrpo.config import ArmConfig
from rrpo.profiles import Profile
from rrpo.stages import Context, Stage, materialise

FIRST_SEED = 1000
"""First development seed of a search; those of `FRESH_SEED` on are for the check of its winner."""
FRESH_SEED = 2000


def reference() -> ArmConfig:
    """DiffRO, whose reach in KL is the range over which every trial of a seed is averaged."""
    return arms()[BASE]


class Objective(NamedTuple):
    """One number a seed."""

    direction: str
    """``maximize`` or ``minimize``."""
    policy: bool
    """Whether a policy has to be optimised for it."""
    text: str
    """For people."""
    look: Callable[[Judge], str] | None = None
    """The measure of a running policy optimisation, by its judge, that goes the same way, for pruning by step; None: none."""


OBJECTIVES: dict[str, Objective] = {
    "gold_gain": Objective("maximize", True, "gold gain at matched KL", lambda judge: judge.logprob),
    "gold_end": Objective("maximize", True, "gold accuracy at the last checkpoint", lambda judge: judge.logprob),
    "hack_rate": Objective("minimize", True, "hack rate at the last checkpoint", lambda judge: judge.hack_rate),
    "uptake": Objective("minimize", True, "shortcut uptake at the last checkpoint", lambda judge: "uptake"),
    "phone_error_rate": Objective("minimize", True, "phone error rate at the last checkpoint"),
    "cross_language": Objective("maximize", False, "reward model's accuracy on languages that it was not trained on"),
    "robustness": Objective("maximize", False, "reward model's accuracy under PGD at a relative radius of 0.1"),
    "decorrelated": Objective("maximize", False, "reward model's accuracy with de-correlated artefacts"),
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

    def stages(self, arm: ArmConfig, seed: int) -> list[Stage]:
        """What one seed of a trial asks for."""
        if not self.policy:
            return [pipeline.examined(self.profile, arm, seed)]
        stages = [pipeline.optimized(self.profile, arm, seed), pipeline.optimized(self.profile, reference(), seed)]
        if "phone_error_rate" in self.objectives:
            stages.append(pipeline.transcribed(self.profile, arm, seed))
        if any(not OBJECTIVES[name].policy for name in self.objectives):
            stages.append(pipeline.examined(self.profile, arm, seed))
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

    ``moved`` is the arm's reach in sqrt(KL) over the reference's. Raises what a stage raises, `Interrupted` when this worker
    was asked to stop.
    """
    found: dict[str, float] = {}
    own = Context(device=question.device, watch=watch, report=report, stop=stopping, micro=micro)
    folders = {
        stage.name if stage.key != _reference(question, seed) else "reference": materialise(stage, question.store, own)
        for stage in question.stages(arm, seed)
    }
    if question.policy:
        judge = tuning()
        vanilla = pd.read_parquet(
            pipeline.optimized(question.profile, reference(), seed).path(question.store) / "points.parquet"
        )
        points = pd.read_parquet(
            pipeline.optimized(question.profile, arm, seed).path(question.store) / "points.parquet"
        )
        paths = {name: (p["sqrt_kl"], p[judge.accuracy]) for name, p in (("reference", vanilla), ("trial", points))}
        found["gold_gain"] = matched_kl_gain(paths, stops={"trial"}).gains["trial"]
        found["gold_end"] = float(points[judge.accuracy].iloc[-1])
        found["hack_rate"] = float(points[judge.hack_rate].iloc[-1])
        found["uptake"] = float(points["uptake"].iloc[-1])
        found["kl_token"] = float(points["kl_token"].iloc[-1])
        found["moved"] = float(points["sqrt_kl"].max() / vanilla["sqrt_kl"].max())
    if "transcribe" in folders:
        found["phone_error_rate"] = _scalars(folders["transcribe"])["end_phone_error_rate"]
    if "examine" in folders:
        scalars = _scalars(folders["examine"])
        foreign = [v for k, v in scalars.items() if k.startswith("rm_accuracy_test_") and len(k.rsplit("_", 1)[1]) <= 3]
        found["cross_language"] = sum(foreign) / len(foreign) if foreign else math.nan
        found["robustness"] = scalars["rm_pgd_accuracy_0.1"]
        found["decorrelated"] = scalars["rm_accuracy_test_decorrelated"]
    return found


def constraints(outcomes: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Feasible at or below 0: the policy has to move, at least `STUCK` of the reference's reach, on every seed."""
    moved = [seed["moved"] for seed in outcomes.values() if "moved" in seed]
    return {"moved": STUCK - min(moved)} if moved else {}


def mean(outcomes: Mapping[int, Mapping[str, float]], name: str) -> float:
    """Mean of one outcome over seeds."""
    return sum(seed[name] for seed in outcomes.values()) / len(outcomes)


def _reference(question: Question, seed: int) -> str:
    return pipeline.optimized(question.profile, reference(), seed).key if question.policy else ""


def _scalars(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "scalars.json").read_text())
    return found
