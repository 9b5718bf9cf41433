"""Data-parallel training of one policy with the package accelerate (extra ``accelerate``).

Each process holds all models and rolls out its part of the prompts. Gradients are averaged before each update. Noise is keyed
by the row number in the whole batch, so the update equals that of one process with the whole batch, up to rounding. Start the
processes with ``accelerate launch``, or anything else that sets ``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK`` and ``MASTER_ADDR``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from rrpo.errors import InputError
from rrpo.packages import present


class Processes:
    """The processes that share each batch, as seen from the current one; a single one unless created by `join`."""

    def __init__(self, device: str = "cpu") -> None:
        self.count, self.rank, self.device = 1, 0, device
        self._accelerator: Any = None

    @staticmethod
    def join(device: str) -> Processes:
        """Join the other processes if the environment names any.

        Raises:
            InputError: accelerate is not installed.
        """
        processes = Processes(device)
        processes.count = int(os.environ.get("WORLD_SIZE", "1"))
        if processes.count == 1:
            return processes
        if not present("accelerate"):
            raise InputError(
                "sharing a batch between processes needs the package accelerate",
                got=f"WORLD_SIZE={processes.count}, and it is not installed",
                fix="pip install 'rrpo-ablations[accelerate]'",
            )
        from accelerate import Accelerator

        processes._accelerator = Accelerator(cpu=device == "cpu")
        processes.rank, processes.device = processes._accelerator.process_index, str(processes._accelerator.device)
        return processes

    @property
    def first(self) -> bool:
        """Whether this process prints and writes results."""
        return self.rank == 0

    def numbers(self, prompts: int, samples: int) -> list[int] | None:
        """Return this process's rows of a batch of ``samples`` samples for each of ``prompts`` prompts; None: all rows.

        Raises:
            InputError: The number of prompts is not a multiple of the number of processes.
        """
        if self.count == 1:
            return None
        if prompts % self.count:
            raise InputError(
                "the prompts of a batch must divide among the processes",
                got=f"{prompts} prompts, {self.count} processes",
                fix="change --batch or the number of processes",
            )
        indices = range(self.rank, prompts, self.count)
        return [sample * prompts + prompt for sample in range(samples) for prompt in indices]

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over the processes."""
        if self.count > 1:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            for gradient in gradients:
                gradient.copy_(self._accelerator.reduce(gradient, "mean"))

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return means over the processes, by name."""
        if self.count == 1:
            return dict(values)
        means = self._accelerator.reduce(torch.tensor(list(values.values()), device=self.device), "mean")
        return dict(zip(values, means.tolist(), strict=True))

    def share(self, *models: nn.Module) -> None:
        """Copy the weights of the first process to all: separately trained models may differ in the last bits on GPUs."""
        if self.count > 1:
            for tensor in (tensor for model in models for tensor in model.state_dict().values()):
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


ALONE = Processes()
"""One process with the whole batch."""
