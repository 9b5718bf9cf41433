"""Base class of a stack: collects the models of its members and serves their calls in batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from rrpo.stacking.lockstep import Ask

Call = tuple[str, str, bool, int]
"""Kind of a request: role of the model, method, whether gradients are enabled, number of rows."""


class Trained(Protocol):
    """The trained parameters of all members."""

    def backward(self, members: Sequence[int], losses: Sequence[Tensor], *, keep: bool) -> None:
        """See `rrpo.stacking.parameters.StackedParameters.backward`."""


class Stack:
    """The models of all members, and the function that serves their calls (`rrpo.stacking.lockstep.Answer`)."""

    trained: Trained

    def __init__(self) -> None:
        self.index: dict[int, int] = {}
        """Program number -> index in the stacked weights."""

    def join(self, ask: Ask, models: Any) -> Any:
        """Add the models of a member and return proxies for them, whose calls are batched (`Context.join`)."""
        raise NotImplementedError

    def collect(self, models: list[Any]) -> list[Any]:
        """Stack the models of all members, given to the request ``join``; return its answer for each."""
        raise NotImplementedError

    def call(self, role: str, method: str, members: Sequence[int], columns: list[list[Any]]) -> Sequence[Any]:
        """Call a method for some members; ``columns`` hold the values of each argument. Return one result for each member."""
        results: Sequence[Any] = getattr(getattr(self, role), method)(members, *columns)
        return results

    def answer(
        self, kind: Hashable, programs: list[int], arguments: list[tuple[Any, ...]], *, others: bool
    ) -> Sequence[Any]:
        """Return one answer for each program in ``programs``; see `rrpo.stacking.lockstep.run`."""
        if kind == "join":
            assert not self.index, "all members join at once, because joining is the first request of each"
            self.index = {number: index for index, number in enumerate(programs)}
            return self.collect([models for (models,) in arguments])
        members = [self.index[number] for number in programs]
        columns = [list(column) for column in zip(*arguments, strict=True)]
        if kind == "backward":
            return self._differentiate(members, *columns, keep=others)
        role, method, gradient, _ = cast(Call, kind)
        with torch.set_grad_enabled(gradient):
            return self.call(role, method, members, columns)

    def _differentiate(self, members: list[int], losses: list[Tensor], *, keep: bool) -> list[None]:
        try:
            self.trained.backward(members, losses, keep=keep)
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
            raise RuntimeError(
                "a member of this stack differentiated through its model by itself, which freed the members' shared graph; "
                "run its arms with --stack 1, or have its optimizer yield everything that it differentiates as losses"
            ) from error
        return [None] * len(members)


class Proxy:
    """Proxy for a model of a member: some methods are sent to the stack, all other attributes are those of the model."""

    def __init__(self, model: Any, role: str, methods: Collection[str], ask: Ask) -> None:
        self._model, self._role, self._methods, self._ask = model, role, methods, ask

    def __getattr__(self, name: str) -> Any:
        return self._sent(name) if name in self._methods else getattr(self._model, name)

    def _sent(self, name: str) -> Callable[..., Any]:
        def call(batch: Any, *arguments: Any) -> Any:
            kind: Call = (self._role, name, torch.is_grad_enabled(), len(batch))  # batches have equal numbers of rows
            return self._ask(kind, batch, *arguments)

        return call
