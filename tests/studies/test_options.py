"""Options and the study they open: warm start, first points, resuming, export; bad input gets one message and writes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import create_trial
from typer.testing import CliRunner

from ablations.execution import estimate
from ablations.execution.estimate import Estimator, wall
from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.grids import arms
from rrpo.errors import InputError
from rrpo.pipeline.stages import MARKER
from rrpo.pipeline.versions import VERSIONS
from studies import opening, options
from studies.export import export
from studies.fresh import baseline
from studies.opening import first_points, identity
from studies.preview import own, preview, shared
from studies.run import app
from studies.samplers import GIVEN, SAMPLER
from studies.search import OUTCOMES, Search


def command(tmp_path: Path, **changed: Any) -> Search:
    fields: dict[str, Any] = {
        "study": "regularizers",
        "trials": 8,
        "seeds": 2,
        "profile": "smoke",
        "device": "cpu",
        "runs_dir": tmp_path / "runs",
        "workers": 2,
    }
    return options.checked(options.Options(**(fields | changed)))


def test_a_machine_without_a_gpu_can_start_trials_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ablations.execution.environment.gpus", dict)
    assert command(tmp_path, device="cuda", launcher="slurm").spec.device == "cuda"
    with pytest.raises(InputError, match="GPU"):
        command(tmp_path, device="cuda")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--study", "nosuch"], "use one of: regularizers, regularizers-relative, policy, rm, tune-arm"),
        (["--study", "rm", "--arm", "rrpo"], "--arm is only for tune-arm"),
        (["--study", "tune-arm", "--arm", "placebo"], "use one of: "),
        (["--study", "rm", "--objectives", "mos"], "no objective of that name"),
        (["--study", "rm", "--objectives", "uptake,"], "no objective of that name"),
        (["--study", "rm", "--first-seed", "1"], "development seeds only"),
        (["--study", "rm", "--first-seed", "1998", "--seeds", "3"], "development seeds only"),
        (["--study", "rm", "--trials", "0"], "--trials"),
        (["--study", "rm", "--workers", "0"], "--workers"),
        (["--study", "rm", "--sampler", "grid"], "use one of: tpe, gp"),
        (["--study", "rm", "--pruner", "wish"], "use one of: median"),
        (["--study", "rm", "--world", "-1"], "--world must not be negative"),
        (["--study", "rm", "--profile", "huge"], "use one of: smoke, embedded"),
        (["--study", "rm", "--profile", "paper"], "this command works in the simulated world only"),
        (["--study", "rm", "--launcher", "cloud"], "use one of: local, ray, slurm"),
        (["--study", "rm", "--export-arm", "a b"], "plain name"),
        (["--study", "rm", "--export-arm", "rrpo"], "an arm of the grids has that name"),
        (["--study", "rm", "--name", "../up"], "the name of a study is invalid"),
        (["--study", "rm", "--name", ".."], "do not start with a hyphen or a dot"),
        (["--study", "rm", "--name", "-a"], "do not start with a hyphen or a dot"),
        (["--study", "rm", "--verify", "-1"], "give 0 (none) to 20"),
        (["--study", "rm", "--warm-start", "nosuch"], "no study of that name"),
        (["--study", "rm", "--against", "nosuch"], "no study of that name"),
        (["--study", "rm", "--range", "epsilon"], "--range takes NAME=LOW:HIGH"),
        (["--study", "rm", "--range", "lr=0:1"], "use one of: epsilon"),
        (["--study", "rm", "--range", "epsilon=0.3:0.1"], "a range is invalid"),
        (["--study", "rm", "--range", "epsilon=0:1.5"], "epsilon must be finite and within 0 to 1, got 1.5"),
        (["--study", "rm", "--range", "epsilon=0.2:0.3"], "does not contain the baseline value"),
        (["--study", "rm", "--range", "epsilon_adv=0:1"], "a range is invalid"),
        (["--study", "rm", "--range", "alpha=0:inf"], "alpha must be finite and within 0 to inf, got inf"),
        (["--study", "rm", "--range", "alpha=nan:2"], "does not contain the baseline value"),
        (["--study", "policy", "--range", "tau=0:1"], "--range is only for numeric hyperparameters"),
        (["--study", "rm", "--storage", "postgresql://nobody:secret@127.0.0.1:1/none"], "cannot be opened"),
        (["--study", "rm", "--storage", "nonsense"], "cannot be opened"),
    ],
)
def test_bad_input_gets_one_message_and_writes_nothing(tmp_path: Path, arguments: list[str], words: str):
    result = CliRunner().invoke(app, [*arguments, "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "fix:" in result.output
    assert "secret" not in result.output
    assert not (tmp_path / "runs").exists()


def test_the_papers_point_is_first_and_enqueued_once(tmp_path: Path):
    checked_command = command(tmp_path)
    for _ in range(2):
        study = opening.opened(checked_command)
        (first,) = study.trials
        assert first.system_attrs["fixed_params"] == checked_command.definition.paper
        assert first.user_attrs == {SAMPLER: GIVEN}


def test_a_changed_space_or_seed_is_refused_with_what_differs(tmp_path: Path):
    opening.opened(command(tmp_path))
    with pytest.raises(InputError) as caught:
        opening.opened(command(tmp_path, ranges=("epsilon=0:0.2",), seeds=3, objectives="hacked_share"))
    text = str(caught.value)
    assert "space.epsilon: was 0.0..0.3, now 0.0..0.2" in text
    assert "seeds: was [1000, 1001], now [1000, 1001, 1002]" in text
    assert "objectives: was ['clean_success'], now ['hacked_share']" in text


def test_a_setting_makes_another_study_with_a_name_of_its_own(tmp_path: Path):
    plain, changed = command(tmp_path), command(tmp_path, settings=["optimize.beta=0.5"])
    assert (plain.name, changed.name) == ("regularizers-smoke", "regularizers-smoke-optimize.beta-0.5")
    assert changed.spec.profile.optimize.beta == 0.5
    assert identity(changed)["profile"] == "smoke+optimize.beta=0.5"
    assert identity(changed)["stages"]["optimize"] != identity(plain)["stages"]["optimize"]
    with pytest.raises(InputError, match="changes nothing here"):
        command(tmp_path, settings=["finetune.regularizers.epsilon=0.2"])


def test_an_objective_that_is_named_twice_counts_once(tmp_path: Path):
    assert command(tmp_path, objectives="gold, uptake,gold").spec.objectives == ("gold", "uptake")


@pytest.mark.parametrize("name", ["2024-a", "a.b_c-1", "_x", "7"])
def test_a_studys_name_may_begin_with_a_digit(tmp_path: Path, name: str):
    assert command(tmp_path, name=name).name == name


@pytest.mark.parametrize(("study", "objective"), [("regularizers", "clean_success"), ("rm", "robustness")])
def test_changed_pretraining_is_refused_by_the_stages_that_it_changes(tmp_path: Path, study: str, objective: str):
    checked_command = command(tmp_path, study=study, objectives=objective, name="s")
    opening.opened(checked_command)
    spec = checked_command.spec
    changed = replace(spec.profile, pretrain=replace(spec.profile.pretrain, steps=7))
    changed_command = replace(checked_command, spec=replace(spec, profile=changed))
    with pytest.raises(InputError) as caught:
        opening.opened(changed_command)
    for stage in ("stages.pretrain: was ", "stages.finetune: was "):
        assert stage in str(caught.value)
    assert "stages.codec" not in str(caught.value)


def test_a_study_of_another_world_has_its_own_name_and_identity(tmp_path: Path):
    installed, other_world = (command(tmp_path, world_seed=world) for world in (0, 1))
    assert (installed.name, other_world.name) == ("regularizers-smoke", "regularizers-smoke-world1")
    assert other_world.spec.profile.world.seed == 1
    assert (identity(installed)["profile"], identity(other_world)["profile"]) == ("smoke", "smoke-world1")
    assert command(tmp_path, world_seed=1, study="tune-arm", arm="rrpo").against == "tune-diffro-smoke-world1"


def test_a_new_version_of_a_stage_is_another_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys are cached by stage and stages by profile, so the second profile is another."""
    search = command(tmp_path)
    before = identity(search)
    monkeypatch.setitem(VERSIONS, "finetune", VERSIONS["finetune"] + 1)
    renamed = replace(search.spec.profile, name="smoke again")
    after = identity(replace(search, spec=replace(search.spec, profile=renamed)))
    changed = {name for name, keys in after["stages"].items() if keys != before["stages"][name]}
    assert changed == {"finetune", "optimize", "assess"}


