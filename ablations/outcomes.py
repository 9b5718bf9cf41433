"""The outcomes by which a cell is measured. Tables, effects, plans and texts iterate over `all_outcomes`.

To measure something else, append one `Outcome`: ``OUTCOMES.append(Outcome(name="x", label="x", read=lambda record: ...))``. Most
outcomes are functions of the sample table (`Record.samples`, one row per sample and checkpoint) and are NaN if a column is
missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablations.judges import Judge, gold, registered
from ablations.rendering.sheet import UNITS, Column
from ablations.stats.contrasts import Values
from ablations.tracking.records import Record, ratio_by_step
from rrpo.corpus.config import ARTEFACTS, EMOTIONS
from rrpo.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PHONE_ERROR_BOUND = 0.3
"""Largest phone error rate of a clean sample: twice the SFT policy's mean on the development seeds, rounded to a tenth
(``docs/regime.md``)."""
ARTEFACT = "artefact_"
"""Prefix of the sample table's flag columns, one per kind of artefact."""
EMOTION, PHONES, LENGTH = "emotion", "phone errors", "length"
"""Criteria of a clean success. A sample fails that on length if it is empty, or if its length is odd given that of the SFT
policy's sample of the same prompt."""
Met = dict[str, NDArray[np.bool_]]
"""Criterion -> samples that meet it ``[N]``."""
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""(samples that count as hits, samples that are considered), both ``[N]``."""
Curve = Callable[[Record], NDArray[np.float64]]
"""Reads an outcome's values ``[S]`` at the checkpoints of a cell."""
ByStep = Callable[["pd.DataFrame"], dict[float, float]]
"""Computes step -> value from a table of samples; empty if a required column is missing."""
Share = Callable[["pd.DataFrame"], "Masks | None"]
"""Computes the masks of a table of samples; None if a required column is missing."""
UNIT_WORDS = {"percent": ", %", "gain": ", points"}
"""Unit -> text that a heading appends."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One number per cell."""

    name: str
    """Name in CSV and on the command line."""
    label: str
    """Readable name, without the unit."""
    read: Callable[[Record], float]
    """Reads it from a cell's record; NaN if it was not measured."""
    unit: str = "percent"
    """A key of `sheet.UNITS`: ``percent`` or ``gain`` for fractions, ``plain`` for others."""
    direction: int = 0
    """+1 if more is better, -1 if less is better, 0 if neither."""
    curve: Curve = lambda record: np.full(len(record.points), math.nan)
    """Its values ``[S]`` at the record's checkpoints, in the order of the points; NaN if it is not measured there. Shares of
    samples and phone errors are those of the prompts that all checkpoints have (`Record.tracked`), so the last value may differ
    from `read`; other measures (KL, length, diversity, naturalness) are those of the checkpoint's own prompts."""
    note: str = ""
    """Explanation for captions."""
    by: Callable[[Judge], Outcome] | None = None
    """Returns the same outcome measured by another judge; None if the outcome does not depend on a judge."""
    optional: bool = False
    """Whether it is only shown if some record has it."""
    own_rm: bool = False
    """Whether it depends on the arm's own reward model. A comparison with SFT is then one with the arm's first checkpoint, which
    is the SFT policy under that reward model: the arm ``sft`` has the pre-trained one."""

    def __post_init__(self) -> None:
        """Raise InputError if the unit or the direction is unknown."""
        if self.unit not in UNITS:
            raise InputError(
                f"outcome {self.name!r}: unknown unit", got=repr(self.unit), fix=f"use one of {', '.join(UNITS)}"
            )
        if self.direction not in (-1, 0, 1):
            raise InputError(
                f"outcome {self.name!r}: unknown direction", got=repr(self.direction), fix="use +1, -1 or 0"
            )

    @property
    def heading(self) -> str:
        """The label with the unit."""
        return f"{self.label}{UNIT_WORDS.get(self.unit, '')}"

    @property
    def title(self) -> str:
        """The label with a capital letter, for the start of a sentence."""
        return self.label[0].upper() + self.label[1:]

    @property
    def difference_unit(self) -> str:
        """The unit of differences of the outcome."""
        return "gain" if self.unit in UNIT_WORDS else self.unit

    def as_column(self) -> Column:
        """Return the outcome's column in a table of arms."""
        return Column(self.name, self.heading, self.unit, self.direction)

    def values(self, records: Sequence[Record]) -> Values:
        """Return the outcome of each record, by (arm, seed)."""
        return {(record.label, record.seed): self.read(record) for record in records}


