"""Table of published results beside ours. Only directions are compared: theirs are human ratings and accuracies on real
corpora.

Sources: RRPO, ICASSP 2026, arXiv 2512.04552, Table 1 (mean opinion scores, five points) and Table 2 (weighted accuracy, %); a
comparison of GRPO and DiffRO on one base model, arXiv 2509.18569 (word error rate, %). Numbers that could not be found are
omitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import apply, difference
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record
from rrpo.arms import BASE, RRPO, name_of, papers

PAPER = "RRPO, arXiv 2512.04552"
GRPO = "arXiv 2509.18569"
OPINION = {"sft": (3.52, 3.72), BASE: (3.65, 3.61), RRPO: (3.78, 3.81)}
"""Table 1 of RRPO: E-MOS and N-MOS by arm."""
SPREAD = {"sft": (0.06, 0.07), BASE: (0.11, 0.13), RRPO: (0.08, 0.09)}
"""The printed ± of each."""
ACCURACY = ((66.0, 50.9, 64.4), (66.8, math.nan, 72.8), (69.1, 52.7, 82.3), (68.0, 54.8, 81.7))
"""Table 2 of RRPO: accuracy on IEMOCAP (en), MER2023 (zh), ESD (zh) of reward models fine-tuned with none, one, two and all of
the paper's components, added in the order of the list."""
WORDS = {"sft": 4.280, "grpo": 3.710, BASE: 3.418}
"""Mandarin WER (%) of one base model, and of it after GRPO and after DiffRO, in `GRPO`."""


class Claim(NamedTuple):
    """A published difference, and its counterpart here."""

    text: str
    source: str
    values: str
    """The two published numbers, as printed."""
    published: float
    unit: str
    arms: tuple[str, str]
    measure: str
    sign: int
    """+1 if a higher value of our measure corresponds to a higher value of theirs, otherwise -1."""


def claims() -> list[Claim]:
    """Return all published differences that a grid can be compared with."""
    found = []
    for new, old in ((BASE, "sft"), (RRPO, BASE)):
        for place, (text, measure, sign) in enumerate((("E-MOS", "gold", +1), ("N-MOS", "phone_error_rate", -1))):
            printed = [f"{OPINION[arm][place]:.2f} ± {SPREAD[arm][place]:.2f}" for arm in (new, old)]
            change = OPINION[new][place] - OPINION[old][place]
            found.append(
                Claim(text, PAPER, " against ".join(printed), change, "points of 5", (new, old), measure, sign)
            )
    for count, values in enumerate(ACCURACY[1:], 1):
        for corpus, now, before in zip(("IEMOCAP", "MER2023", "ESD"), values, ACCURACY[0], strict=True):
            if math.isfinite(now):
                measure = "rm_accuracy_test_en" if corpus == "IEMOCAP" else "rm_accuracy_test"
                text, printed_pair = f"RM accuracy, {corpus}", f"{now:.1f} against {before:.1f} %"
                pair = (name_of(papers()[:count]), BASE)
                found.append(Claim(text, PAPER, printed_pair, (now - before) / 100, "fraction", pair, measure, 1))
    for new, old in ((BASE, "sft"), ("grpo", "sft"), (BASE, "grpo")):
        values_said = f"{WORDS[new]:.2f} against {WORDS[old]:.2f} %"
        change = (WORDS[new] - WORDS[old]) / 100
        found.append(Claim("WER, Mandarin", GRPO, values_said, change, "fraction", (new, old), "phone_error_rate", 1))
    return found


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Return one row per published difference whose arms and measure exist; None if there are none."""
    seeds = sorted({record.seed for record in records})
    rows: list[tuple[Value, ...]] = []
    for claim in claims():
        outcomes = find(claim.measure).values([r for r in records if r.label in claim.arms])
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
        Column("measure", "our measure"),
        Column("ours", "ours, points", "gain"),
        Column("direction", "direction"),
    )
    notes = (
        "Published: reward models fine-tuned on real corpora, mean opinion scores of human listeners (five points, ± "
        "as printed), word error rates of real recognizers. Ours: values at the last checkpoint, paired differences "
        "with 95 % t-intervals, not tested. Only directions can be compared: gold accuracy corresponds to "
        "expressiveness; phone error rate (less is better) corresponds to word error rate and, weakly, to "
        "naturalness.",
    )
    return Sheet("published", "Published results beside ours", columns, tuple(rows), notes) if rows else None


def direction(claim: Claim, low: float, high: float) -> str:
    """Return whether our interval lies on the published side of zero."""
    if math.isnan(low) or low <= 0 <= high:
        return "undecided"
    return "same" if (low > 0) == (claim.sign * claim.published > 0) else "opposite"
