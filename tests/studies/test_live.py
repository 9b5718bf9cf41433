"""What is printed about a trial."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from optuna.trial import TrialState
from rich.console import Console
from test_mlflow_bridge import add, bridge
from test_options import command

from ablations.execution.launchers.pool import Task
from studies import opening
from studies.live import SearchRun


def test_a_pruned_trial_has_no_value_and_a_complete_one_has(tmp_path: Path):
    checked = command(tmp_path)
    study = opening.opened(checked)
    pruned = study.ask(dict(checked.definition.space))
    pruned.report(-0.7, 5)
    study.tell(pruned, state=TrialState.PRUNED)
    add(study, checked, 0.1)
    text = StringIO()
    running = SearchRun(checked, study, bridge(checked, study), Console(file=text, width=200))
    for number in (0, 1):
        task = Task(key=f"trial-{number}", title="trial", function="", arguments=())
        running.finished(task, number, 1.0)
    assert "number 0 pruned" in text.getvalue()
    assert "number 1: clean_success +0.1000" in text.getvalue()
    assert "-0.7" not in text.getvalue()
    done = f"trial 2 of {checked.trials} done"
    assert text.getvalue().count(done) == 2, "all trials of the study count, whoever ran them"
    assert re.search(r"left: about \S.* · best \+0\.1000 \(number 1\)", text.getvalue())


def test_with_several_objectives_the_size_of_the_front_is_printed(tmp_path: Path):
    checked = command(tmp_path, objectives="clean_success,hacked_share")
    study = opening.opened(checked)
    for values in ([0.6, 0.3], [0.5, 0.2], [0.4, 0.4]):
        study.tell(study.ask(dict(checked.definition.space)), values)
    text = StringIO()
    running = SearchRun(checked, study, bridge(checked, study), Console(file=text, width=200))
    running.finished(Task(key="trial-2", title="trial", function="", arguments=()), 2, 1.0)
    assert "front of 2" in text.getvalue()
