"""How many tasks share a GPU, by the memory that stages of the same kind and size used before."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.execution.estimate import Estimator
from rrpo.pipeline.stages import Stage

UNMEASURED = 4
"""Tasks a GPU, and members of a stack, where nothing of the kind was measured: small models leave it idle between kernels."""
CONTEXT_MIB = 600
"""Declared: what CUDA's context and libraries take in every process, beside torch's allocator, which is what is measured."""
MARGIN = 0.1
"""Declared: share of a GPU that is left free."""


def tasks_a_gpu(stages: Iterable[Stage], estimator: Estimator, gpu_mib: int | None) -> int:
    """At least one. Any stages may meet, so each counts as the largest; ``gpu_mib`` is the GPU's memory, None: unknown.

    Where some kinds were never measured it is `UNMEASURED` at most.
    """
    peaks = [estimator.device_mib(stage) for stage in stages]
    known = [peak for peak in peaks if peak is not None]
    if not known or gpu_mib is None:
        return UNMEASURED
    fit = max(1, int(gpu_mib * (1 - MARGIN) // (CONTEXT_MIB + max(known))))
    return fit if len(known) == len(peaks) else min(fit, UNMEASURED)


def members_a_stack(stages: Iterable[Stage], estimator: Estimator, gpu_mib: int | None, tasks: int) -> int:
    """How many policy optimisations are stacked in each of ``tasks`` that share a GPU; at least one.

    Each takes what one like it took, in a stack or alone. Where some were never measured it is `UNMEASURED`.
    """
    peaks = [estimator.device_mib(stage) for stage in stages]
    known = [peak for peak in peaks if peak is not None]
    if not known or len(known) < len(peaks) or gpu_mib is None:
        return UNMEASURED
    return max(1, int((gpu_mib * (1 - MARGIN) / tasks - CONTEXT_MIB) // max(1, *known)))
