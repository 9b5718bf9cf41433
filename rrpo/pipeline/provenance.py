"""Provenance of a stage: source, processor, threads, torch. Imports no torch itself; a build has already done so."""

from __future__ import annotations

import hashlib
import platform
import sys
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def source_hash() -> str:
    """Return 16 hex digits: a hash of this package's source files, the same wherever the same code runs, committed or not."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: path.relative_to(PACKAGE).as_posix()):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def processor() -> str:
    """Return the CPU's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def built_with(device: str) -> dict[str, str | int]:
    """Return the provenance as stored in a stage's marker."""
    record: dict[str, str | int] = {
        "python": platform.python_version(),
        "source": source_hash(),
        "processor": processor(),
    }
    if torch := sys.modules.get("torch"):
        record |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if device == "cuda":
            record["gpu"] = torch.cuda.get_device_name()
    return record
