"""Makes torchaudio importable beside a CPU build of torch.

The registry's torchaudio wheel is linked to CUDA, and its ``_extension`` package loads that library on import. Beside
a CPU torch this raises, and so does whatever imports torchaudio (transformers does). Everything used here
(MelSpectrogram, griffin-lim, Resample) is plain Python, so a stand-in that says "no extension" takes the place of
``torchaudio._extension``. Neither torch nor torchaudio is imported to find out: the installed torch's ``version.py``
is read as text.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "torchaudio._extension"


def torch_is_cpu_only() -> bool:
    """Whether the installed torch was built without CUDA; False when there is no torch. Does not import it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b[^=\n]*=\s*None", version.read_text(), re.MULTILINE) is not None


def install() -> bool:
    """Puts the stand-in into ``sys.modules`` if it is needed and torchaudio is not imported yet; says whether it is
    there.
    """
    if _NAME not in sys.modules and torch_is_cpu_only():
        sys.modules[_NAME] = _stand_in()
    return getattr(sys.modules.get(_NAME), "stand_in", False)


def _stand_in() -> ModuleType:
    def fail_if_no_align(function: Any) -> Any:
        return function

    module = ModuleType(_NAME, "Stand-in: this torchaudio runs without its compiled extension.")
    vars(module).update(
        stand_in=True,
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _load_lib=lambda name: False,
        fail_if_no_align=fail_if_no_align,
    )
    return module
