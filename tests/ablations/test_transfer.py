"""The command that measures the transfer matrix; `tests/rrpo/judges` tests the matrix itself."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from typer.testing import CliRunner

from ablations import transfer


def test_a_server_that_died_is_told_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "comparable", lambda *arguments: [fakes.cells(["diffro", "rrpo"], [1])])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = CliRunner().invoke(transfer.app, ["--grid", "tiny", "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert "the tracking store does not answer" in result.output
    assert not (tmp_path / "runs" / "stages").exists()
