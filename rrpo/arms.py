"""Named arms: the `ArmConfig` of every arm that is compared. A plugin adds one by ``ARMS.register(name, ArmConfig(...))``.

An arm that differs only in its regularizers is named after them, in the order in which they are registered: ``ls``,
``eam_adv``. ``diffro`` has none. ``rrpo`` has the paper's three, which longer names also abbreviate as ``rrpo`` (``rrpo_x``).
"""

from __future__ import annotations

from collections.abc import Iterable

from rrpo.config import OFF, ArmConfig, RegularizerConfig
from rrpo.errors import InputError
from rrpo.experiment.dataflow import SFT
from rrpo.plugins import Registry
from rrpo.regularizers import REGULARIZERS, configured

BASE, RRPO = "diffro", "rrpo"
"""The arm without regularizers, and the arm with exactly the paper's."""
ARMS: Registry[ArmConfig] = Registry("arm", of=ArmConfig, underscores=True)
"""Arms by name, except those named after their regularizers; `arm` finds both."""

ARMS.register("sft", SFT)
ARMS.register("pretrained", ArmConfig(regularizers=OFF, finetune=False))
ARMS.register(BASE, ArmConfig(regularizers=OFF))
ARMS.register(RRPO, ArmConfig())
ARMS.register("oracle", ArmConfig(regularizers=OFF, rm_data="oracle", finetune=False))
# Not fine-tuned, because the annotated labels would teach the placebo reward model the real emotions.
ARMS.register("placebo", ArmConfig(regularizers=OFF, shuffle_labels=True, finetune=False))
ARMS.register("no_content", ArmConfig(regularizers=OFF, content_weight=0.0))
ARMS.register("content_only", ArmConfig(regularizers=OFF, emotion_weight=0.0))
# Controls: does a robust reward model help beyond the size of its gradient? Does a larger KL penalty achieve the same?
ARMS.register("diffro_scaled", ArmConfig(regularizers=OFF, match_gradient=True))
ARMS.register("diffro_kl", ArmConfig(regularizers=OFF, beta=0.03))
ARMS.register("rrpo_full_l_ser", ArmConfig(reward="full_l_ser"))


def factorial_arm(parts: Iterable[str]) -> str:
    """Return the name of the arm with exactly these regularizers, as `name_of`.

    Raises:
        InputError: Another arm is registered under that name.
    """
    name = name_of(parts)
    if name in ARMS and ARMS[name] != ArmConfig(regularizers=regularizers(parts)):
        fix = "register the regularizer, or the arm, under another name"
        raise InputError("an arm has the name of a combination of regularizers", got=name, fix=fix)
    return name


def arm(name: str) -> ArmConfig:
    """Return the arm of that name: one of `ARMS`, or the arm with the regularizers that the name lists.

    Raises:
        InputError: There is no such arm.
    """
    if name in ARMS:
        return ARMS[name]
    parts = [part for word in name.split("_") for part in (paper_regularizers() if word == RRPO else [word])]
    if set(parts) <= set(REGULARIZERS) and name_of(parts) == name:
        return ArmConfig(regularizers=regularizers(parts))
    known = f"one of {', '.join(ARMS)}, or regularizers from {', '.join(REGULARIZERS)} joined by _ in this order"
    raise InputError(
        "there is no arm of that name",
        got=name,
        fix=f"use {known}; to use an arm of your own, load its file with --plugin FILE; the other arms that "
        "`python -m ablations.arms` lists run with `python -m ablations.run --arms`",
    )


def paper_regularizers() -> list[str]:
    """Return the names of RRPO's own regularizers."""
    return [name for name, regularizer in REGULARIZERS.items() if regularizer.paper]


def name_of(parts: Iterable[str]) -> str:
    """Return the name of the arm with exactly these regularizers: ``diffro``, ``ls``, ..., ``ls_eam``, ..., ``rrpo``,
    ``rrpo_x``."""
    active = set(parts)
    chosen = [name for name in REGULARIZERS if name in active]
    if paper_regularizers() and active >= set(paper_regularizers()):
        chosen = [RRPO, *(name for name in chosen if name not in paper_regularizers())]
    return "_".join(chosen) or BASE


def regularizers(parts: Iterable[str]) -> RegularizerConfig:
    """Return a config with the named regularizers at their declared strengths and the others at identity (same code path)."""
    active = set(parts)
    return configured({name: r.on_values if name in active else r.off_values for name, r in REGULARIZERS.items()})
