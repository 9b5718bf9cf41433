"""Named arms: configs by the names under which they are compared. A plugin adds more by ``ARMS.register(name, ArmConfig(...))``.

An arm that differs by its regularisers alone is named after them, in the order in which they are registered: ``ls``, ``eam_adv``.
``diffro`` has none, ``rrpo`` the paper's three, which are written ``rrpo`` in longer names too (``rrpo_x``).
"""

from __future__ import annotations

from collections.abc import Iterable

from rrpo.config import OFF, ArmConfig, RegularizerConfig
from rrpo.errors import InputError
from rrpo.pipeline.dataflow import SFT
from rrpo.plugins import Registry
from rrpo.regularizers import REGULARIZERS, configured

BASE, RRPO = "diffro", "rrpo"
"""The arms with no regulariser, and with exactly the paper's."""
ARMS: Registry[ArmConfig] = Registry("arm", underscores=True)
"""Arms by name, but for those that are named after their regularisers; `arm` knows both."""

ARMS.register("sft", SFT)
ARMS.register("pretrained", ArmConfig(regularizers=OFF, finetune=False))
ARMS.register(BASE, ArmConfig(regularizers=OFF))
ARMS.register(RRPO, ArmConfig())
ARMS.register("oracle", ArmConfig(regularizers=OFF, rm_data="oracle", finetune=False))
# Not fine-tuned: annotated labels would teach its reward model what it must not know.
ARMS.register("placebo", ArmConfig(regularizers=OFF, shuffle_labels=True, finetune=False))
ARMS.register("no_content", ArmConfig(regularizers=OFF, content_weight=0.0))
ARMS.register("content_only", ArmConfig(regularizers=OFF, emotion_weight=0.0))
# Does a robust reward model help by more than the size of its gradient? Does a larger KL penalty give the same?
ARMS.register("diffro_scaled", ArmConfig(regularizers=OFF, match_gradient=True))
ARMS.register("diffro_kl", ArmConfig(regularizers=OFF, beta=0.03))
ARMS.register("rrpo_full_l_ser", ArmConfig(reward="full_l_ser"))


def arm(name: str) -> ArmConfig:
    """The arm of that name: one of `ARMS`, or the one with the regularisers that it names.

    Raises:
        InputError: There is no such arm.
    """
    if name in ARMS:
        return ARMS[name]
    parts = [part for given in name.split("_") for part in (papers() if given == RRPO else [given])]
    if set(parts) <= set(REGULARIZERS) and name_of(parts) == name:
        return ArmConfig(regularizers=regularizers(parts))
    known = f"one of {', '.join(ARMS)}, or regularisers of {', '.join(REGULARIZERS)} joined by _ in this order"
    raise InputError("there is no arm of that name", got=name, fix=f"use {known}; your own comes with --plugin FILE")


def papers() -> list[str]:
    """Names of RRPO's own regularisers."""
    return [name for name, found in REGULARIZERS.items() if found.paper]


def name_of(parts: Iterable[str]) -> str:
    """The arm with exactly these regularisers: ``diffro``, ``ls``, ..., ``ls_eam``, ..., ``rrpo``, ``rrpo_x``."""
    on = set(parts)
    chosen = [name for name in REGULARIZERS if name in on]
    if papers() and on >= set(papers()):
        chosen = [RRPO, *(name for name in chosen if name not in papers())]
    return "_".join(chosen) or BASE


def regularizers(parts: Iterable[str]) -> RegularizerConfig:
    """The declared strengths of the regularisers named, identity for the others (same code path)."""
    on = set(parts)
    return configured({name: r.on_values if name in on else r.off_values for name, r in REGULARIZERS.items()})
