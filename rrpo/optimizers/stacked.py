"""Build several ``optimize`` stages in one process, batching the matrix products of cells with the same architecture.

The build of each stage runs unchanged, with its own checkpoints, curves and result, in lockstep with the others
(`rrpo.optimizers.lockstep`). Calls of models are batched over the members of the stack:

- `StackedPolicy` runs policies and references, `torch.func.vmap` over stacked weights runs the encoders of the reward models;
- codec, phone recognizer and ``val`` judge, which the members share, run on the concatenated samples;
- losses are differentiated together; each member gets its own gradient.

Prompts, noise, clipping, Adam, learning rate, arm and optimizer are separate for each member. Members may differ in everything
except the architectures and the three shared models. A member equals a stage built alone up to rounding, after which
trajectories diverge; the marker of a stage therefore records its executor, and all cells of a seed use the same one
(`ablations.execution.stacking`). A member that diverges or fails does not affect the others, and each member can resume from
its own checkpoint, alone or in another stack.

An optimizer that differentiates through policy or encoder itself, in addition to the losses it yields, cannot be stacked and
raises an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from rrpo.models.policy import Policy
from rrpo.models.reward_model import RewardModel
from rrpo.models.stacked import StackedPolicy, padded
from rrpo.optimizers import lockstep
from rrpo.optimizers.lockstep import Ask
from rrpo.optimizers.rollout import Models
from rrpo.pipeline.stages import Context, Stage, materialise

TOGETHER = {
    "policy": ("sample", "logits", "packed_logits"),
    "reference": ("sample", "logits", "packed_logits"),
    "reward_model": ("encode",),
    "codec": ("decode", "decode_codes"),
    "recogniser": ("ctc_loss",),
    "val": ("log_probs",),
}
"""Methods of the models that are batched over members, by role in `Models`."""
COMMON = ("codec", "recogniser", "val")
"""Roles (and stage inputs) that the members of a stack share."""


def build(
    stages: Sequence[Stage],
    store: Path,
    context: Context,
    own: Callable[[Stage, Context], Context] = lambda stage, context: context,
) -> list[Path | BaseException]:
    """Build several ``optimize`` stages together, after building their inputs one by one. Return the folder or error of each.

    Finished stages are not rebuilt; a stage that another process is building gives ClaimedError.

    Args:
        stages: The members.
        store: Folder of the results.
        context: Shared by all stages; receives their total progress.
        own: Adds stage-specific settings, such as a callback, to the context of one stage.

    Raises:
        ValueError: The stages do not share the models in `COMMON`.
    """
    for role in COMMON:
        if len({stage.inputs[role].key for stage in stages}) > 1:
            raise ValueError(
                f"stages of one stack must read one {role}, got several; stack only cells of one profile and world"
            )
    for stage in stages:
        for child in stage.inputs.values():
            materialise(child, store, context)
    progress: dict[str, tuple[int, int]] = {}
    stack = Stack()
    executor = replace(context.executor, members=len(stages))

    def program(stage: Stage) -> Callable[[Ask], Path]:
        def report(done: int, total: int) -> None:
            progress[stage.key] = (done, total)
            context.report(sum(done for done, _ in progress.values()), sum(total for _, total in progress.values()))

        def run(ask: Ask) -> Path:
            shared = replace(context, join=partial(stack.join, ask), executor=executor, report=report, wait=False)
            return materialise(stage, store, own(stage, shared))

        return run

    with executor.applied():  # process-wide settings: keep them until the last member has ended
        return lockstep.run([program(stage) for stage in stages], stack.answer)


class Stack:
    """The models of all members, and the function that serves their calls."""

    models: Models
    """Models of the first member; all members share codec, recognizer and judge."""

    def __init__(self) -> None:
        self.index: dict[int, int] = {}
        """Program number -> index in the stacked weights."""

    def join(self, ask: Ask, models: Models) -> Models:
        """Add the models of a member and return proxies for them, whose calls are batched."""
        common: Models = ask("join", models)
        own = {name: getattr(common if name in COMMON else models, name) for name in TOGETHER}
        proxies = {name: _Proxy(model, name, ask) for name, model in own.items()}
        return replace(models, **cast(Any, proxies), backward=partial(ask, "backward"))

    def answer(
        self, kind: Hashable, programs: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """Return one answer for each program in ``programs``; see `lockstep.run`."""
        if kind == "join":
            return self._join(programs, [models for (models,) in arguments])
        members = [self.index[number] for number in programs]
        columns = [list(column) for column in zip(*arguments, strict=True)]
        if kind == "backward":
            return self._differentiate(members, *columns, keep=others)
        role, method, gradient, _ = cast(tuple[str, str, bool, int], kind)
        with torch.set_grad_enabled(gradient):
            if role == "codec":
                return _call_codec(getattr(self.models.codec, method), columns)
            if role in COMMON:
                return _call_concatenated(getattr(getattr(self.models, role), method), columns)
            results: Sequence[Any] = getattr(getattr(self, role), method)(members, *columns)
            return results

    def _differentiate(self, members: list[int], losses: list[Tensor], *, keep: bool) -> list[None]:
        try:
            self.policy.backward(members, losses, keep=keep)
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
            raise RuntimeError(
                "an optimizer in this stack differentiated through the policy itself, which freed the members' shared graph; "
                "run its arms with --stack 1, or have it yield everything it differentiates as losses"
            ) from error
        return [None] * len(members)

    def _join(self, programs: list[int], models: list[Models]) -> list[Models]:
        assert not self.index, "all members join at once, because joining is the first request of each"
        self.index = {number: index for index, number in enumerate(programs)}
        self.models = models[0]
        self.policy = StackedPolicy([cast(Policy, member.policy) for member in models])
        self.reference = StackedPolicy([cast(Policy, member.reference) for member in models])
        self.reward_model = Encoders([member.reward_model for member in models])
        return [self.models] * len(programs)


class _Proxy:
    """Proxy for a model of a member: methods in `TOGETHER` are sent to the stack, all other attributes are those of the model."""

    def __init__(self, model: Any, role: str, ask: Ask) -> None:
        self._model, self._role, self._ask = model, role, ask

    def __getattr__(self, name: str) -> Any:
        if name not in TOGETHER[self._role]:
            return getattr(self._model, name)

        def call(batch: Any, *arguments: Any) -> Any:
            kind = (self._role, name, torch.is_grad_enabled(), len(batch))  # batches have equal numbers of rows
            return self._ask(kind, batch, *arguments)

        return call


class Encoders:
    """`RewardModel.encode` for all members, batched over those of one architecture (which may be that of an ensemble)."""

    def __init__(self, models: Sequence[RewardModel]) -> None:
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index, model in enumerate(models):
            groups[type(model), tuple((name, value.shape) for name, value in model.named_parameters())].append(index)
        self._groups = [
            (indices, _Encoder(models[indices[0]]), stack_module_state([_Encoder(models[index]) for index in indices]))
            for indices in groups.values()
        ]

    def encode(
        self, members: Sequence[int], F: Sequence[Tensor], lengths: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return h' ``[B, T', D]`` and its mask ``[B, T']`` for each member."""
        encoded: dict[int, tuple[Tensor, Tensor]] = {}
        for indices, encoder, stacked in self._groups:
            callers = [i for i, member in enumerate(members) if member in indices]
            if not callers:
                continue
            weights: Sequence[dict[str, Any]] = stacked
            if len(callers) < len(indices):
                rows = torch.tensor([indices.index(members[i]) for i in callers], device=F[0].device)
                weights = [{name: value.index_select(0, rows) for name, value in part.items()} for part in stacked]
            with sdpa_kernel(SDPBackend.MATH):  # the only backend that vmap supports
                h, mask = vmap(partial(functional_call, encoder))(
                    tuple(weights), (padded([F[i] for i in callers], 1), torch.stack([lengths[i] for i in callers]))
                )
            for i, hidden, valid in zip(callers, h, mask, strict=True):
                size = -(-F[i].shape[1] // encoder.model.config.subsample)  # T'
                encoded[i] = hidden[:, :size], valid[:, :size]
        return [encoded[i] for i in range(len(members))]


class _Encoder(nn.Module):
    """Module whose `forward` is the encoder, so that `functional_call` can replace its weights."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(F, lengths)


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