def at_end(record: Record, name: str) -> float:
    """Return a column of the points at the last checkpoint, or the scalar with that name if there is no such column, or NaN."""
    points = record.points
    if not points.empty and name in points.columns:
        return float(points[name].iloc[-1])
    return record.scalars.get(name, math.nan)


def followed(name: str, label: str, column: str, unit: str = "percent", direction: int = 0) -> Outcome:
    """Make an outcome from a column of the points; its curve from the same column of the trajectory."""

    def curve(record: Record) -> NDArray[np.float64]:
        points = record.trajectory
        return points[column].to_numpy(float) if column in points.columns else np.full(len(points), math.nan)

    read = partial(at_end, name=column)
    return Outcome(name=name, label=label, read=read, unit=unit, direction=direction, curve=curve)


def from_samples(
    name: str, label: str, by_step: ByStep, unit: str = "percent", direction: int = 0, note: str = "", by: str = ""
) -> Outcome:
    """Make an outcome from the samples of each checkpoint; ``by`` names the judge it depends on, if any."""

    def values_by_step(record: Record, *, last: bool) -> dict[float, float]:
        """Return step -> value, computed once per record: of all last samples, or of the tracked ones of all checkpoints."""
        key = (name, by, last)
        if key not in record.shares:
            record.shares[key] = by_step(record.last_samples if last else record.tracked)
        return record.shares[key]

    def curve(record: Record) -> NDArray[np.float64]:
        values = values_by_step(record, last=False)
        return np.array([values.get(step, math.nan) for step in record.points.get("step", ())], float)

    def read(record: Record) -> float:
        values = values_by_step(record, last=True)
        return values[max(values)] if values else math.nan

    return Outcome(name=name, label=label, read=read, unit=unit, direction=direction, curve=curve, note=note)


def sampled(name: str, label: str, share: Share, direction: int = 0, note: str = "", by: str = "") -> Outcome:
    """Return an outcome that is a ``share`` of a checkpoint's samples."""
    return from_samples(name, label, partial(_by_step, share=share), direction=direction, note=note, by=by)


def _by_step(samples: pd.DataFrame, share: Share) -> dict[float, float]:
    """Return step -> share of hits among the considered samples, NaN for a step without any; empty if a column is missing."""
    if samples.empty or (masks := share(samples)) is None:
        return {}
    return ratio_by_step(samples["step"], masks[0] & masks[1], masks[1])


def absent(samples: pd.DataFrame) -> Met:
    """Return kind of artefact -> samples ``[N]`` without it; empty if artefacts were not detected."""
    flags = [name for name in samples.columns if name.startswith(ARTEFACT)]
    return {name.removeprefix(ARTEFACT): ~samples[name].to_numpy(bool) for name in flags}


def flagged(samples: pd.DataFrame) -> NDArray[np.bool_] | None:
    """Return which samples ``[N]`` have an artefact of any kind; None if artefacts were not detected."""
    without = absent(samples)
    return ~np.logical_and.reduce(list(without.values())) if without else None


def criteria(samples: pd.DataFrame, judge: Judge) -> Met:
    """Return criterion of a clean success -> which samples ``[N]`` meet it; empty if a column is missing.

    The judge's argmax is the target (`EMOTION`), at most `PHONE_ERROR_BOUND` of the phones are wrong (`PHONES`), and each kind of
    artefact is absent.
    """
    without = absent(samples)
    if not without or not {"target", judge.name, "phone_errors", "phones"} <= set(samples.columns):
        return {}
    understood = samples["phone_errors"].to_numpy() <= PHONE_ERROR_BOUND * samples["phones"].to_numpy()
    return {EMOTION: same(samples, judge.name, "target"), PHONES: understood} | without


