"""``--set`` and ``--plugin`` of `ablations.run`: plans, refused values, and records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from fixtures import Run
from typer.testing import CliRunner, Result

from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.parameters import differing, distinguishing, headings
from ablations.run import app
from ablations.tracking.reader import Store
from ablations.tracking.recorder import cell_params
from ablations.tracking.runs_folder import check
from rrpo import plugins
from rrpo.arms import ARMS, arm
from rrpo.profiles import PROFILES
from rrpo.settings import changed

BETA = PROFILES["quick"].optimize.beta


def call(*arguments: str, runs: Path) -> Result:
    return CliRunner().invoke(app, ["--runs-dir", str(runs), *arguments], env={"COLUMNS": "200"})


def test_a_plan_says_what_is_set_and_what_the_arms_differ_in(tmp_path: Path):
    result = call("--grid", "smoke", "--set", "optimize.beta=0.01", "--plan", runs=tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert f"set optimize.beta = 0.01 (was {BETA})" in result.output
    assert "  diffro                   epsilon 0.0, mix_probability 0.0, alpha 0.0" in result.output
    assert "  rrpo                     epsilon 0.1, mix_probability 1.0, alpha 0.5" in result.output
    assert not (tmp_path / "runs").exists()


def test_cells_with_a_setting_are_others_under_another_profile(tmp_path: Path):
    plain = request(Options(grid="smoke", runs_dir=tmp_path))
    same = request(Options(grid="smoke", settings=[f"optimize.beta={BETA}"], runs_dir=tmp_path))
    with_settings = request(Options(grid="smoke", settings=["optimize.beta=0.01", "annotated=50"], runs_dir=tmp_path))
    assert [cell.hash for cell in same.cells] == [cell.hash for cell in plain.cells]
    assert same.settings == ()
    assert {cell.hash for cell in with_settings.cells}.isdisjoint(cell.hash for cell in plain.cells)
    assert {cell.profile.name for cell in with_settings.cells} == {"quick+annotated=50+optimize.beta=0.01"}
    assert {cell.world_hash for cell in with_settings.cells} == {cell.world_hash for cell in plain.cells}


def test_a_setting_beside_a_batch_scale_holds_as_it_is_given(tmp_path: Path):
    checked = request(Options(grid="smoke", batch_scale=2, settings=["sft.batch=4"], runs_dir=tmp_path))
    profile = checked.cells[0].profile
    assert (profile.sft.batch, profile.pretrain.batch) == (4, 2 * PROFILES["quick"].pretrain.batch)
    assert profile.name == "quick-b2+sft.batch=4"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("optimise.beta=1", ["no setting of that name", "nearest: optimize.beta"]),
        ("optimize.beta=x", ["optimize.beta takes a number"]),
        ("optimize.beta=-1", ["out of its range: beta must be in [0, inf)"]),
        ("zero_shot.steps=300", ["changes nothing here", "no stage of this run uses it"]),
        ("finetune.regularizers.epsilon=0.2", ["changes nothing here", "every arm sets it itself"]),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path: Path, option: str, words: list[str]):
    result = call("--grid", "smoke", "--set", option, runs=tmp_path / "runs")
    assert result.exit_code == 2
    for word in [*words, "got: ", "fix: "]:
        assert word in result.output
    assert not (tmp_path / "runs").exists()


def test_a_record_says_what_the_cell_ran_with_and_keeps_the_whole_config(run: Run, runs: Path, tmp_path: Path):
    profile = changed(fakes.PROFILE, {"optimize.beta": 0.5})
    cells = [replace(cell, profile=profile) for cell in fakes.cells(["rrpo"], [1])]
    run(cells, workers=1, settings=("optimize.beta = 0.5 (was 0.001)",))
    store = Store(check(runs))
    (record,) = store.records("tiny")
    ran_with = {name: value for name, value in record.params.items() if name != "invocation"}
    assert ran_with == cell_params(cells[0])
    assert record.params["profile"] == record.profile == "smoke+optimize.beta=0.5"
    assert record.config["profile.optimize.beta"] == "0.5"
    (parent,) = store.runs("tiny", "parent")
    assert parent.data.params["set"] == "optimize.beta = 0.5 (was 0.001)"


def test_a_plugin_is_kept_with_every_run(run: Run, runs: Path, tmp_path: Path, no_plugins: Callable[[], None]):
    (tmp_path / "mine.py").write_text("# mine\n")
    plugins.use([tmp_path / "mine.py"])
    source = plugins.loaded()[tmp_path / "mine.py"]
    run(fakes.cells(["rrpo"], [1]), workers=1)
    store = Store(check(runs))
    (record,), (parent,) = store.records("tiny"), store.runs("tiny", "parent")
    for folder in (record.folder, store.artifacts_of(parent)):
        assert (folder / "plugins" / source / "mine.py").read_text() == "# mine\n"
    assert record.tags["plugins"] == parent.data.tags["plugins"] == f'{{"{source}": "mine.py"}}'


def test_a_broken_plugin_is_refused_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    result = call("--grid", "nosuch", "--plugin", str(tmp_path / "broken.py"), runs=tmp_path / "runs")
    assert result.exit_code == 2
    assert "got: ZeroDivisionError: division by zero" in result.output


def test_parameters_in_which_arms_differ_have_short_names():
    arms = {
        "a": {"label": "a", "x.steps": "1", "y.steps": "2", "y.lr": "1", "z.only": "1"},
        "b": {"label": "b", "x.steps": "2", "y.steps": "3", "y.lr": "1"},
    }
    assert differing(arms) == ["x.steps", "y.steps"]
    assert headings(["x.steps", "y.lr"], arms) == {"x.steps": "x.steps", "y.lr": "lr"}
    assert distinguishing(arms) == {"a": "x.steps 1, y.steps 2", "b": "x.steps 2, y.steps 3"}
    assert distinguishing(arms | {"c": arms["a"]}) == {"a": "nothing", "b": "x.steps 2, y.steps 3", "c": "nothing"}
    assert distinguishing({"a": arms["a"]}) == {}
    assert distinguishing({"a": {"x": "1"}, "b": {"x": ""}}) == {"a": "x 1", "b": "nothing"}, (
        "what is empty is not told"
    )


def test_the_factorial_is_the_same_by_components_and_by_name():
    from ablations.components import factorial
    from ablations.grids import arms

    known = arms()
    assert {name: arm(name) for name in factorial()} == {name: known[name] for name in factorial()}
    assert ARMS.items() <= known.items()
