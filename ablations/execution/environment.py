"""The machine and software that run a command: devices, and package versions. Imports neither torch nor MLflow."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from ablations.tracking.source_version import git_state
from rrpo.errors import InputError, choose
from rrpo.pipeline.provenance import processor
from rrpo.torch_shim import torch_is_cpu_only

PACKAGES = (
    *("torch", "torchaudio", "transformers", "vector-quantize-pytorch", "espeakng-loader", "soundfile"),
    *("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "mlflow"),
)
DRIVER = "libcuda.so.1"


def describe(device: str) -> dict[str, str]:
    """Return package versions, machine and provenance tags, as written to the artifact ``environment.json``."""
    described = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "processor": processor(),
        "cpus": str(os.cpu_count()),
    }
    if device == "cuda":
        described["gpu"] = next((model for model, _ in _devices()), "unknown")
    for name in PACKAGES:
        try:
            described[name] = version(name)
        except PackageNotFoundError:
            described[name] = "not installed"
    return described | git_state()


def resolve_device(name: str, *, elsewhere: bool = False) -> str:
    """Resolve a device name to ``cpu`` or ``cuda``. ``auto`` selects the GPU if both the driver and torch's build support one.

    If tasks run ``elsewhere`` (on a cluster), ``cuda`` is accepted without a local GPU; ``auto`` still depends on this machine.

    Raises:
        InputError: The name is unknown, or it is ``cuda`` and there is no GPU.
    """
    choose("device", name, ("auto", "cpu", "cuda"))
    if name == "cpu" or (name == "cuda" and elsewhere):
        return name
    missing = _no_gpu()
    if missing and name == "cuda":
        raise InputError("there is no GPU to run on", got=f"--device cuda ({missing})", fix="use --device cpu or auto")
    return "cpu" if missing else "cuda"


def _no_gpu() -> str:
    """Return why no GPU can be used, empty if one can. Torch is not imported."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if torch_is_cpu_only():
        return "torch is a CPU build"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    return "" if _devices() else f"no NVIDIA driver, or it shows no GPU; CUDA_VISIBLE_DEVICES is {visible or 'empty'}"


def gpus() -> dict[str, int]:
    """Return the visible GPUs: name as in CUDA_VISIBLE_DEVICES -> memory in MiB; empty if there are none."""
    if _no_gpu():
        return {}
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return {names[i] if i < len(names) else str(i): memory for i, (_, memory) in enumerate(_devices())}


@cache
def _devices() -> list[tuple[str, int]]:
    """Return the model and the memory in MiB of each GPU that CUDA_VISIBLE_DEVICES leaves visible, as the driver reports them."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return []
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    devices = []
    for index in range(count.value):
        device, size, model = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        driver.cuDeviceGetName(model, len(model), device)
        devices.append((model.value.decode(errors="replace"), size.value // 2**20))
    return devices
