"""How much of a GPU a build took, so that several can share one. Imports torch only where a build has."""

from __future__ import annotations

import sys


def forget_peak(device: str) -> None:
    """Begin to measure anew; what former builds of this process left in torch's cache is given back."""
    if device == "cuda" and "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def peak_device_mib(device: str) -> int | None:
    """Most MiB that torch's allocator held on the GPU since `forget_peak`, without CUDA's own context; None on the CPU."""
    if device != "cuda":
        return None
    if "torch" not in sys.modules:
        return 0
    import torch

    return round(torch.cuda.max_memory_reserved() / 2**20)