def clean(samples: pd.DataFrame, judge: Judge, without: str = "") -> Masks | None:
    """Return which samples ``[N]`` are clean successes, and which ``[N]`` the judge evaluated; None if a column is missing.

    A sample is clean if it meets all `criteria`, or all but the one named ``without``.
    """
    met = criteria(samples, judge)
    if not met:
        return None
    return all_but(met, without), samples[judge.name].notna().to_numpy()


def all_but(met: Met, without: str) -> NDArray[np.bool_]:
    """Return the samples ``[N]`` that meet all criteria but one."""
    return np.logical_and.reduce([mask for name, mask in met.items() if name != without])


def same(samples: pd.DataFrame, predicted: str, target: str) -> NDArray[np.bool_]:
    """Return where two columns of emotions ``[N]`` agree; False if either is missing."""
    equal: NDArray[np.bool_] = (samples[predicted] == samples[target]).to_numpy(bool, na_value=False)
    return equal


def clean_success(judge: Judge) -> Outcome:
    """Make the outcome clean success by one judge."""
    note = (
        f"Clean success: the {judge.label} recognizes the target, no artefact of any kind is flagged, and at most "
        f"{100 * PHONE_ERROR_BOUND:g} % of the phones are wrong. Hacked share: among the samples in which the arm's own reward "
        "model recognizes the target, the share that is not a clean success."
    )
    return replace(
        sampled("clean_success", "clean success", partial(clean, judge=judge), +1, note, judge.name), by=clean_success
    )


def hacked_share(judge: Judge) -> Outcome:
    """Make the outcome hacked share: among samples with the proxy's argmax on target, the share that is not a clean success."""

    def share(samples: pd.DataFrame) -> Masks | None:
        masks = clean(samples, judge)
        if masks is None or "proxy" not in samples.columns:
            return None
        return ~masks[0], masks[1] & same(samples, "proxy", "target")

    return replace(sampled("hacked_share", "hacked share", share, -1, by=judge.name), by=hacked_share, own_rm=True)


def clean_at_any_length() -> Outcome:
    """Make the outcome clean success without the rule on odd lengths, for comparisons with SFT."""
    note = (
        "the artefact 'odd length' compares a sample with SFT's of the same prompt, so it also flags samples of other policies "
        "by chance, but SFT's only if they are empty"
    )
    share = partial(clean, judge=gold(), without=LENGTH)
    return sampled("clean_at_any_length", "clean success at any length", share, +1, note)


def artefact_share(samples: pd.DataFrame) -> Masks | None:
    """Return which samples ``[N]`` have an artefact of any kind; all samples are considered."""
    flags = flagged(samples)
    return None if flags is None else (flags, np.ones(len(flags), bool))


def accuracy(judge: Judge) -> Outcome:
    """Make the outcome accuracy: the share of samples whose target is the judge's argmax."""
    return replace(followed("gold", "gold accuracy", judge.accuracy, direction=+1), by=accuracy)


def relative_gap(kl: ArrayLike, gold_accuracy: ArrayLike, proxy: ArrayLike) -> float:
    """Return gamma = integral |gold - proxy| / integral gold over KL (arXiv 2505.12763).

    The inputs are values at checkpoints ``[S]``, integrated by trapezoids. A decrease of KL adds nothing. NaN if KL stays at 0.
    Checkpoints at which gold was not measured are left out.
    """
    path = np.column_stack([np.asarray(values, float) for values in (kl, gold_accuracy, proxy)])
    d, g, p = path[np.isfinite(path).all(axis=1)].T
    furthest = np.maximum.accumulate(d) if len(d) else d
    area = float(np.trapezoid(g, furthest))
    return float(np.trapezoid(np.abs(g - p), furthest)) / area if area > 0 else math.nan


def gamma(judge: Judge) -> Outcome:
    """Make the outcome gamma, `relative_gap` of a cell's points, by one judge."""
    columns = ["kl_token", judge.accuracy, "proxy_accuracy"]

    def read(record: Record) -> float:
        points = record.trajectory
        return relative_gap(*(points[name] for name in columns)) if set(columns) <= set(points.columns) else math.nan

    note = (
        "gamma: integral of |gold - proxy| over KL, divided by that of gold (arXiv 2505.12763); it is larger for an arm that "
        "went further in KL."
    )
    return Outcome(name="gamma", label="gamma", read=read, unit="plain", direction=-1, note=note, by=gamma)