def filled(search: Search, points: list[dict[str, float]], values: list[list[float]]) -> optuna.Study:
    study = opening.opened(search)
    space = dict(search.definition.space)
    for point, value in zip(points, values, strict=True):
        params = dict(search.definition.paper) | point
        outcomes = {seed: dict(zip(search.spec.objectives, value, strict=True)) for seed in search.spec.seeds}
        study.add_trial(create_trial(params=params, distributions=space, values=value, user_attrs={OUTCOMES: outcomes}))
    return study


def test_an_unknown_warm_start_in_a_database_leaves_a_runs_folder_that_can_be_used(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    with pytest.raises(InputError, match="no study of that name"):
        opening.opened(command(tmp_path, storage=storage, warm_start="nosuch"))
    corrected = command(tmp_path, storage=storage)
    assert corrected.name not in optuna.get_all_study_names(storage), "nothing was begun"
    opening.opened(corrected)


def test_a_warm_start_takes_the_best_points_of_a_cheaper_study(tmp_path: Path):
    """The front of the `rm` study, the best first; its other points and knobs out of range are left."""
    rm = command(tmp_path, study="rm")
    points = [{"epsilon": 0.05}, {"epsilon": 0.25}, {"epsilon": 0.01}]
    filled(rm, points, [[0.6, 0.5], [0.7, 0.4], [0.5, 0.4]])
    checked_command = command(tmp_path, warm_start="rm-smoke", ranges=("epsilon=0:0.2",))
    paper = dict(checked_command.definition.paper)
    expected = [paper, paper, paper | {"epsilon": 0.05}]
    assert first_points(checked_command) == expected, "epsilon .25 is out of this study's range"
    study = opening.opened(checked_command)
    assert [t.system_attrs["fixed_params"] for t in study.trials] == [paper, paper | {"epsilon": 0.05}]


def test_a_warm_start_from_one_objective_takes_its_best(tmp_path: Path):
    search = command(tmp_path, name="cheap")
    filled(search, [{"epsilon": 0.02 * k} for k in range(8)], [[float(k)] for k in range(8)])
    points = first_points(command(tmp_path, warm_start="cheap"))
    assert [round(point["epsilon"], 2) for point in points] == [0.1, 0.14, 0.12, 0.1, 0.08, 0.06]


def test_a_warm_start_of_a_study_that_has_begun_adds_its_points_once(tmp_path: Path):
    filled(command(tmp_path, study="rm"), [{"epsilon": 0.05}], [[0.6, 0.5]])
    opening.opened(command(tmp_path, name="late"))
    late = command(tmp_path, name="late", warm_start="rm-smoke")
    paper = dict(late.definition.paper)
    for _ in range(2):
        points = [trial.system_attrs["fixed_params"] for trial in opening.opened(late).trials]
        assert points == [paper, paper | {"epsilon": 0.05}]


def test_shared_stages_are_those_that_no_knob_moves(tmp_path: Path):
    names = [stage.name for stage in shared(command(tmp_path))]
    assert names.count("sft") == names.count("pretrain") == 2
    assert names.count("optimize") == names.count("assess") == 2, "of the SFT policy alone"
    assert "finetune" not in names
    per_seed = ["assess"] * 2 + ["finetune"] * 2 + ["optimize"] * 2
    assert sorted(stage.name for stage in own(command(tmp_path))) == per_seed
    policy = command(tmp_path, study="policy")
    assert sorted(stage.name for stage in own(policy)) == ["assess"] * 2 + ["optimize"] * 2
    assert [stage.name for stage in shared(policy)].count("finetune") == 2, "each reward model once for all trials"
    rm = command(tmp_path, study="rm")
    assert sorted(stage.name for stage in own(rm)) == ["examine"] * 2 + ["finetune"] * 2
    assert "optimize" not in {stage.name for stage in shared(rm)}


def test_the_hours_are_told_from_measured_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "none.csv").write_text("stage,sizes,device,seconds,bytes\n")
    monkeypatch.setattr(estimate, "REFERENCE", tmp_path / "none.csv")
    checked_command = command(tmp_path, study="policy", trials=7)
    study = opening.opened(checked_command)
    assert "unknown: nothing of this kind" in preview(checked_command, study, shared(checked_command))[-1]
    store = checked_command.spec.store
    for stage in [*shared(checked_command), *own(checked_command)]:
        folder = store / "stages" / f"{stage.name}-{stage.key[:18]}xx"  # another's, of the same size
        folder.mkdir(parents=True)
        seconds = 600.0 if stage.name == "optimize" else 60.0
        past = {"name": stage.name, "config": opening.canonical(stage.config), "seconds": seconds, "device": "cpu"}
        (folder / MARKER).write_text(json.dumps(past | {"bytes": 1}))
    once = shared(checked_command)
    assert Estimator(store).total(own(checked_command)) == (1320.0, 0)
    line = preview(checked_command, study, once)[-1]
    first = f"{len(once)} stages that all trials share ({wall(once, Estimator(store), 2)}), then "
    assert f"{first}about 88 min for 7 trials of 22 min each" in line
    assert "then about 22 min for the comparison on 2 fresh seeds, less where it is built" in line
    assert "comparison" not in preview(replace(checked_command, verify=0), study, once)[-1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"objectives": "clean_success,uptake"}, "several objectives: no pruning"),
        ({"objectives": "phone_error_rate"}, "has no intermediate values"),
        ({}, "pruning uses the first seed only"),
        ({"sampler": "gp"}, "sampler gp learns nothing from pruned trials"),
        ({"study": "tune-arm", "arm": "rrpo"}, "needs the study tune-diffro-smoke, which does not exist yet"),
    ],
)
def test_what_pruning_cannot_do_is_said_before_the_start(tmp_path: Path, changed: dict[str, Any], words: str):
    checked_command = command(tmp_path, **changed)
    study = opening.opened(checked_command)
    assert any(words in line for line in preview(checked_command, study, ()))


