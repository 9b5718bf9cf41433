"""Choose how many tasks share a GPU, from the measured peak memory of earlier stages of the same kind and size."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.execution.estimate import Estimator
from rrpo.pipeline.stages import Stage

UNMEASURED = 4
"""Default tasks per GPU, and default stack size, without measurements: small models leave the GPU idle between kernels."""
CONTEXT_MIB = 600
"""Assumed memory of CUDA's context and libraries per process, MiB; measurements cover torch's allocator only."""
MARGIN = 0.1
"""Assumed fraction of a GPU's memory that is left free."""


def tasks_a_gpu(stages: Iterable[Stage], estimator: Estimator, gpu_mib: int | None, members: int = 1) -> int:
    """Return how many tasks fit on a GPU with ``gpu_mib`` MiB of memory (None: unknown); at least one.

    Any stages may run at the same time, so each task is assumed to need as much memory as ``members`` of the largest.
    """
    return _fitting(stages, estimator, None if gpu_mib is None else gpu_mib * (1 - MARGIN), CONTEXT_MIB, members)


def members_a_stack(stages: Iterable[Stage], estimator: Estimator, gpu_mib: int | None, tasks: int) -> int:
    """Return how many policy optimizations to stack in each of the ``tasks`` that share a GPU; at least one.

    Each is assumed to need as much memory as earlier ones of its size did, stacked or alone.
    """
    return _fitting(stages, estimator, None if gpu_mib is None else gpu_mib * (1 - MARGIN) / tasks - CONTEXT_MIB, 0, 1)


def _fitting(stages: Iterable[Stage], estimator: Estimator, budget: float | None, overhead: int, members: int) -> int:
    """Return how many tasks fit into ``budget`` MiB, each with ``members`` of the largest stage and ``overhead`` MiB.

    The result is at least one, and at most `UNMEASURED` if some kinds of stages were never measured.
    """
    peaks = [estimator.device_mib(stage) for stage in stages]
    known = [peak for peak in peaks if peak is not None]
    if not known or budget is None:
        return UNMEASURED
    count = max(1, int(budget // max(1, overhead + members * max(known))))
    return count if len(known) == len(peaks) else min(count, UNMEASURED)
