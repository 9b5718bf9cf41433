"""The table of results, made from records; `ablations.run` and `reports` print it by the same functions.

One formatting model (`Table` of `Interval` cells) feeds the terminal, Markdown and CSV, so the numbers cannot differ.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ablations.records import GOLD_GAIN, Record
from ablations.statistics import Interval, matched_kl_gain, t_interval

POLICY_COLUMNS: dict[str, tuple[str, str]] = {
    GOLD_GAIN: ("gold gain at matched KL, points", "gain"),
    "test_accuracy": ("gold accuracy, %", "percent"),
    "proxy_accuracy": ("proxy accuracy, %", "percent"),
    "hack_rate": ("hack rate, %", "percent"),
    "uptake": ("shortcut uptake, points", "gain"),
    "kl_token": ("KL, nats/token", "plain"),
    "phone_error_rate": ("phone error rate, %", "percent"),
}
"""Columns of a grid with policies: measure -> (heading, unit). All but the first are values at the last checkpoint."""

RM_COLUMNS: dict[str, tuple[str, str]] = {
    "rm_accuracy_valid": ("valid, %", "percent"),
    "rm_accuracy_test": ("test, %", "percent"),
    "rm_accuracy_test_biased": ("biased test, %", "percent"),
    "rm_accuracy_test_decorrelated": ("decorrelated test, %", "percent"),
    "rm_ece": ("ECE", "plain"),
    "rm_confidence": ("confidence", "plain"),
    "rm_smoothness": ("smoothness", "plain"),
    "rm_fgm_accuracy_0.1": ("FGM 0.1, %", "percent"),
    "rm_pgd_accuracy_0.1": ("PGD 0.1, %", "percent"),
}
"""Columns of a grid of reward models alone: scalar -> (heading, unit). Those that no record has are left out."""

FORMATS: dict[str, Callable[[float], str]] = {
    "percent": lambda value: f"{100 * value:.1f}",
    "gain": lambda value: f"{100 * value:+.1f}",
    "plain": lambda value: f"{value:.3f}",
}


@dataclass(frozen=True)
class Table:
    """Arms x measures over seeds."""

    columns: Mapping[str, tuple[str, str]]
    """Measure -> (heading, unit)."""
    rows: Mapping[str, tuple[int, Mapping[str, Interval]]]
    """Arm -> (seeds, measure -> interval)."""
    notes: tuple[str, ...]
    """What the caption has to say."""

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells as text: ``mean ± half the interval``, ``mean`` for one seed, a dash for none."""
        head = ["arm", "n"] + [heading for heading, _ in self.columns.values()]
        body = [
            [arm, str(n)] + [show(values[name], unit) for name, (_, unit) in self.columns.items()]
            for arm, (n, values) in self.rows.items()
        ]
        return head, body

    def markdown(self) -> str:
        """The table with its notes."""
        head, body = self.texts()
        return markdown_table(head, body, ["---", *["---:"] * (len(head) - 1)], self.notes)

    def csv(self) -> str:
        """Unrounded fractions: mean, low, high and n of every measure."""
        head = ["arm", "n"] + [f"{name}_{part}" for name in self.columns for part in Interval._fields]
        body = [
            [arm, n, *(value for name in self.columns for value in values[name])]
            for arm, (n, values) in self.rows.items()
        ]
        return csv_table(head, body)


def markdown_table(
    head: Sequence[str], body: Sequence[Sequence[str]], rule: Sequence[str], notes: Sequence[str]
) -> str:
    """A Markdown table with its notes below; ``rule`` aligns the columns."""
    lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
    return "\n".join([*lines, "", *notes]) + "\n"


