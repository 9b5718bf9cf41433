"""Machine, software and command as recorded with every run."""

from __future__ import annotations

import pytest

from ablations.execution.environment import PACKAGES, describe
from ablations.tracking.source_version import git_state


def test_the_environment_names_versions_machine_and_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["/a/b/run.py", "--grid", "my grid"])
    git_state.cache_clear()
    described = describe("cpu")
    git_state.cache_clear()
    assert described["command"] == "run.py --grid 'my grid'"
    assert described["processor"]
    assert described["device"] == "cpu"
    assert all(name in described for name in PACKAGES)
