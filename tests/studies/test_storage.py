"""A study's storage: identity, what differs, and every way in which it cannot be used, in one message."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rrpo.errors import InputError
from studies import storage
from studies.storage import differences, open_storage, open_study, reach, shown


def test_a_changed_space_is_refused_with_what_differs(tmp_path: Path):
    opened = open_storage(None, tmp_path)
    identity = {"space": {"epsilon": "0..0.3", "alpha": "0..2"}, "seeds": [1000, 1001]}
    open_study(opened, "t", ["maximize"], identity)
    assert open_study(opened, "t", ["maximize"], identity).study_name == "t"
    with pytest.raises(InputError) as caught:
        open_study(opened, "t", ["maximize"], {"space": {"epsilon": "0..0.5", "alpha": "0..2"}, "seeds": [1000]})
    assert "seeds: was [1000, 1001], now [1000]; space.epsilon: was 0..0.3, now 0..0.5" in str(caught.value)


def test_differences_name_leaves_that_came_and_went():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}) == [
        "a.c: was 2, now absent",
        "a.d: was absent, now 3",
    ]
    assert differences({}, {"stages": {"sft": "a"}}) == ["stages.sft: was absent, now a"]


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "check the URL"),
        ("mysql://nobody@127.0.0.1:1/none", "check the URL"),
        ("nonsense", "check the URL"),
        ("nosuch://host/db", "check the URL"),
        ("sqlite:////nowhere/at/all.db", "check the URL"),
        ("postgresql+pg8000://nobody@127.0.0.1:1/none", "[databases]"),
    ],
)
def test_a_storage_out_of_reach_gets_one_message_and_nothing_is_written(tmp_path: Path, url: str, fix: str):
    folder = tmp_path / "study"
    with pytest.raises(InputError, match="cannot be opened") as caught:
        reach(url)
    assert fix in str(caught.value)
    assert not folder.exists()
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage(url, folder)


def test_a_locked_database_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"sqlite:///{tmp_path}/s.db"
    open_study(open_storage(url, tmp_path), "t", ["maximize"], {})
    monkeypatch.setattr(storage, "PATIENCE", 1)
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(InputError, match="locked") as caught:
            open_study(open_storage(url, tmp_path), "t", ["maximize"], {})
    finally:
        connection.close()
    assert "end the process that holds" in str(caught.value)


def test_a_lock_that_is_never_given_back_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    with storage.FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="end the process that holds the lock"):
        open_storage(None, tmp_path)


def test_a_database_of_another_version_is_called_that(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/s.db"
    open_storage(url, tmp_path)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(InputError, match="cannot be opened") as caught:
        open_storage(url, tmp_path)
    assert "optuna storage upgrade" in str(caught.value)


def test_a_database_of_another_program_is_refused(tmp_path: Path):
    import optuna

    url = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=url, study_name="t").add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(InputError, match="not made by this program"):
        open_study(open_storage(url, tmp_path), "t", ["minimize"], {"space": {}})


def test_a_damaged_journal_is_named_with_what_to_do(tmp_path: Path):
    (tmp_path / "journal.log").write_text("this is no journal\n" * 3)
    with pytest.raises(InputError, match=r"journal\.log") as caught:
        open_study(open_storage(None, tmp_path), "t", ["maximize"], {})
    assert "move" in str(caught.value)


def test_a_password_is_never_shown():
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    with pytest.raises(InputError) as caught:
        reach("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
