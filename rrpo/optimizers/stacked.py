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
        own: Adds stage-specific settings, such as a watch, to the context of one stage.

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
        self.place: dict[int, int] = {}
        """Program number -> index in the stacked weights."""

    def join(self, ask: Ask, models: Models) -> Models:
        """Add the models of a member and return proxies for them, whose calls are batched."""
        common: Models = ask("join", models)
        own = {name: getattr(common if name in COMMON else models, name) for name in TOGETHER}
        asking = {name: _Asking(model, name, ask) for name, model in own.items()}
        return replace(models, **cast(Any, asking), backward=partial(ask, "backward"))

    def answer(
        self, kind: Hashable, who: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """Return one answer for each program in ``who``; see `lockstep.run`."""
        if kind == "join":
            return self._joined(who, [models for (models,) in arguments])
        members = [self.place[number] for number in who]
        columns = [list(column) for column in zip(*arguments, strict=True)]
        if kind == "backward":
            return self._differentiated(members, *columns, keep=others)
        role, method, gradient, _ = cast(tuple[str, str, bool, int], kind)
        with torch.set_grad_enabled(gradient):
            if role == "codec":
                return _decoded(getattr(self.models.codec, method), columns)
            if role in COMMON:
                return _in_a_row(getattr(getattr(self.models, role), method), columns)
            found: Sequence[Any] = getattr(getattr(self, role), method)(members, *columns)
            return found

    def _differentiated(self, members: list[int], losses: list[Tensor], *, keep: bool) -> list[None]:
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

    def _joined(self, who: list[int], models: list[Models]) -> list[Models]:
        assert not self.place, "all members join at once, because joining is the first request of each"
        self.place = {number: place for place, number in enumerate(who)}
        self.models = models[0]
        self.policy = StackedPolicy([cast(Policy, own.policy) for own in models])
        self.reference = StackedPolicy([cast(Policy, own.reference) for own in models])
        self.reward_model = Encoders([own.reward_model for own in models])
        return [self.models] * len(who)


class _Asking:
    """Proxy for a model of a member: methods in `TOGETHER` are sent to the stack, all other attributes are those of the model."""

    def __init__(self, model: Any, role: str, ask: Ask) -> None:
        self._model, self._role, self._ask = model, role, ask

    def __getattr__(self, name: str) -> Any:
        if name not in TOGETHER[self._role]:
            return getattr(self._model, name)

        def together(first: Any, *others: Any) -> Any:
            kind = (self._role, name, torch.is_grad_enabled(), len(first))  # batches have equal numbers of rows
            return self._ask(kind, first, *others)

        return together


class Encoders:
    """`RewardModel.encode` for all members, batched over those of one architecture (which may be that of an ensemble)."""

    def __init__(self, models: Sequence[RewardModel]) -> None:
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for place, model in enumerate(models):
            alike[type(model), tuple((name, value.shape) for name, value in model.named_parameters())].append(place)
        self._groups = [
            (places, _Encoder(models[places[0]]), stack_module_state([_Encoder(models[place]) for place in places]))
            for places in alike.values()
        ]

    def encode(
        self, members: Sequence[int], F: Sequence[Tensor], lengths: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return h' ``[B, T', D]`` and its mask ``[B, T']`` for each member."""
        encoded: dict[int, tuple[Tensor, Tensor]] = {}
        for places, encoder, stacked in self._groups:
            asked = [i for i, member in enumerate(members) if member in places]
            if not asked:
                continue
            weights: Sequence[dict[str, Any]] = stacked
            if len(asked) < len(places):
                rows = torch.tensor([places.index(members[i]) for i in asked], device=F[0].device)
                weights = [{name: value.index_select(0, rows) for name, value in part.items()} for part in stacked]
            with sdpa_kernel(SDPBackend.MATH):  # the only backend that vmap supports
                h, mask = vmap(partial(functional_call, encoder))(
                    tuple(weights), (padded([F[i] for i in asked], 1), torch.stack([lengths[i] for i in asked]))
                )
            for i, own, valid in zip(asked, h, mask, strict=True):
                size = -(-F[i].shape[1] // encoder.model.config.subsample)  # T'
                encoded[i] = own[:, :size], valid[:, :size]
        return [encoded[i] for i in range(len(members))]


class _Encoder(nn.Module):
    """Module whose `forward` is the encoder, so that `functional_call` can replace its weights."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(F, lengths)


def _in_a_row(method: Callable[..., Any], columns: list[list[Any]]) -> list[Any]:
    """Call ``method`` once on the concatenated samples of all members; return the results per member."""
    found = method(*map(_joined, columns))
    sizes = [len(first) for first in columns[0]]
    if isinstance(found, tuple):
        return list(zip(*(part.split(sizes) for part in found), strict=True))
    return list(found.split(sizes))


def _decoded(method: Callable[..., Any], columns: list[list[Any]]) -> list[Any]:
    """Return `_in_a_row` for a codec, with frames cropped to the longest sample of each member."""
    tokens = [own.shape[1] for own in columns[0]]
    found = _in_a_row(method, columns)
    return [(F[:, : F.shape[1] * own // max(tokens)], frames) for (F, frames), own in zip(found, tokens, strict=True)]


def _joined(column: Sequence[Any]) -> Any:
    """Concatenate batches of several members: lists, tensors ``[B]``, or ``[B, N, ...]`` padded to the longest N."""
    if not isinstance(column[0], Tensor):
        return [item for batch in column for item in batch]
    return torch.cat(list(column)) if column[0].dim() == 1 else padded(column, 1).flatten(0, 1)
