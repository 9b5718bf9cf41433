"""Parameters of C modules of one architecture as stacked tensors ``[C, ...]``, of which the modules' own are views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StackedParameters:
    """Stacked parameters and gradients. Optimizers, clipping and checkpoints of the single modules work as before."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        """Stack the parameters of ``modules``, which must have equal names and shapes."""
        self.modules = list(modules)
        self.weights: dict[str, Tensor] = {}
        """``[C, ...]`` by name; leaves of the graph."""
        for name, first in modules[0].named_parameters():
            parameters = [module.get_parameter(name) for module in modules]
            stacked = torch.stack([parameter.detach() for parameter in parameters]).requires_grad_(first.requires_grad)
            for parameter, view in zip(parameters, stacked.detach(), strict=True):
                parameter.data = view
            self.weights[name] = stacked

    def of(self, members: Sequence[int]) -> dict[str, Tensor]:
        """Return the weights of some members, ``[len(members), ...]`` by name, with gradient to `weights`."""
        if len(members) == len(self.modules):
            return self.weights
        indices = torch.tensor(list(members), device=next(iter(self.weights.values())).device)
        return {name: weight.index_select(0, indices) for name, weight in self.weights.items()}

    def backward(self, members: Sequence[int], losses: Sequence[Tensor], *, keep: bool) -> None:
        """Add the gradients of each member's loss to the ``grad`` of its parameters.

        Args:
            members: Numbers of the members with a loss.
            losses: One scalar per member.
            keep: Whether to retain the graph for members that share it and have no loss yet.
        """
        for name, stacked in self.weights.items():
            if not stacked.requires_grad:
                continue
            if stacked.grad is None:
                stacked.grad = torch.zeros_like(stacked)
            parameters = {member: self.modules[member].get_parameter(name) for member in members}
            new = {member: parameter for member, parameter in parameters.items() if parameter.grad is None}
            for zeroed in [stacked.grad] if len(new) == len(self.modules) else [stacked.grad[member] for member in new]:
                zeroed.zero_()
            for member, parameter in new.items():
                parameter.grad = stacked.grad[member]
        torch.autograd.backward(list(losses), retain_graph=keep)


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a module's parameters by name."""
    return {name: parameter.shape for name, parameter in module.named_parameters()}
