"""Run the encoders of C reward models together: `torch.func.vmap` over stacked weights."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from rrpo.models.reward_model import RewardModel
from rrpo.stacking.parameters import StackedParameters, shapes
from rrpo.stacking.policies import padded


class Encoders:
    """`RewardModel.encode` for all members, batched over those of one architecture (which may be that of an ensemble)."""

    def __init__(self, models: Sequence[RewardModel]) -> None:
        """Stack the parameters; those of ``models`` become views."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index, model in enumerate(models):
            groups[type(model), tuple(shapes(model).items())].append(index)
        self._groups = [_Group(indices, [models[index] for index in indices]) for indices in groups.values()]

    def encode(
        self, members: Sequence[int], F: Sequence[Tensor], lengths: Sequence[Tensor], *masks: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return h' ``[B, T', D]`` and its mask ``[B, T']`` for each member.

        Args:
            members: Numbers of the members.
            F: Frames ``[B, T, M]`` of each.
            lengths: Frames of each utterance ``[B]``.
            masks: For models in training, the `dropout_masks` of each.
        """
        encoded: dict[int, tuple[Tensor, Tensor]] = {}
        for group in self._groups:
            callers = [i for i, member in enumerate(members) if member in group.numbers]
            if callers:
                columns = (F, lengths, *masks)
                arguments = [[column[i] for i in callers] for column in columns]
                encoded |= dict(zip(callers, group.encode([members[i] for i in callers], *arguments), strict=True))
        return [encoded[i] for i in range(len(members))]

    def backward(self, members: Sequence[int], losses: Sequence[Tensor], *, keep: bool) -> None:
        """See `StackedParameters.backward`; for members of one architecture."""
        (group,) = self._groups
        group.parameters.backward(members, losses, keep=keep)


class _Group:
    """Reward models of one architecture."""

    def __init__(self, numbers: Sequence[int], models: Sequence[RewardModel]) -> None:
        self.numbers = list(numbers)
        """Number of each of the models among the members."""
        self.encoder = _Encoder(models[0])
        self.parameters = StackedParameters(models)
        buffers = [dict(model.named_buffers()) for model in models]
        self.buffers = {name: torch.stack([own[name] for own in buffers]) for name in buffers[0]}

    def encode(self, members: Sequence[int], F: Sequence[Tensor], lengths: Sequence[Tensor], *masks: Any) -> Any:
        rows = [self.numbers.index(member) for member in members]
        at = torch.tensor(rows, device=F[0].device)
        buffers = {name: buffer.index_select(0, at) for name, buffer in self.buffers.items()}
        weights = {f"model.{name}": value for name, value in (self.parameters.of(rows) | buffers).items()}
        batch = (padded(F, 1), torch.stack(list(lengths)), *(padded(column, 2) for column in masks))
        with sdpa_kernel(SDPBackend.MATH):  # the only backend that vmap supports
            h, valid = vmap(partial(functional_call, self.encoder))(weights, batch)
        sizes = [-(-frames.shape[1] // self.encoder.model.config.subsample) for frames in F]  # T' of each
        return [(own[:, :size], mask[:, :size]) for own, mask, size in zip(h, valid, sizes, strict=True)]


class _Encoder(nn.Module):
    """Module whose `forward` is the encoder, so that `functional_call` can replace its weights, with given dropout masks."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self._masks: Iterator[Tensor] = iter(())
        for module in self.model.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(module, name, _Masked(self) if child.training else nn.Identity())

    def forward(self, F: Tensor, lengths: Tensor, *masks: Tensor) -> tuple[Tensor, Tensor]:
        self._masks = iter(masks[0]) if masks else iter(())
        return self.model.encode(F, lengths)


class _Masked(nn.Module):
    """Dropout with the next mask of an encoder."""

    def __init__(self, encoder: _Encoder) -> None:
        super().__init__()
        self._encoder = (encoder,)  # not a submodule

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self._encoder[0]._masks)


def dropout_masks(model: RewardModel, F: Tensor) -> Tensor:
    """Draw the factors with which dropout multiplies in `RewardModel.encode` of ``F [B, T, M]``: ``[calls, B, T', D]``.

    They are drawn as the model draws them, from torch's global generator and call by call, so that they are the same.
    """
    config = model.config
    calls = 1 + 2 * config.layers
    ones = F.new_ones(len(F), -(-F.shape[1] // config.subsample), config.dim)
    return torch.stack([functional.dropout(ones, config.dropout, model.training) for _ in range(calls)])
