"""The display of a running grid."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from ablations.execution.estimate import Estimator
from ablations.execution.launchers.pool import Task
from ablations.execution.progress_display import JSON, QUIET, Display
from ablations.execution.time_left import TimeLeft
from ablations.failures import Failure

LEFT = TimeLeft([], {}, Estimator(Path("none")), 1)


def task(key: str, title: str) -> Task:
    return Task(key=key, title=title, function="m:f", arguments=())


def test_a_live_display_shows_workers_and_what_the_arms_have_come_to():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = Display(console, 4, 1, LEFT)
    display.so_far = Text("clean success 50.0 ± 3.0")
    display.started(task("optimize-a", "optimise rrpo/3"))
    console.print(display._render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("cells done: 1 of 4", "left: 0 s", "optimise rrpo/3", "clean success 50.0 ± 3.0"):
        assert words in text


def test_quiet_tells_failures_and_json_everything(capsys: pytest.CaptureFixture[str]):
    failure = Failure("diverged", "loss nan", Path("logs/x.log"), "optimise rrpo/3")
    for mode in (QUIET, JSON):
        console = Console(file=io.StringIO(), width=200)
        display = Display(console, 2, 0, LEFT, mode=mode)
        display.finished(task("cell-a", "rrpo/1"), None, 1.5)
        display.failed(task("optimize-b", "optimise rrpo/3"), failure)
        display.message("paused")
        text = console.file.getvalue()  # type: ignore[attr-defined]
        if mode == QUIET:
            assert "rrpo/1" not in text
            assert "FAILED optimise rrpo/3: diverged: loss nan" in text
            assert "paused" in text
        else:
            assert text == ""
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["finished", "failed", "message"]
    assert events[0] | {"time": 0} == {
        "event": "finished",
        "time": 0,
        "task": "rrpo/1",
        "seconds": 1.5,
        "done": 1,
        "of": 2,
    }
    assert [events[1]["kind"], events[1]["log"]] == ["diverged", "logs/x.log"]