def csv_table(head: Sequence[str], body: Sequence[Sequence[str | float]]) -> str:
    """CSV with unrounded numbers; NaN is an empty field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for row in body:
        texts = (value if isinstance(value, str) else "" if math.isnan(value) else repr(value) for value in row)
        writer.writerow(texts)
    return file.getvalue()


def show(interval: Interval, unit: str) -> str:
    """``mean ± half width`` of the t-interval, which is symmetric, in a unit of `FORMATS`."""
    if interval.n == 0:
        return "–"
    write = FORMATS[unit]
    if math.isnan(interval.low):
        return write(interval.mean)
    return f"{write(interval.mean)} ± {write(interval.high - interval.mean).removeprefix('+')}"


def gold_gains(
    records: Sequence[Record], gold: str = "test_accuracy"
) -> tuple[dict[tuple[str, int], float], list[str]]:
    """Gold gain at matched KL by (arm, seed), and notes on arms that did not move; ``gold`` is a column of the points."""
    gains: dict[tuple[str, int], float] = {}
    stuck: dict[str, list[int]] = {}
    for seed in sorted({record.seed for record in records}):
        moved = [r for r in records if r.seed == seed and {"sqrt_kl", gold} <= set(r.points.columns)]
        paths = {r.label: (r.points["sqrt_kl"].to_numpy(), r.points[gold].to_numpy()) for r in moved}
        matched = matched_kl_gain(paths, {r.label for r in moved if r.stops_early})
        gains |= {(label, seed): gain for label, gain in matched.gains.items()}
        for label in matched.stuck:
            stuck.setdefault(label, []).append(seed)
    notes = [
        f"Not moved in seed {', '.join(map(str, seeds))}, so not asked for the common KL range: {label}."
        for label, seeds in stuck.items()
    ]
    return gains, notes


def table(records: Sequence[Record], planned: Mapping[str, int] | None = None) -> Table:
    """The table of results; arms in the order of ``planned`` (arm -> seeds), which also tells what is missing."""
    arms = list(dict.fromkeys([*(planned or {}), *(record.label for record in records)]))
    policies = any(not record.points.empty for record in records)
    gains, notes = gold_gains(records) if policies else ({}, [])
    rows: dict[str, tuple[int, dict[str, Interval]]] = {}
    measured = {name for record in records for name in record.scalars}
    names = POLICY_COLUMNS if policies else {name: RM_COLUMNS[name] for name in RM_COLUMNS if name in measured}
    for arm in arms:
        own = [record for record in records if record.label == arm]
        rows[arm] = len(own), {name: t_interval([_value(record, name, gains) for record in own]) for name in names}
    missing = {arm: planned[arm] - rows[arm][0] for arm in arms if planned and planned.get(arm, 0) > rows[arm][0]}
    return Table(names, rows, tuple(_notes(len(records), policies, missing) + notes))


def _value(record: Record, name: str, gains: Mapping[tuple[str, int], float]) -> float:
    if name == GOLD_GAIN:
        return gains.get((record.label, record.seed), math.nan)
    points = record.points
    if not points.empty:
        return float(points[name].iloc[-1]) if name in points.columns else math.nan
    return record.scalars.get(name, math.nan)


def _notes(cells: int, policies: bool, missing: Mapping[str, int]) -> list[str]:
    lines = [
        f"{cells} cells. Mean over n seeds ± half the 95 % t-interval (none for one seed). The world is "
        "simulated: procedural speech, planted shortcut, trained judges.",
        "A seed redraws the annotated and the SFT utterances, raters, RM pre-training, SFT, fine-tuning, prompts and "
        "roll-out noise; corpus renderer, codec, base policy and judges are one world.",
    ]
    if policies:
        lines.append(
            "Gold gain at matched KL: mean gain of `test` accuracy over SFT along sqrt(KL per token), from 0 to the "
            "largest KL that all arms of the seed shown here reach; arms that stop early by design keep their last "
            "value. The other columns are values at the last checkpoint."
        )
    if missing:
        lines.append("Missing cells: " + ", ".join(f"{arm} {count}" for arm, count in missing.items()) + ".")
    return lines
