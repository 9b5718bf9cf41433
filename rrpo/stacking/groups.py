"""Which stages can be built together in one stack. Imports no torch, because plans and schedulers use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rrpo.identity import content_hash
from rrpo.pipeline.stages import Stage, walk
from rrpo.regularizers.registry import active

COMMON = ("codec", "recogniser", "val")
"""Inputs that policy optimizations of one stack share."""


def stack_group(stage: Stage) -> tuple[str, ...] | None:
    """Return what the members of a stack have in common; None if the stage must be built alone.

    A stage that depends on another one of its kind is in another group, because they cannot be built at the same time.
    """
    shared = SHARED[stage.name](stage) if stage.name in SHARED else None
    if shared is None:
        return None
    depth = sum(other.name == stage.name for other in walk(stage))
    return (stage.name, str(depth), *shared)


def _optimization(stage: Stage) -> Sequence[str]:
    # null tags are two more symbols of the policy
    null_tags = getattr(stage.inputs["policy"].config, "tag_dropout", 0.0) > 0
    return [*(stage.inputs[role].key for role in COMMON), str(null_tags)]


def _policy(stage: Stage) -> Sequence[str]:
    return [content_hash(replace(stage.config, seed=0)), stage.inputs["base"].key]


def _reward_model(stage: Stage) -> Sequence[str] | None:
    """Return the network. Alone: pre-trained speech encoders, and regularizers that differentiate through the encoder."""
    network = next(other.config.model for other in walk(stage) if other.name == "pretrain")
    regularizers = active(stage.config.regularizers) if stage.name == "finetune" else []
    alone = network.encoder is not None or any(regularizer.level == "input" for regularizer in regularizers)
    return None if alone else [content_hash(network)]


SHARED: dict[str, Callable[[Stage], Sequence[str] | None]] = {
    "sft": _policy,
    "pretrain": _reward_model,
    "finetune": _reward_model,
    "optimize": _optimization,
}
"""Kinds of stages that can be stacked -> function that returns what the members share."""
