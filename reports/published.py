"""The papers' numbers beside ours: direction only, since theirs are human opinion and accuracy on real corpora.

Sources: RRPO, ICASSP 2026, arXiv 2512.04552, Table 1 (mean opinion, five points) and Table 2 (weighted accuracy, %); a comparison
of GRPO and DiffRO on one base model, arXiv 2509.18569 (word error rate, %). Numbers that were not found are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ablations.contrasts import apply, difference
from ablations.records import Record
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import t_interval
from ablations.summary import gold_gains, value_of

RRPO = "RRPO, arXiv 2512.04552"
GRPO = "arXiv 2509.18569"
OPINION = {"sft": (3.52, 3.72), "diffro": (3.65, 3.61), "rrpo": (3.78, 3.81)}
"""Table 1 of RRPO: E-MOS and N-MOS by arm."""
SPREAD = {"sft": (0.06, 0.07), "diffro": (0.11, 0.13), "rrpo": (0.08, 0.09)}
"""What is printed behind the ± of each."""
ACCURACY = {
    "diffro": (66.0, 50.9, 64.4),
    "ls": (66.8, math.nan, 72.8),
    "ls_eam": (69.1, 52.7, 82.3),
    "rrpo": (68.0, 54.8, 81.7),
}
"""Table 2 of RRPO: accuracy on IEMOCAP (en), MER2023 (zh), ESD (zh) of reward models fine-tuned with components added in turn."""
WORDS = {"sft": 4.280, "grpo": 3.710, "diffro": 3.418}
"""Mandarin WER (%) of one base model, and of it after GRPO and after DiffRO, in `GRPO`."""


class Claim(NamedTuple):
    """A published difference, and what stands in for it here."""

    text: str
    source: str
    values: str
    """The two published numbers, as printed."""
    published: float
    unit: str
    arms: tuple[str, str]
    measure: str
    sign: int
    """+1 where more of our measure means more of theirs."""


def claims() -> list[Claim]:
    """All published differences that a grid can speak about."""
    found = []
    for new, old in (("diffro", "sft"), ("rrpo", "diffro")):
        for place, (text, measure, sign) in enumerate(
            (("E-MOS", "test_accuracy", +1), ("N-MOS", "phone_error_rate", -1))
        ):
            printed = [f"{OPINION[arm][place]:.2f} ± {SPREAD[arm][place]:.2f}" for arm in (new, old)]
            change = OPINION[new][place] - OPINION[old][place]
            found.append(Claim(text, RRPO, " against ".join(printed), change, "points of 5", (new, old), measure, sign))
    for label, values in ACCURACY.items():
        for corpus, now, before in zip(("IEMOCAP", "MER2023", "ESD"), values, ACCURACY["diffro"], strict=True):
            if label != "diffro" and math.isfinite(now):
                measure = "rm_accuracy_test_en" if corpus == "IEMOCAP" else "rm_accuracy_test"
                text, printed_pair = f"RM accuracy, {corpus}", f"{now:.1f} against {before:.1f} %"
                pair = (label, "diffro")
                found.append(Claim(text, RRPO, printed_pair, (now - before) / 100, "fraction", pair, measure, 1))
    for new, old in (("diffro", "sft"), ("grpo", "sft"), ("diffro", "grpo")):
        values_said = f"{WORDS[new]:.2f} against {WORDS[old]:.2f} %"
        change = (WORDS[new] - WORDS[old]) / 100
        found.append(Claim("WER, Mandarin", GRPO, values_said, change, "fraction", (new, old), "phone_error_rate", 1))
    return found


def sheet(records: Sequence[Record]) -> Sheet | None:
    """One row a published difference whose arms and measure are there; None without any."""
    seeds = sorted({record.seed for record in records})
    gains, _ = gold_gains(records)
    rows: list[tuple[Value, ...]] = []
    for claim in claims():
        outcomes = {(r.label, r.seed): value_of(r, claim.measure, gains) for r in records if r.label in claim.arms}
        ours = t_interval(apply(difference(*claim.arms), outcomes, seeds))
        if ours.n:
            said = f"{claim.published:+.2f}" if claim.unit != "fraction" else f"{100 * claim.published:+.1f} points"
            ending = (said, claim.measure, ours, direction(claim, ours.low, ours.high))
            rows.append((claim.text, claim.source, " - ".join(claim.arms), claim.values, *ending))
    columns = (
        Column("claim", "published measure"),
        Column("source", "source"),
        Column("arms", "difference"),
        Column("values", "published values"),
        Column("published", "published difference"),
        Column("measure", "our stand-in"),
        Column("ours", "ours, points", "gain"),
        Column("direction", "direction"),
    )
    notes = (
        "Published: reward models fine-tuned on real corpora, opinions of human listeners (mean of five points ± what is "
        "printed), word error rates of real recognisers. Ours: values at the last checkpoint, paired differences with 95 % "
        "t-intervals, not tested. Only the direction can be compared: gold accuracy stands in for expressiveness, and phone "
        "error rate (fewer is better) for naturalness, which is a weak stand-in, and for word errors.",
    )
    return Sheet("published", "Published results beside ours", columns, tuple(rows), notes) if rows else None


def direction(claim: Claim, low: float, high: float) -> str:
    """Whether our interval lies on the published side of zero."""
    if math.isnan(low) or low <= 0 <= high:
        return "undecided"
    return "same" if (low > 0) == (claim.sign * claim.published > 0) else "opposite"
