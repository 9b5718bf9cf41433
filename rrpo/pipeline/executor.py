"""How a stage is computed: number of stacked stages, precision, determinism. Not part of any key.

Results of two executors are equal up to rounding, after which policy trajectories diverge. The marker of a stage therefore
records its executor, and all arms of a seed use the same one. torch is imported only when a stage is built.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

PRECISIONS = ("fp32", "tf32", "bf16")
"""Precision of matrix products in policy optimizations. ``fp32``: torch's default. ``tf32``: all on TensorFloat-32 units of the
GPU. ``bf16``: those of policy and reference in bfloat16 by autocast, so that logits are rounded too; noise, KL, losses, reward
model, codec, judges, parameters and Adam stay in float32."""
OPTIMIZATION = "optimize"
"""Name of the stages to which the precision applies, and of which all cells of a seed use one executor."""
MARK = "executor"
"""Field of a stage's marker; absent for the default `Executor`."""


@dataclass(frozen=True)
class Executor:
    """Settings of one run of a stage."""

    members: int = 0
    """Number of stages built together in one process; 0: not stacked."""
    precision: str = "fp32"
    """One of `PRECISIONS`; applies to policy optimizations only."""
    deterministic: bool = False
    """Whether torch uses deterministic algorithms, for bit-identical results on one GPU; a warning names operations without
    one. On the CPU results are bit-identical in any case."""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown precision."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; use one of {', '.join(PRECISIONS)}")

    def __str__(self) -> str:
        """Return, for example, ``stacked(8) bf16 deterministic``; empty for the default."""
        words = {f"stacked({self.members})": self.members, self.precision: self.precision != "fp32"}
        return " ".join(word for word, active in (words | {"deterministic": self.deterministic}).items() if active)

    @property
    def share(self) -> float:
        """Share of one stage in the time and GPU memory of the process."""
        return 1 / max(1, self.members)

    def of(self, stage: str) -> Executor:
        """Return the executor for a kind of stage: all stages except policy optimizations are built in float32."""
        return self if stage == OPTIMIZATION else replace(self, precision=PRECISIONS[0])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set torch's global switches for this executor; restore them on exit."""
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
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads this at initialization
                torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.set_float32_matmul_precision(products)
            torch.use_deterministic_algorithms(order[0], warn_only=order[1])


SINGLE = Executor()
"""The default executor: one by one, in float32."""