def test_an_exported_arm_is_accepted_by_grids_with_its_provenance(tmp_path: Path):
    checked_command = command(tmp_path, name="tuning")
    study = filled(checked_command, [{"epsilon": 0.2}], [[0.3]])
    best = study.trials[-1]
    path = export(checked_command, study, best, "tuned", None)
    cells = request(
        Options(grid="full", profile="smoke", seeds=1, arms="diffro,tuned", runs_dir=tmp_path / "runs")
    ).cells
    assert [cell.label for cell in cells] == ["diffro", "tuned"]
    assert cells[1].arm == checked_command.definition.arm(best.params)
    provenance = json.loads(path.read_text())["provenance"]
    assert provenance["study"] == "tuning"
    assert provenance["params"] == best.params
    assert provenance["values"] == {"clean_success": 0.3}
    assert provenance["budget"] == {"trials": 1, "seeds": 2}
    assert {"git_sha", "dirty", "exported", "identity", "fresh_seeds"} <= provenance.keys()


def test_an_exported_name_is_never_given_to_another_arm(tmp_path: Path):
    checked_command = command(tmp_path, name="tuning")
    study = filled(checked_command, [{"epsilon": 0.2}, {"epsilon": 0.3}], [[0.3], [0.4]])
    export(checked_command, study, study.trials[1], "tuned", None)
    export(checked_command, study, study.trials[1], "tuned", None)
    with pytest.raises(InputError, match="another arm is stored under that name"):
        export(checked_command, study, study.trials[2], "tuned", None)


