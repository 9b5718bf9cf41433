"""Table of the parameters that differ between arms."""

from __future__ import annotations

from ablations.parameters import differing, headings
from ablations.rendering.sheet import NONE, Column, Sheet
from reports.loading import Selection

OLDER = ("arm.", "profile.")
"""Prefixes of params in older records, which store the complete config instead of the parameters that were used."""


def sheet(selection: Selection) -> Sheet | None:
    """Return one row per arm and one column per differing parameter; None if none differs or all records are of the older
    kind."""
    params_of = {
        arm: records[0].params
        for arm in selection.arms
        if (records := selection.of(arm)) and not any(name.startswith(OLDER) for name in records[0].params)
    }
    names = differing(params_of)
    if not names:
        return None
    short = headings(names, params_of)
    columns = (Column("arm", "arm"), *(Column(name, short[name]) for name in names))
    rows = [(arm, *(values.get(name, NONE) for name in names)) for arm, values in params_of.items()]
    note = (
        "Parameters in which arms differ, from the configs of the stages that each arm consists of. finetune.steps "
        "0: the pre-trained reward model; optimize.steps 0: the SFT policy."
    )
    return Sheet("ran_with", "Parameters of the arms", columns, tuple(rows), (note,))
