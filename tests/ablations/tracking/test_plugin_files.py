"""Plugin files in a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablations.tracking import plugin_files
from rrpo import plugins


@pytest.mark.parametrize("edited", [True, False])
def test_a_plugin_is_stored_as_it_was_loaded(tmp_path: Path, no_plugins: Callable[[], None], edited: bool):
    path = tmp_path / "mine.py"
    path.write_text("LOADED = True\n")
    source = plugins.load(path)
    if edited:
        path.write_text("LOADED = False\n")
    else:
        path.unlink()
    assert plugin_files.copies() == {f"plugins/{source}/mine.py": "LOADED = True\n"}
