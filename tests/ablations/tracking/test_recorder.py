"""Tags of a run."""

from __future__ import annotations

import getpass
import os

import pytest

from ablations.tracking.recorder import source_tags


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_recorded_by_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    def getuser() -> str:
        raise error("uid not found")

    monkeypatch.setattr(getpass, "getuser", getuser)
    assert source_tags({})["mlflow.user"] == str(os.getuid())
