"""Makes `fakes` importable here and, since a spawned worker inherits ``sys.path``, in workers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fixtures import run, runs, template  # noqa: F401
