"""The table of what the arms ran with: the parameters that differ between them."""

from __future__ import annotations

from ablations.parameters import differing, headings
from ablations.rendering.sheet import NONE, Column, Sheet
from reports.loading import Selection

OLDER = ("arm.", "profile.")
"""How the params of records begin that hold the whole config instead of what the cell ran with."""


def sheet(selection: Selection) -> Sheet | None:
    """One row an arm, one column a parameter in which two arms differ; None where none does, or the records do not say."""
    ran_with = {
        arm: own[0].params
        for arm in selection.arms
        if (own := selection.of(arm)) and not any(name.startswith(OLDER) for name in own[0].params)
    }
    names = differing(ran_with)
    if not names:
        return None
    said = headings(names, ran_with)
    columns = (Column("arm", "arm"), *(Column(name, said[name]) for name in names))
    rows = [(arm, *(values.get(name, NONE) for name in names)) for arm, values in ran_with.items()]
    note = (
        "Read off the configs of the stages that each arm was made of; parameters that all arms share are left out. "
        "finetune.steps 0: the reward model is as pre-trained; optimize.steps 0: the SFT policy."
    )
    return Sheet("ran_with", "What the arms ran with", columns, tuple(rows), (note,))
