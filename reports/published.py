"""The papers' numbers beside ours: direction only, since theirs are human opinion and accuracy on real corpora.

Source: RRPO, ICASSP 2026, arXiv 2512.04552, Table 1 (mean opinion, five points) and Table 2 (weighted accuracy, %); values
that the notes on the paper do not give are left out.
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

SOURCE = "RRPO, arXiv 2512.04552"
OPINION = {"sft": (3.52, 3.72), "diffro": (3.65, 3.61), "rrpo": (3.78, 3.81)}
"""Table 1: E-MOS and N-MOS by arm."""
ACCURACY = {
    "diffro": (66.0, 50.9, 64.4),
    "ls": (66.8, math.nan, 72.8),
    "ls_eam": (69.1, 52.7, 82.3),
    "rrpo": (68.0, 54.8, 81.7),
}
"""Table 2: accuracy on IEMOCAP (en), MER2023 (zh), ESD (zh) of reward models fine-tuned with components added in turn."""


class Claim(NamedTuple):
    """A published difference, and what stands in for it here."""

    text: str
    published: float
    unit: str
    arms: tuple[str, str]
    measure: str
    sign: int
    """+1 where more of our measure means more of theirs."""


def claims() -> list[Claim]:
    """All published differences that a grid can speak about."""
    found = []
    for arms in (("diffro", "sft"), ("rrpo", "diffro")):
        (e1, n1), (e0, n0) = OPINION[arms[0]], OPINION[arms[1]]
        found.append(Claim("E-MOS", e1 - e0, "points of 5", arms, "test_accuracy", +1))
        found.append(Claim("N-MOS", n1 - n0, "points of 5", arms, "phone_error_rate", -1))
    for label, values in ACCURACY.items():
        for corpus, new, old in zip(("IEMOCAP", "MER2023", "ESD"), values, ACCURACY["diffro"], strict=True):
            if label != "diffro" and math.isfinite(new):
                measure = "rm_accuracy_test_en" if corpus == "IEMOCAP" else "rm_accuracy_test"
                found.append(
                    Claim(f"RM accuracy, {corpus}", (new - old) / 100, "fraction", (label, "diffro"), measure, 1)
                )
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
            said = f"{claim.published:+.2f}" if claim.unit != "fraction" else f"{100 * claim.published:+.1f} %"
            rows.append(
                (claim.text, " - ".join(claim.arms), said, claim.measure, ours, direction(claim, ours.low, ours.high))
            )
    columns = (
        Column("claim", "published measure"),
        Column("arms", "difference"),
        Column("published", "published"),
        Column("measure", "our stand-in"),
        Column("ours", "ours, points", "gain"),
        Column("direction", "direction"),
    )
    notes = (
        f"Published: {SOURCE}, Tables 1 and 2 (reward models fine-tuned on real corpora, opinions of human listeners). Ours: the "
        "embedded world, values at the last checkpoint, paired differences with 95 % t-intervals, not tested. Only "
        "the direction can "
        "be compared: gold accuracy stands in for expressiveness, and phone error rate (fewer is better) for naturalness, which "
        "is a weak stand-in.",
    )
    return Sheet("published", "Published results beside ours", columns, tuple(rows), notes) if rows else None


def direction(claim: Claim, low: float, high: float) -> str:
    """Whether our interval lies on the published side of zero."""
    if math.isnan(low) or low <= 0 <= high:
        return "undecided"
    return "same" if (low > 0) == (claim.sign * claim.published > 0) else "opposite"
