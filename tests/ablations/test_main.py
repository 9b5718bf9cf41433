"""``rrpo COMMAND``."""

from __future__ import annotations

import importlib
import sys

import pytest

from ablations import main as dispatcher
from ablations.main import COMMANDS, EXAMPLES, usage


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["rrpo", *arguments])
    dispatcher.main()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str):
    assert callable(importlib.import_module(COMMANDS[name].module).main)


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
):
    run(monkeypatch, *arguments)
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert sum(line.split()[:1] == [name] and line.endswith(command.text) for line in lines) == 1
    assert usage().endswith(EXAMPLES[1])


def test_a_command_gets_its_own_options_and_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "run", "--help")
    assert ended.value.code == 0
    assert "Usage: rrpo run [OPTIONS]" in capsys.readouterr().out


def test_a_command_that_is_not_there_is_told_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "reprot")
    assert ended.value.code == 2
    assert "did you mean report?" in capsys.readouterr().err