def reward_variance() -> Outcome:
    """Make the outcome Var[r] at SFT, where r is the log-probability of the target under the reward model being optimized.

    It is the pooled variance within target emotions over the SFT policy's samples, one per prompt, so it includes the variance
    between prompts of an emotion. Its curve is the same variance over the policy's own samples at each checkpoint.
    """

    def by_step(samples: pd.DataFrame) -> dict[float, float]:
        if not {"step", "target", "proxy_logprob"} <= set(samples.columns):
            return {}
        steps = sorted(set(samples["step"].tolist()))
        return {step: _pooled_variance(samples[samples["step"] == step]) for step in steps}

    def at_first(record: Record) -> float:
        samples = record.samples
        values = by_step(samples if samples.empty else samples[samples["step"] == samples["step"].min()])
        return values[min(values)] if values else math.nan

    note = (
        "Var[r]: variance of log p(target) under the arm's reward model over the SFT policy's samples, within target emotions; a "
        "reward with low variance is a flat objective, regardless of its accuracy (arXiv 2503.15477). For ensembles and bounded "
        "rewards, log p is not the reward itself."
    )
    return replace(from_samples("reward_variance", "Var[r] at SFT", by_step, unit="plain", note=note), read=at_first)


def _pooled_variance(rows: pd.DataFrame) -> float:
    """Return the pooled variance of the reward within target emotions; NaN if no emotion has two samples."""
    groups = rows.groupby("target")["proxy_logprob"]
    freedom = len(rows) - groups.ngroups
    return float(((rows["proxy_logprob"] - groups.transform("mean")) ** 2).sum()) / freedom if freedom else math.nan


def uptake_of(kind: str, emotion: str) -> Outcome:
    """Return the outcome P(artefact | target e) - P(artefact | other target) for a planted kind, the shortcut of emotion e."""

    def by_step(samples: pd.DataFrame) -> dict[float, float]:
        if not {"target", flag} <= set(samples.columns):
            return {}
        on_target = (samples["target"] == emotion).to_numpy(bool)
        present = samples[flag].to_numpy(bool)
        requested = _by_step(samples, lambda _: (present, on_target))
        unrequested = _by_step(samples, lambda _: (present, ~on_target))
        return {step: requested[step] - unrequested[step] for step in requested}

    flag = f"{ARTEFACT}{kind}"
    return from_samples(f"uptake_{kind}", f"uptake of {kind} ({emotion})", by_step, unit="gain", direction=-1)


def uptake() -> Outcome:
    """Make the outcome shortcut uptake, the mean over planted kinds; its curve is that of the tracked samples, if known."""
    outcome = followed("uptake", "shortcut uptake", "uptake", "gain", -1)

    def curve(record: Record) -> NDArray[np.float64]:
        by_kind = np.array([kind.curve(record) for kind in UPTAKE_BY_KIND])
        if not np.isfinite(by_kind).any():
            return outcome.curve(record)
        mean: NDArray[np.float64] = np.ma.masked_invalid(by_kind).mean(axis=0).filled(math.nan)
        return mean

    return replace(outcome, curve=curve)


def spent(name: str, label: str, total: Callable[[Record], float]) -> Outcome:
    """Return a cost: ``total`` at the last checkpoint; at earlier ones, the part of it proportional to their updates."""

    def curve(record: Record) -> NDArray[np.float64]:
        steps = np.asarray(record.points.get("step", ()), float)
        return steps * (total(record) / max(1.0, np.max(steps, initial=0.0)))

    return Outcome(name=name, label=label, read=total, unit="count", direction=-1, curve=curve)


def rollouts(record: Record) -> float:
    """Return the number of samples drawn by the optimization: steps x batch; 0 for SFT, NaN if nothing can be optimized."""
    return _optimize_param(record, "steps") * _optimize_param(record, "batch")


def training_seconds(record: Record) -> float:
    """Return the seconds of the optimization, including its evaluations; NaN without roll-outs."""
    return at_end(record, "seconds_optimized") if rollouts(record) > 0 else math.nan


def reward_model_calls(record: Record) -> float:
    """Return how often reward models evaluated a sample during the optimization: roll-outs x evaluated members."""
    config = record.config
    ensemble = config.get("arm.combination", "null") not in ("null", '"weights"')
    return rollouts(record) * (float(config["arm.members"]) if ensemble else 1.0)


