"""Several processes that train one policy on shares of each batch, by the package accelerate (extra ``accelerate``).

Every process holds all models. It rolls out its own prompts, and gradients are averaged before each update, so the update is
that of one process with the whole batch, up to rounding: noise is keyed by a row's number in the whole batch. ``accelerate
launch``, or anything else that sets ``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK`` and ``MASTER_ADDR``, starts the processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from rrpo.errors import InputError
from rrpo.optimizers.rollout import Prompts
from rrpo.packages import present


class Processes:
    """This process among those that share a batch."""

    def __init__(self, device: str) -> None:
        """Joins the others where the environment names any.

        Raises:
            InputError: accelerate is not installed.
        """
        self.count, self.rank, self.device = int(os.environ.get("WORLD_SIZE", "1")), 0, device
        if self.count == 1:
            return
        if not present("accelerate"):
            raise InputError(
                "several processes share a batch by the package accelerate",
                got=f"WORLD_SIZE={self.count}, and it is not installed",
                fix="pip install 'rrpo-ablations[accelerate]'",
            )
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=device == "cpu")
        self.rank, self.device = self._accelerator.process_index, str(self._accelerator.device)

    @property
    def first(self) -> bool:
        """Whether this process tells and writes."""
        return self.rank == 0

    def numbers(self, prompts: int, samples: int) -> list[int] | None:
        """Rows of a batch of ``samples`` samples of each of ``prompts`` prompts that are this process'; None: all.

        Raises:
            InputError: The processes cannot have equally many.
        """
        if self.count == 1:
            return None
        if prompts % self.count:
            raise InputError(
                "the prompts of a batch must divide among the processes",
                got=f"{prompts} prompts, {self.count} processes",
                fix="change --batch or the number of processes",
            )
        own = range(self.rank, prompts, self.count)
        return [sample * prompts + prompt for sample in range(samples) for prompt in own]

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients become their mean over the processes."""
        if self.count > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            for gradient in gradients:
                gradient.copy_(self._accelerator.reduce(gradient, "mean"))

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means over the processes, by name."""
        if self.count == 1:
            return dict(values)
        found = self._accelerator.reduce(torch.tensor(list(values.values()), device=self.device), "mean")
        return dict(zip(values, found.tolist(), strict=True))

    def share(self, *models: nn.Module) -> None:
        """All get the first process' weights: what each trained alone may differ in the last bits on GPUs."""
        if self.count > 1:
            for tensor in (tensor for model in models for tensor in model.state_dict().values()):
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


def own_prompts(prompts: Prompts, rows: Tensor, numbers: list[int] | None) -> Prompts:
    """Of the batch of the prompts numbered ``rows``, this process' part."""
    return prompts.select(rows if numbers is None else rows[numbers])
