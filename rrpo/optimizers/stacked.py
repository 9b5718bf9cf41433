"""Several ``optimize`` stages at once in one process: their cells share architecture and shapes, so their products are batched.

Each stage's own build runs unchanged, to its own checkpoints, curves and result, in lockstep with the others'
(`rrpo.optimizers.lockstep`); where it asks a model, all members' questions are answered by one batched call:

- policies and references by `StackedPolicy`, encoders of the reward models by `torch.func.vmap` over stacked weights;
- codec, phone recogniser and ``val`` judge, which the members have in common, on all samples in a row;
- losses are differentiated together; each member's gradient is that of its own.

Prompts and noise are each member's own, and so are clipping, Adam, learning rate, arm and optimiser: members may differ in
everything but the architectures and the three common models. A member equals the single stage up to rounding; since
trajectories part from there, the marker says which executor built a stage, and one seed's cells have one
(`ablations.execution.stacking`). One that diverges or fails leaves the others alone, and each goes on from its own checkpoint,
alone or in another stack.

An optimiser that differentiates through policy or encoder by itself, beside the losses it yields, cannot be stacked with others:
an error says so.
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
"""Methods of `Models` that are answered for all members that ask, by role."""
COMMON = ("codec", "recogniser", "val")
"""Roles, and inputs of the stages, that a stack's members share."""


def build(
    stages: Sequence[Stage],
    store: Path,
    context: Context,
    own: Callable[[Stage, Context], Context] = lambda stage, context: context,
) -> list[Path | BaseException]:
    """Builds several ``optimize`` stages together (and what they read, one after another): the folder of each, or its error.

    Stages that are done are left as they are; one that another process builds gives ClaimedError.

    Args:
        stages: The members.
        store: Where results go.
        context: Common to all; told of the progress of all in one.
        own: Gives the context of one stage what is its alone, such as a watch.

    Raises:
        ValueError: The stages do not share the models in `COMMON`.
    """
    for role in COMMON:
        if len({stage.inputs[role].key for stage in stages}) > 1:
            raise ValueError(f"stages of one stack read one {role}, got several; stack cells of one profile and world")
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

    with executor.applied():  # of the process: on until the last member has ended
        return lockstep.run([program(stage) for stage in stages], stack.answer)


class Stack:
    """The members' models, and the answers to what they ask of them."""

    models: Models
    """Of the first member; codec, recogniser and judge are everybody's."""

    def __init__(self) -> None:
        self.place: dict[int, int] = {}
        """Number of a program -> its place in the stacked weights."""

    def join(self, ask: Ask, models: Models) -> Models:
        """The models with which a member goes on."""
        common: Models = ask("join", models)
        own = {name: getattr(common if name in COMMON else models, name) for name in TOGETHER}
        asking = {name: _Asking(model, name, ask) for name, model in own.items()}
        return replace(models, **cast(Any, asking), backward=partial(ask, "backward"))

    def answer(
        self, kind: Hashable, who: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """An answer to each of ``who``, see `lockstep.run`."""
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
                "an optimiser of this stack differentiated through the policy by itself, which freed the members' common graph; "
                "run its arms with --stack 1, or have it yield all that it differentiates as losses"
            ) from error
        return [None] * len(members)

    def _joined(self, who: list[int], models: list[Models]) -> list[Models]:
        assert not self.place, "all members join at once: it is the first that they ask"
        self.place = {number: place for place, number in enumerate(who)}
        self.models = models[0]
        self.policy = StackedPolicy([cast(Policy, own.policy) for own in models])
        self.reference = StackedPolicy([cast(Policy, own.reference) for own in models])
        self.reward_model = Encoders([own.reward_model for own in models])
        return [self.models] * len(who)


