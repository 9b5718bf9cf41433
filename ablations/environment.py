"""What a run was made with: git state, package versions, device. Imports neither torch nor MLflow."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ablations.errors import InputError, choose

PACKAGES = (
    *("torch", "torchaudio", "transformers", "vector-quantize-pytorch", "espeakng-loader", "soundfile"),
    *("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "mlflow"),
)
SOURCE = Path(__file__).resolve().parent.parent


def git_state() -> dict[str, str]:
    """Tags ``git_sha`` and ``dirty`` of the source tree; ``unknown`` where it is no repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    sha = git("rev-parse", "HEAD")
    status = git("status", "--porcelain")
    return {
        "git_sha": sha or "unknown",
        "dirty": "unknown" if sha is None or status is None else str(bool(status)).lower(),
    }


def describe(device: str) -> dict[str, str]:
    """Versions and machine, as the artifact ``environment.json`` lists them."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def resolve_device(name: str, *, elsewhere: bool = False) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes a GPU when the driver and torch's build both have one.

    Where tasks run ``elsewhere``, this machine's lack of a GPU says nothing against ``cuda``, and ``auto`` still goes by it.

    Raises InputError for an unknown name, and for ``cuda`` where there is none.
    """
    choose("device", name, ("auto", "cpu", "cuda"))
    if name == "cpu" or (name == "cuda" and elsewhere):
        return name
    missing = _no_gpu()
    if missing and name == "cuda":
        raise InputError("there is no GPU to run on", got=f"--device cuda ({missing})", fix="use --device cpu or auto")
    return "cpu" if missing else "cuda"


def _no_gpu() -> str:
    """Why no GPU can be used, or nothing. Asks the driver and torch's version file: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    text = Path(spec.origin).with_name("version.py").read_text()
    if re.search(r"^cuda\b[^=]*= *None", text, re.MULTILINE):
        return "torch is a CPU build"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return "no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the driver sees no GPU"
    return ""
