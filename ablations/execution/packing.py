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


def tasks_a_gpu(stages: Iterable[Stage], estimator: Estimator, gpu_mib: int | None) -> int:
    """Return how many tasks fit on a GPU with ``gpu_mib`` MiB of memory (None: unknown); at least one.

    Any stages may run at the same time, so each is assumed to need as much memory as the largest. The result is at most
    `UNMEASURED` if some kinds were never measured.
    """
    peaks = [estimator.device_mib(stage) for stage in stages]
    known = [peak for peak in peaks if peak is not None]
    if not known or gpu_mib is None:
        return UNMEASURED
    fit = max(1, int(gpu_mib * (1 - MARGIN) // (CONTEXT_MIB + max(known))))
    return fit if len(known) == len(peaks) else min(fit, UNMEASURED)


def members_a_stack(stages: Iterable[Stage], estimator: Estimator, gpu_mib: int | None, tasks: int) -> int:
    """Return how many policy optimizations to stack in each of the ``tasks`` that share a GPU; at least one.

    Each is assumed to need as much memory as earlier ones of its size did, stacked or alone. The result is `UNMEASURED` if some
    were never measured.
    """
    peaks = [estimator.device_mib(stage) for stage in stages]
    known = [peak for peak in peaks if peak is not None]
    if not known or len(known) < len(peaks) or gpu_mib is None:
        return UNMEASURED
    return max(1, int((gpu_mib * (1 - MARGIN) / tasks - CONTEXT_MIB) // max(1, *known)))
