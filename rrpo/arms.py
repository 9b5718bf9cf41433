"""Named arms: configs by the names under which they are compared. A plugin adds more by ``ARMS.register(name, ArmConfig(...))``.

An arm with some of RRPO's regularisers is named after them, in the order of `PARTS`: ``ls``, ``eam_adv``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from rrpo.config import OFF, ArmConfig, RegularizerConfig
from rrpo.errors import InputError
from rrpo.pipeline.dataflow import SFT
from rrpo.plugins import Registry

PARTS: Mapping[str, str] = {"ls": "epsilon", "eam": "mix_probability", "adv": "alpha"}
"""RRPO's regularisers by their names in those of arms, each with the field of `RegularizerConfig` that turns it off."""
ARMS: Registry[ArmConfig] = Registry("arm", underscores=True)
"""Arms by name, but for those that are named after their regularisers; `arm` knows both."""

ARMS.register("sft", SFT)
ARMS.register("pretrained", ArmConfig(regularizers=OFF, finetune=False))
ARMS.register("diffro", ArmConfig(regularizers=OFF))
ARMS.register("rrpo", ArmConfig())
ARMS.register("oracle", ArmConfig(regularizers=OFF, rm_data="oracle", finetune=False))
# Not fine-tuned: annotated labels would teach its reward model what it must not know.
ARMS.register("placebo", ArmConfig(regularizers=OFF, shuffle_labels=True, finetune=False))
ARMS.register("no_content", ArmConfig(regularizers=OFF, content_weight=0.0))


def arm(name: str) -> ArmConfig:
    """The arm of that name: one of `ARMS`, or RRPO with only the regularisers of `PARTS` that it names.

    Raises:
        InputError: There is no such arm.
    """
    if name in ARMS:
        return ARMS[name]
    parts = name.split("_")
    if parts != [part for part in PARTS if part in parts]:
        known = f"one of {', '.join(ARMS)}, or regularisers of {', '.join(PARTS)} joined by _ in this order"
        raise InputError(
            "there is no arm of that name", got=name, fix=f"use {known}; your own comes with --plugin FILE"
        )
    return ArmConfig(regularizers=only(parts))


def only(parts: Collection[str]) -> RegularizerConfig:
    """These regularisers of `PARTS` at the paper's strengths, the others off."""
    paper = RegularizerConfig()
    return replace(OFF, **{PARTS[part]: getattr(paper, PARTS[part]) for part in parts})
