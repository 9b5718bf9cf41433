"""How a stage is computed: how many policies at once, in which precision, in a fixed order or not. Part of no key.

Results of two executors are equal up to rounding, and from there trajectories of a policy part: the marker of a stage names its
executor, and all arms of a seed have one. Imports torch only where a build does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PRECISIONS = ("fp32", "tf32", "bf16")
"""Of matrix products in policy optimisations. ``fp32``: torch's default. ``tf32``: all of them on a GPU's TensorFloat-32 units.
``bf16``: the policy's and the reference's in bfloat16 by autocast; noise, logits, KL, losses, reward model, codec and judges stay
float32, as do parameters and Adam."""
STACKED = "optimize"
"""Name of the stages that can be stacked: policy optimisations."""
MARK = "executor"
"""Field of a stage's marker; absent from what `Executor` built by default."""


@dataclass(frozen=True)
class Executor:
    """Settings of one run of a stage."""

    members: int = 0
    """Policies optimised at once in one process; 0: each by itself."""
    precision: str = "fp32"
    """One of `PRECISIONS`; of policy optimisations alone."""
    deterministic: bool = False
    """Whether torch adds in a fixed order, for equal bits on one GPU; operations that cannot are named in a warning. On the CPU
    bits are equal anyhow."""

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown precision."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; use one of {', '.join(PRECISIONS)}")

    def __str__(self) -> str:
        """``stacked(8) bf16 deterministic``; empty by default."""
        words = {f"stacked({self.members})": self.members, self.precision: self.precision != "fp32"}
        return " ".join(word for word, said in (words | {"deterministic": self.deterministic}).items() if said)

    @property
    def share(self) -> float:
        """Of the process's time and GPU memory, what is one stage's."""
        return 1 / max(1, self.members)

    def of(self, stage: str) -> Executor:
        """What of it concerns a kind of stage: all but policy optimisations are built one by one, in float32."""
        return self if stage == STACKED else Executor(deterministic=self.deterministic)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """torch's global switches as they must be for it; as they were afterwards."""
        if not self.deterministic and self.precision != "tf32":
            yield
            return
        import torch

        products = torch.get_float32_matmul_precision()
        order = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        try:
            if self.precision == "tf32":
                torch.set_float32_matmul_precision("high")
            if self.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.set_float32_matmul_precision(products)
            torch.use_deterministic_algorithms(order[0], warn_only=order[1])


SINGLE = Executor()
"""The default: one by one, in float32."""