def test_an_arm_exported_before_an_option_existed_is_still_the_same_arm(tmp_path: Path):
    checked_command = command(tmp_path, name="tuning")
    study = filled(checked_command, [{"epsilon": 0.2}], [[0.3]])
    path = export(checked_command, study, study.trials[-1], "tuned", None)
    stored = json.loads(path.read_text())
    older = {name: value for name, value in stored["arm"].items() if value is not None}
    assert older != stored["arm"]
    path.write_text(json.dumps(stored | {"arm": older}))
    export(checked_command, study, study.trials[-1], "tuned", None)
    assert json.loads(path.read_text())["arm"] == stored["arm"]


def test_a_tuned_arm_meets_diffro_tuned_as_much_and_nothing_else(tmp_path: Path):
    checked_command = command(tmp_path, study="tune-arm", arm="rrpo")
    assert checked_command.against == "tune-diffro-smoke"
    assert command(tmp_path, study="tune-arm", arm="diffro").against == command(tmp_path).against == ""
    study = filled(checked_command, [{"lr": 2e-3}, {"lr": 3e-3}], [[0.3], [0.2]])
    with pytest.raises(InputError, match="there is no study of that name"):
        baseline(checked_command, study)
    diffro = command(tmp_path, study="tune-arm", arm="diffro")
    tuned = filled(diffro, [{"lr": 2e-3}], [[0.1]])
    with pytest.raises(InputError, match=r"not tuned as much as tune-rrpo-smoke\n  got: trials: was 1, now 2"):
        baseline(checked_command, study)
    space = dict(diffro.definition.space)
    params = dict(diffro.definition.paper) | {"lr": 4e-3}
    tuned.add_trial(create_trial(params=params, distributions=space, value=0.15, user_attrs={}))
    opponent = baseline(checked_command, study)
    assert opponent.name == "trial 2 of tune-diffro-smoke", "trial 0 waits: the point of the paper"
    assert opponent.arm == replace(arms()["diffro"], lr=4e-3, beta=params["beta"])
    narrow = command(tmp_path, study="tune-arm", arm="rrpo", ranges=["lr=1e-4:3e-3"], name="narrow")
    narrow_study = filled(narrow, [{"lr": 2e-3}, {"lr": 3e-3}], [[0.3], [0.2]])
    with pytest.raises(InputError, match="not tuned as much as narrow\n  got: range of lr: was"):
        baseline(narrow, narrow_study)
    tuned.enqueue_trial(params)
    tuned.ask()
    with pytest.raises(InputError, match="study tune-diffro-smoke is not finished"):
        baseline(checked_command, study)
    paper = baseline(replace(checked_command, against=""), study)
    assert (paper.name, paper.arm.regularizers) == ("the default values", arms()["rrpo"].regularizers)