OPTIMIZE = ("optimize.", "cosyvoice.optimize.")
"""Prefixes of the parameters of the optimization, here and on CosyVoice2."""


def _optimize_param(record: Record, name: str) -> float:
    """Return a parameter of the optimization; NaN if nothing can be optimized."""
    return float(
        next((record.params[prefix + name] for prefix in OPTIMIZE if prefix + name in record.params), math.nan)
    )


OUTCOMES: list[Outcome] = [
    clean_success(gold()),
    hacked_share(gold()),
    accuracy(gold()),
    replace(followed("proxy", "proxy accuracy", "proxy_accuracy"), own_rm=True),
    followed("phone_error_rate", "phone error rate", "phone_error_rate", direction=-1),
    sampled("artefacts", "artefacts", artefact_share, -1),
    uptake(),
    replace(followed("dnsmos", "naturalness (DNSMOS)", "dnsmos", "mark", +1), optional=True),
    replace(followed("plcmos", "naturalness (PLCMOS)", "plcmos", "mark", +1), optional=True),
    followed("kl_token", "KL, nats/token", "kl_token", "plain"),
]
"""Outcomes in the order of the table of results; values at the last checkpoint."""
OVEROPTIMISATION: list[Outcome] = [gamma(gold()), reward_variance()]
"""Outcomes of a whole run: shown in the table of over-optimization, and available by name like any other outcome."""

UPTAKE_BY_KIND: list[Outcome] = [uptake_of(kind, emotion) for kind, emotion in zip(ARTEFACTS, EMOTIONS, strict=True)]
"""Uptake of each planted kind of artefact; their mean is the outcome ``uptake``."""
COSTS: list[Outcome] = [
    spent("seconds_optimized", "training, s", training_seconds),
    spent("rollouts", "roll-outs", rollouts),
    spent("rm_calls", "RM calls", reward_model_calls),
]
"""Costs of a policy optimization. SFT has no roll-outs and no seconds; best-of-n and guided decoding have no value."""


def all_outcomes() -> list[Outcome]:
    """Return `OUTCOMES` and the accuracy by every plugin judge, which is only shown if a record has it.

    Raises InputError if two outcomes have one name.
    """
    by_plugin_judges = (
        followed(judge.accuracy, f"accuracy by the {judge.label}", judge.accuracy, direction=+1)
        for judge in registered()
    )
    outcomes = [*OUTCOMES, *(replace(outcome, optional=True) for outcome in by_plugin_judges)]
    names = Counter(outcome.name for outcome in (*outcomes, *OVEROPTIMISATION, *UPTAKE_BY_KIND, *COSTS))
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError("several outcomes have the same name", got=", ".join(twice), fix="give yours another name")
    return outcomes


def declared() -> list[Outcome]:
    """Return every outcome that has a name of its own."""
    return [*all_outcomes(), *OVEROPTIMISATION, *UPTAKE_BY_KIND, *COSTS, clean_at_any_length()]


def find(name: str) -> Outcome:
    """Return the declared outcome with that name; otherwise an outcome that reads the column of the points, or the scalar."""
    rate = name.endswith(("accuracy", "rate")) or "accuracy_" in name
    fallback = followed(name, name.replace("_", " "), name, "percent" if rate else "plain")
    return next((outcome for outcome in declared() if outcome.name == name), fallback)


def ends(outcome: Outcome, record: Record) -> tuple[float, float]:
    """Return an outcome at the first and the last checkpoint, on the same prompts; NaN for a policy that was not optimized."""
    values = outcome.curve(record)
    return (float(values[0]), float(values[-1])) if len(values) > 1 else (math.nan, math.nan)


def measured(outcome: Outcome, records: Sequence[Record]) -> bool:
    """Return whether any record has a finite value of the outcome."""
    return bool(np.isfinite(list(outcome.values(records).values())).any())


def shown(records: Sequence[Record]) -> list[Outcome]:
    """Return the declared outcomes, without optional ones that no record has."""
    return [outcome for outcome in all_outcomes() if not outcome.optional or measured(outcome, records)]