class _Asking:
    """A member's model: the methods in `TOGETHER` ask the stack, everything else is the model's own."""

    def __init__(self, model: Any, role: str, ask: Ask) -> None:
        self._model, self._role, self._ask = model, role, ask

    def __getattr__(self, name: str) -> Any:
        if name not in TOGETHER[self._role]:
            return getattr(self._model, name)

        def together(first: Any, *others: Any) -> Any:
            kind = (self._role, name, torch.is_grad_enabled(), len(first))  # members of one question have as many rows
            return self._ask(kind, first, *others)

        return together


class Encoders:
    """`RewardModel.encode` of a stack's models, ensembles among them: those of one architecture at once."""

    def __init__(self, models: Sequence[RewardModel]) -> None:
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for place, model in enumerate(models):
            alike[type(model), tuple((name, value.shape) for name, value in model.named_parameters())].append(place)
        self._groups = [(places, StackedEncoder([models[place] for place in places])) for places in alike.values()]

    def encode(
        self, members: Sequence[int], F: Sequence[Tensor], lengths: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """h' ``[B, T', D]`` and its mask ``[B, T']`` of each member."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for places, encoder in self._groups:
            asked = [i for i, member in enumerate(members) if member in places]
            if asked:
                chosen = [places.index(members[i]) for i in asked]
                heard = encoder.encode(chosen, [F[i] for i in asked], [lengths[i] for i in asked])
                found |= zip(asked, heard, strict=True)
        return [found[i] for i in range(len(members))]


class StackedEncoder:
    """`RewardModel.encode` of C models of one architecture."""

    def __init__(self, models: Sequence[RewardModel]) -> None:
        self._encoders = [_Encoder(model) for model in models]
        self._weights = stack_module_state(cast(list[nn.Module], self._encoders))

    def encode(
        self, members: Sequence[int], F: Sequence[Tensor], lengths: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """h' ``[B, T', D]`` and its mask ``[B, T']`` of each member."""
        chosen = torch.tensor(list(members), device=F[0].device)
        weights = [
            {name: value.index_select(0, chosen) for name, value in values.items()}
            if len(members) < len(self._encoders)
            else values
            for values in self._weights
        ]
        encode = vmap(partial(functional_call, self._encoders[0]))
        with sdpa_kernel(SDPBackend.MATH):  # vmap knows no other
            h, mask = encode(tuple(weights), (padded(F, 1), torch.stack(list(lengths))))
        sizes = [self._encoded(own.shape[1]) for own in F]
        return [(own[:, :size], valid[:, :size]) for own, valid, size in zip(h, mask, sizes, strict=True)]

    def _encoded(self, frames: int) -> int:
        """T'."""
        return -(-frames // self._encoders[0].model.config.subsample)


class _Encoder(nn.Module):
    """The encoder as a module, whose `forward` can be called with other weights."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(F, lengths)


def _in_a_row(method: Callable[..., Any], columns: list[list[Any]]) -> list[Any]:
    """One call on the samples of all members, one member's after another's; the answers of each."""
    found = method(*map(_joined, columns))
    sizes = [len(first) for first in columns[0]]
    if isinstance(found, tuple):
        return list(zip(*(part.split(sizes) for part in found), strict=True))
    return list(found.split(sizes))


def _decoded(method: Callable[..., Any], columns: list[list[Any]]) -> list[Any]:
    """`_in_a_row` of a codec, frames cut to each member's own longest."""
    tokens = [own.shape[1] for own in columns[0]]
    found = _in_a_row(method, columns)
    return [(F[:, : F.shape[1] * own // max(tokens)], frames) for (F, frames), own in zip(found, tokens, strict=True)]


def _joined(column: Sequence[Any]) -> Any:
    """Batches of several members as one: lists, tensors ``[B]``, or ``[B, N, ...]`` that are padded to the longest N."""
    if not isinstance(column[0], Tensor):
        return [item for batch in column for item in batch]
    return torch.cat(list(column)) if column[0].dim() == 1 else padded(column, 1).flatten(0, 1)
