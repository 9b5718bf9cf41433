"""Stack of the stages ``optimize``: policy optimizations of cells with the same architectures, codec, recognizer and judge.

- `StackedPolicy` runs policies and references, `Encoders` the encoders of the reward models;
- codec, phone recognizer and ``val`` judge, which the members share, run on the concatenated samples;
- losses are differentiated together; each member gets its own gradient.

Prompts, noise, clipping, Adam, learning rate, arm and optimizer are separate for each member. An optimizer that differentiates
through policy or encoder itself, in addition to the losses it yields, cannot be stacked and raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from rrpo.models.policy import Policy
from rrpo.optimizers.rollout import Models
from rrpo.stacking.encoders import Encoders
from rrpo.stacking.groups import COMMON
from rrpo.stacking.lockstep import Ask
from rrpo.stacking.policies import StackedPolicy, padded
from rrpo.stacking.stack import Proxy, Stack

TOGETHER = {
    "policy": ("sample", "logits", "packed_logits"),
    "reference": ("sample", "logits", "packed_logits"),
    "reward_model": ("encode",),
    "codec": ("decode", "decode_codes"),
    "recogniser": ("ctc_loss",),
    "val": ("log_probs",),
}
"""Methods of the models that are batched over members, by role in `Models`."""


class Optimizations(Stack):
    """Policy optimizations."""

    models: Models
    """Models of the first member; all members share codec, recognizer and judge."""

    def join(self, ask: Ask, models: Models) -> Models:
        """Add the models of a member."""
        common: Models = ask("join", models)
        own = {name: getattr(common if name in COMMON else models, name) for name in TOGETHER}
        proxies = {name: Proxy(model, name, TOGETHER[name], ask) for name, model in own.items()}
        return replace(models, **cast(Any, proxies))

    def collect(self, models: list[Models]) -> list[Models]:
        """Stack the policies, references and encoders."""
        self.models = models[0]
        self.policy = StackedPolicy([cast(Policy, member.policy) for member in models])
        self.trained = self.policy.parameters
        self.reference = StackedPolicy([cast(Policy, member.reference) for member in models])
        self.reward_model = Encoders([member.reward_model for member in models])
        return [self.models] * len(models)

    def call(self, role: str, method: str, members: Sequence[int], columns: list[list[Any]]) -> Sequence[Any]:
        """Call a method of a shared model once for all members, or of the stacked ones."""
        if role not in COMMON:
            return super().call(role, method, members, columns)
        concatenated = _call_codec if role == "codec" else _call_concatenated
        return concatenated(getattr(getattr(self.models, role), method), columns)


def _call_concatenated(method: Callable[..., Any], columns: list[list[Any]]) -> list[Any]:
    """Call ``method`` once on the concatenated samples of all members; return the results per member."""
    results = method(*map(_concatenate, columns))
    sizes = [len(first) for first in columns[0]]
    if isinstance(results, tuple):
        return list(zip(*(part.split(sizes) for part in results), strict=True))
    return list(results.split(sizes))


def _call_codec(method: Callable[..., Any], columns: list[list[Any]]) -> list[Any]:
    """Return `_call_concatenated` for a codec, with frames cropped to the longest sample of each member."""
    tokens = [batch.shape[1] for batch in columns[0]]
    results = _call_concatenated(method, columns)
    return [(F[:, : F.shape[1] * n // max(tokens)], frames) for (F, frames), n in zip(results, tokens, strict=True)]


def _concatenate(column: Sequence[Any]) -> Any:
    """Concatenate batches of several members: lists, tensors ``[B]``, or ``[B, N, ...]`` padded to the longest N."""
    if not isinstance(column[0], Tensor):
        return [item for batch in column for item in batch]
    return torch.cat(list(column)) if column[0].dim() == 1 else padded(column, 1).flatten(0, 1)
