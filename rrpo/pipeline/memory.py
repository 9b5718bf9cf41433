"""Peak GPU memory of a build, so that several builds can share a GPU. Imports torch only if a build has done so."""

from __future__ import annotations

import sys


def forget_peak(device: str) -> None:
    """Reset the peak, and release what earlier builds of this process left in torch's cache."""
    if device == "cuda" and "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def peak_device_mib(device: str) -> int | None:
    """Return the peak MiB reserved by torch's allocator on the GPU since `forget_peak`, without CUDA's context; None on the
    CPU."""
    if device != "cuda":
        return None
    if "torch" not in sys.modules:
        return 0
    import torch

    return round(torch.cuda.max_memory_reserved() / 2**20)
