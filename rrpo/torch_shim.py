"""Make torchaudio importable beside a CPU build of torch.

The registry's torchaudio wheel is linked to CUDA, and its ``_extension`` package loads that library on import. Beside a CPU
torch this raises, and so does everything that imports torchaudio (such as transformers). All functions used here
(MelSpectrogram, Resample, mel filters, DCT, edit distance) are plain Python, so a stub that reports "no extension" replaces
``torchaudio._extension``. Neither torch nor torchaudio is imported for the check: it reads the installed torch's ``version.py``
as text.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

_NAME = "torchaudio._extension"


def torch_is_cpu_only() -> bool:
    """Return whether the installed torch was built without CUDA, without importing it; False if torch is missing."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b[^=\n]*=\s*None", version.read_text(), re.MULTILINE) is not None


def install() -> bool:
    """Put the stub into ``sys.modules`` if it is needed and torchaudio is not imported yet. Return whether the stub is in
    place."""
    if _NAME not in sys.modules and torch_is_cpu_only():
        sys.modules[_NAME] = _stand_in()
    return getattr(sys.modules.get(_NAME), "stand_in", False)


def _stand_in() -> ModuleType:
    module = ModuleType(_NAME, "Stand-in: this torchaudio runs without its compiled extension.")
    vars(module).update(
        stand_in=True,
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _load_lib=lambda name: False,
        fail_if_no_align=lambda function: function,
    )
    return module
