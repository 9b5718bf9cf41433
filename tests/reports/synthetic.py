"""Make records in memory with given clean success and gold accuracy, and grids of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from ablations.components import factorial
from ablations.tracking.records import Record
from reports.loading import Selection

SAMPLES = 2000
"""Number of samples per checkpoint; clean success is accurate to .05 points."""
START = 0.6
"""Clean success of the SFT policy."""


class Fake(Record):
    """A record with given points and, optionally, samples."""

    def __init__(
        self, label: str, seed: int, points: pd.DataFrame, samples: pd.DataFrame | None = None, **fields: object
    ):
        self.__dict__["scalars"] = fields.pop("scalars", {})
        super().__init__(label=label, seed=seed, world_hash="w", profile="smoke", **fields)  # type: ignore[arg-type]
        self.__dict__["points"] = points
        self.__dict__["samples"] = pd.DataFrame() if samples is None else samples


@cache
def checkpoint(step: int, clean: int, predicted: tuple[str, ...], hacked: int) -> pd.DataFrame:
    """Return a checkpoint in which ``clean`` of `SAMPLES` samples are clean. The next ``hacked`` ones contain clicks, and in
    the rest the judges predict another emotion."""
    index = np.arange(SAMPLES)
    good = index < clean
    clicks = ~good & (index < clean + hacked)
    emotion = np.where(good | clicks, "sad", "angry")
    return pd.DataFrame(
        {"step": step, "target": "sad", "proxy": "sad", "artefact_click": clicks, "phone_errors": 0, "phones": 10}
        | dict.fromkeys(predicted, emotion)
    )


def record(label: str, seed: int, clean: float, veto: float | None = None, **fields: object) -> Fake:
    """Return a cell whose clean success goes from `START` to ``clean`` (by `val`: to ``veto``, default the same). Gold changes
    likewise."""
    count = round(SAMPLES * clean)
    end = checkpoint(140, count, ("test", "val"), 0)
    if veto is not None:
        end = end.assign(val=checkpoint(140, round(SAMPLES * veto), ("test",), 0)["test"])
    samples = pd.concat([checkpoint(0, round(SAMPLES * START), ("test", "val"), 0), end], ignore_index=True)
    points = pd.DataFrame({"step": [0, 140], "kl_token": [0.0, 1.0], "sqrt_kl": [0.0, 1.0], "uptake": [0.0, 0.1]})
    points["test_accuracy"] = [START, count / SAMPLES]
    points["val_accuracy"] = points["test_accuracy"]
    params = {"optimize.steps": "140", "optimize.batch": "32"}
    params |= {f"profile.{name}": value for name, value in params.items()}  # the config, which here is the params
    scalars = {"seconds_optimized": 100.0 + seed}
    return Fake(label, seed, points, samples, **({"params": params, "scalars": scalars} | fields))


def with_part(arm: str, part: str) -> bool:
    """Return whether an arm of the factorial has a component."""
    return arm == "rrpo" or part in arm.split("_")


def grid(
    effects: Mapping[str, float],
    seeds: int = 8,
    noise: float = 0.005,
    base: float = 0.5,
    plans: tuple[int, ...] | None = None,
    make: Callable[..., Record] = record,
    without: str = "",
) -> Selection:
    """Return a complete grid of SFT and the factorial, with additive effects of the components."""
    rng = np.random.default_rng(0)
    arms = [arm for arm in ["sft", *factorial()] if arm != without]
    records = []
    for arm in arms:
        level = START if arm == "sft" else base + sum(gain for part, gain in effects.items() if with_part(arm, part))
        records += [make(arm, seed, level + noise * rng.standard_normal()) for seed in range(seeds)]
    planned = dict.fromkeys(arms, seeds)
    return Selection("full", tuple(records), planned, (), (seeds,) if plans is None else plans)


def shuffled(selection: Selection, seed: int) -> Selection:
    """Return the same cells with arm names shuffled within every seed, except SFT's."""
    rng = np.random.default_rng(seed)
    arms = [arm for arm in selection.arms if arm != "sft"]
    records = list(selection.of("sft"))
    for number in sorted({r.seed for r in selection.records}):
        seed_records = [r for r in selection.records if r.seed == number and r.label != "sft"]
        records += [
            Fake(arm, number, r.points, r.samples, params=r.params, scalars=r.scalars, tags=r.tags)
            for arm, r in zip(rng.permutation(arms), seed_records, strict=True)
        ]
    return replace(selection, records=tuple(records))


def with_unplanned_seeds(selection: Selection) -> Selection:
    """Return a grid of which DiffRO and RRPO alone were run on four more seeds, where RRPO is 80 points above DiffRO."""
    first = max(record.seed for record in selection.records) + 1
    levels = {"diffro": 0.1, "rrpo": 0.9}
    extra = [record(arm, seed, level) for arm, level in levels.items() for seed in range(first, first + 4)]
    return replace(selection, records=(*selection.records, *extra))
