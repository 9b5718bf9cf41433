"""The public names, `rrpo.train`, and ``python -m rrpo``."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import rrpo

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "ablations"))

import fakes  # noqa: E402

from rrpo import __main__ as command  # noqa: E402
from rrpo import api, plugins  # noqa: E402
from rrpo.arms import arm  # noqa: E402
from rrpo.config import OFF, ArmConfig, EncoderConfig, PretrainConfig, RegularizerConfig, RewardModelConfig  # noqa: E402
from rrpo.corpus.config import ManifestConfig  # noqa: E402
from rrpo.errors import InputError  # noqa: E402
from rrpo.experiment.cell import Cell  # noqa: E402
from rrpo.experiment.effective import effective  # noqa: E402
from rrpo.profiles import PROFILES  # noqa: E402


def test_every_public_name_is_there_and_importing_the_package_imports_nothing_heavy():
    names = "all(getattr(rrpo, name) is not None for name in rrpo.__all__)"
    script = f"import sys, rrpo\nassert not {{'numpy', 'typer'}} & set(sys.modules)\nassert {names}\n"
    script += "assert set(rrpo.__all__) <= set(dir(rrpo))\n"
    script += "assert not {'torch', 'torchaudio', 'transformers', 'pandas', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)
    with pytest.raises(AttributeError, match="nosuch"):
        _ = rrpo.nosuch


def test_arms_are_known_by_name_and_by_their_regularisers():
    paper = RegularizerConfig()
    assert arm("diffro").regularizers == OFF
    assert arm("rrpo").regularizers == paper
    only = arm("ls_adv").regularizers
    assert (only.epsilon, only.mix_probability, only.alpha) == (paper.epsilon, 0.0, paper.alpha)
    for name in ("adv_ls", "ls_ls", "x", ""):
        with pytest.raises(InputError, match="no arm of that name"):
            arm(name)


BORED = replace(
    PROFILES["smoke"], manifests={"annotated": ManifestConfig(digest="0", path="x", emotions=("bored", "sad"))}
)
"""Manifests with emotions of their own for one of many splits."""
OF_WAVES = replace(
    PROFILES["smoke"],
    pretrain=PretrainConfig(model=RewardModelConfig(encoder=EncoderConfig(digest="0", path="/wavlm"))),
)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arm": "x"}, "no arm"),
        ({"profile": "x"}, "no profile"),
        ({"seed": -1}, "negative"),
        ({"settings": {"optimize.bet": 1}}, "nearest: optimize.beta"),
        ({"settings": {"sft.seed": 1}}, "changes nothing here"),
        (
            {"profile": BORED},
            r"have to be rendered, but the renderer has no emotion bored: (.|\n)*manifests for annotated with",
        ),
        ({"profile": OF_WAVES}, r"waveforms cannot reward a policy(.|\n)*got: /wavlm"),
    ],
)
def test_a_cell_that_cannot_be_made_is_refused(given: dict, words: str):
    with pytest.raises(InputError, match=words):
        rrpo.make_cell(**given)


def test_a_cell_is_the_same_by_name_and_by_config_and_settings_change_it():
    named = rrpo.make_cell("rrpo", seed=3, profile="quick")
    assert named.hash == Cell(label="rrpo", arm=arm("rrpo"), seed=3, profile=PROFILES["quick"]).hash
    by_config = rrpo.make_cell(arm("rrpo"), seed=3, profile=PROFILES["quick"])
    assert by_config.label == "custom"
    assert by_config.stages["optimized"].key == named.stages["optimized"].key
    changed = rrpo.make_cell("rrpo", seed=3, profile="quick", settings={"optimize.beta": 0.5})
    assert changed.profile.name == "quick+optimize.beta=0.5"
    assert changed.stages["optimized"].config.beta == 0.5


def test_what_an_arm_runs_with_is_read_off_its_stages():
    importlib.import_module("ablations.baselines")  # registers its arms

    def of(name: str) -> dict:
        return effective(rrpo.make_cell(name, profile="embedded"))

    diffro, full, oracle, sft = map(of, ("diffro", "rrpo", "oracle", "sft"))
    assert diffro["finetune.regularizers.epsilon"] == 0.0
    assert full["finetune.regularizers.epsilon"] == 0.1
    assert diffro["optimize.lr"] == PROFILES["embedded"].optimize.lr
    assert (diffro["pretrain.data.name"], diffro["pretrain.data.shortcut"]) == ("rm_pretrain", 0.9)
    assert (oracle["pretrain.data.name"], oracle["pretrain.data.shortcut"]) == ("rm_oracle", 0.0)
    assert oracle["finetune.steps"] == sft["optimize.steps"] == 0
    assert not any(name.startswith("finetune.regularizers") for name in oracle)
    assert not any(name.endswith(".seed") for name in diffro if name != "world.seed")
    assert {type(value) for value in diffro.values()} <= {int, float, str, bool}
    assert len(diffro) < 80
    scaled = of("diffro_scaled")
    assert scaled["finetune.regularizers.epsilon"] == 0.0, (
        "its own reward model's, not that of RRPO, which it is matched to"
    )
    assert scaled["optimize.gradient_scale"] == "RRPO's gradient norm at SFT"
    assert of("rm_worst")["combine.combination"] == "worst"
    assert (of("best_of_16")["draws.n"], of("emodiff")["guided.guidance.name"]) == (16, "soft-label")
    mined = effective(rrpo.make_cell(ArmConfig(rounds=2), profile="embedded"))
    assert (mined["finetune.data.name"], mined["finetune.data.size"]) == ("annotated", full["finetune.data.size"])


def fake(**options: object) -> Cell:
    return fakes.cells(["rrpo"], [1], **options)[0]  # type: ignore[arg-type]


def test_a_cell_is_trained_once_and_its_numbers_and_tables_come_back(tmp_path: Path):
    reports = []
    api.build(fake(), tmp_path, "cpu", lambda stage, done, total: reports.append((stage.name, done, total)))
    result = api.result(fake(), tmp_path)
    assert ("optimize", 3, 3) in reports
    assert result.numbers["end_test_accuracy"] == pytest.approx(fakes.curve("rrpo", 1)["test_accuracy"].iloc[-1])
    assert {"points.parquet", "samples.parquet"} <= result.tables.keys()
    assert all(path.is_file() for path in result.files.values())
    built = fakes.built(tmp_path)
    api.build(fake(), tmp_path, "cpu", lambda stage, done, total: pytest.fail("built again"))
    assert fakes.built(tmp_path) == built
    with pytest.raises(InputError, match="no device"):
        api.build(fake(), tmp_path, "tpu", lambda stage, done, total: None)


def call(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str, **options: object) -> Result:
    monkeypatch.setattr(command, "make_cell", lambda *args, **kwargs: fake(**options))
    return CliRunner().invoke(command.app, ["--profile", "smoke", "--device", "cpu", "--out", str(out), *arguments])


def test_the_command_prints_numbers_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    result = call(monkeypatch, tmp_path)
    assert result.exit_code == 0, result.output
    assert "end_test_accuracy" in result.output
    assert f"samples.parquet: {tmp_path}" in result.output.replace("\n", "")
    printed = json.loads(call(monkeypatch, tmp_path, "--json").stdout)
    assert printed["numbers"]["end_test_accuracy"] == pytest.approx(fakes.curve("rrpo", 1)["test_accuracy"].iloc[-1])
    assert printed["cell_hash"] == fake().hash


def test_plugins_that_the_environment_names_are_known_in_python(tmp_path: Path):
    """In another process, because a plugin stays registered."""
    (tmp_path / "mine.py").write_text("from rrpo.arms import ARMS\nARMS.register('mine', ARMS['diffro'])\n")
    code = "import rrpo; print(rrpo.make_cell('mine', profile='smoke').label)"
    environment = os.environ | {plugins.VARIABLE: str(tmp_path / "mine.py")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "mine\n", done.stderr


def test_the_command_ends_with_the_statuses_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for options, words in (
        (["--plugin", str(tmp_path / "none.py")], "plugin file not found"),
        (["--set", "optimize.bet=1"], "nearest: optimize.beta"),
        (["--arm", "none"], "no arm of that name"),
    ):
        result = CliRunner().invoke(command.app, [*options, "--out", str(tmp_path / "out")])
        assert (result.exit_code, words in result.output) == (2, True), result.output
        assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    result = CliRunner().invoke(command.app, ["--out", str(tmp_path / "file")])
    assert (result.exit_code, "the results cannot be written there" in result.output) == (2, True), result.output
    (tmp_path / "trouble").write_text("diverge")
    result = call(monkeypatch, tmp_path / "out", trouble={"rrpo/1": tmp_path / "trouble"})
    assert result.exit_code == 1
    assert "failed (diverged): DivergedError: loss nan" in result.output
    result = call(monkeypatch, tmp_path / "out", "--device", "tpu")
    assert result.exit_code == 2
    assert "no device of that name" in result.output
