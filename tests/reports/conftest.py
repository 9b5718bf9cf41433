"""Makes `fakes` of ``tests/ablations`` importable here and, by ``sys.path``, in spawned workers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ablations"))

from fixtures import run, runs, template  # noqa: F401
