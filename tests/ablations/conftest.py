"""Make `fakes` importable here and in spawned workers, which inherit ``sys.path``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fixtures import run, runs, template, undrawn  # noqa: F401
