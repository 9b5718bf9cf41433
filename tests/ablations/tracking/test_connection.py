"""Errors of the tracking store as messages: one that another version of MLflow made."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from ablations.tracking.connection import answering
from ablations.tracking.runs_folder import check
from rrpo.errors import InputError


def test_a_store_of_another_mlflow_says_how_to_update_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = MlflowException("Detected out-of-date database schema (found version a, but expected b). Take a backup")
    with (
        pytest.raises(InputError, match=r"mlflow db upgrade sqlite:///\S+mlflow.db; or install"),
        answering(check(runs)),
    ):
        raise error
    with pytest.raises(MlflowException, match="other"), answering(check(runs)):
        raise MlflowException("other")
