"""Effective parameters of a cell, read from the configs of its stages: an arm's overrides replace the profile's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rrpo.experiment.cell import Cell
from rrpo.identity import SCALARS, described, leaves
from rrpo.pipeline.stages import walk
from rrpo.plugins import Scalar
from rrpo.settings import text

TRAINED = (
    *("sft", "zero_shot", "pretrain", "finetune", "combine"),
    *("optimize", "guided", "draws", "best_of_n", "cosyvoice"),
)
"""Kinds of stages that make a cell's reward model and samples; everything below them belongs to the world."""


def effective(cell: Cell) -> dict[str, Scalar]:
    """Return the parameters of the stages that train a cell's policy and reward model, and of their data: ``optimize.lr``,
    ``finetune.regularizers.epsilon``, ``pretrain.data.shortcut``.

    A reward model that is not fine-tuned has ``finetune.steps`` 0. The seeds of stages, which follow from the cell's seed, and
    the sizes of networks, which no arm changes, are omitted.
    """
    top = cell.stages.get("optimized") or cell.stages["examined"]
    world = cell.profile.world
    parameters: dict[str, Any] = {"world.seed": world.seed, "world.language": world.language, "finetune.steps": 0}
    for stage in walk(top, skip=lambda stage: stage.name == "fidelity"):  # whose reward models are not the cell's
        if stage.name in TRAINED:
            parameters |= _flat(described(stage.config), stage.name)
            if data := stage.inputs.get("speech"):
                while data.name == "mine":  # the annotated utterances to which mined samples were added
                    data = data.inputs["speech"]
                parameters |= _flat(described(data.config.split), f"{stage.name}.data")
    if "rrpo_fidelity" in top.inputs:
        parameters["optimize.gradient_scale"] = "RRPO's gradient norm at SFT"
    return parameters


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Scalar]:
    fields = {name: child for name, child in tree.items() if name not in ("seed", "model")}
    return {
        path: value if type(value) in SCALARS and value is not None else text(value)
        for path, value in leaves(fields, prefix)
        if path.rpartition(".")[2] != "seed"
    }
