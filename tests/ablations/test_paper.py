"""The grid ``paper``: from a corpus' labelled tokens over reward models, DiffRO and RRPO to records in MLflow and a table."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.grids import arms
from ablations.outcomes import rollouts
from ablations.rendering.summary import table
from ablations.tracking.cell_file import cell_json, read_cell
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import RunsFolder
from reports.loading import select
from reports.words import methods
from rrpo.cosyvoice import standin
from rrpo.errors import InputError
from rrpo.experiment.effective import effective

TINY = {
    "reward_model.dim": 16,
    "reward_model.layers": 1,
    "reward_model.heads": 2,
    "pretrain.steps": 30,
    "pretrain.batch": 16,
    "pretrain.lr": 0.003,
    "finetune.steps": 4,
    "finetune.batch": 16,
    "supervised.steps": 2,
    "optimize.steps": 4,
    "optimize.batch": 8,
    "optimize.lr": 0.01,
    "optimize.content_weight": 0,
    "optimize.checkpoints": 0,
    "optimize.eval_prompts": 20,
    "optimize.final_prompts": 20,
    "max_tokens": 6,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = standin.write(tmp_path_factory.mktemp("cosyvoice2"), eos=5.0, spread=0.3)
    standin.write_corpus(folder / "tokens.jsonl")
    return folder


def cells_of(release: Path, **options):
    fields = {
        "grid": "paper",
        "model": release,
        "train": str(release / "tokens.jsonl"),
        "seeds": 1,
        "device": "cpu",
        "workers": 1,
    }
    return request(Options(runs_dir=release / "runs", **fields | options)).cells


def test_arms_share_what_comes_before_the_robust_reward_model(release: Path) -> None:
    cells = {cell.label: cell for cell in cells_of(release, arms="sft,diffro,rrpo,grpo,rm_worst")}
    starts = {cell.stages["optimized"].inputs["start"].key for cell in cells.values()}
    assert len(starts) == 1
    assert len({cell.hash for cell in cells.values()}) == 5
    configs = {label: cell.stages["optimized"].config for label, cell in cells.items()}
    assert configs["sft"].optimize.steps == 0
    assert configs["grpo"].optimize.optimizer.name == "grpo"
    assert configs["rrpo"].finetune.regularizers.alpha == 0.5
    assert configs["diffro"].finetune.regularizers.alpha == 0
    assert (configs["rm_worst"].members, configs["rm_worst"].combination) == (4, "worst")
    moved = release.with_name("moved.jsonl")
    moved.write_bytes((release / "tokens.jsonl").read_bytes())
    again = cells_of(release, arms="sft", train=str(moved))
    assert [cell.hash for cell in again] == [cells["sft"].hash], "keys hold the content alone"
    assert cells["sft"].optional == {}
    assert not [name for name in effective(cells["rrpo"]) if name.endswith(".seed") and name != "world.seed"]
    copy = read_cell(cell_json(cells["rrpo"]))
    assert copy.hash == cells["rrpo"].hash
    assert copy.stages["optimized"].config.corpus.path == str(release / "tokens.jsonl")


def test_what_no_training_before_the_arms_reads_makes_no_new_start(release: Path) -> None:
    """An arm's settings do not, and a setting that every arm replaces is refused."""

    def start(*settings: str) -> str:
        (cell,) = cells_of(release, arms="rrpo", settings=list(settings))
        return cell.stages["optimized"].inputs["start"].key

    own = start()
    for setting in ("optimize.beta=0.2", "optimize.content_weight=3", "finetune.lr=1e-4"):
        assert start(f"cosyvoice.{setting}") == own, setting
    for setting in ("supervised.steps=5", "pretrain.lr=1e-3", "max_tokens=9", "optimize.content_weight=0"):
        assert start(f"cosyvoice.{setting}") != own, setting
    for setting in ("finetune.regularizers.alpha=0.1", "members=3", "rounds=1", "variance_penalty=0.5"):
        with pytest.raises(InputError, match="changes nothing here"):
            start(f"cosyvoice.{setting}")


def test_what_makes_no_sense_is_refused(release: Path) -> None:
    for wrong, message in (
        ({"model": None}, "needs CosyVoice2's language model"),
        ({"arms": "sft,oracle"}, "the arm oracle exists.*\n.*which sets rm_data\n.*leave oracle out of --arms"),
        ({"arms": "emodiff"}, "simulated world only"),
        ({"arms": "soft_votes"}, "which sets soft_votes"),
        ({"train": str(release / "none.jsonl")}, "no file to read"),
        ({"arms": "grpo", "settings": ["cosyvoice.optimize.batch=30"]}, "multiple of 4"),
        (
            {"arms": "diffro_multitask", "settings": ["cosyvoice.optimize.content_weight=0"]},
            "rewards content, but no recognizer",
        ),
        (
            {"folds": 2, "tests": ["x"], "batch_scale": 4},
            "no effect here\n.*--test, --folds, --batch-scale with the profile",
        ),
        ({"grid": "full", "train": None}, "no effect here\n.*--model with the profile embedded"),
        (
            {"grid": "rm", "train": None, "model": None, "tune_encoder": True},
            "--tune-encoder.*\n.*the --encoder to tune",
        ),
    ):
        with pytest.raises(InputError, match=message):
            [cell.stages for cell in cells_of(release, **wrong)]


def test_every_arm_runs_but_those_of_the_simulated_world(release: Path) -> None:
    (sft,) = cells_of(release, arms="sft")
    rejected = set()
    for name, arm in arms().items():
        try:
            assert replace(sft, label=name, arm=arm).stages
        except InputError:
            rejected.add(name)
    world = {"oracle", "placebo", "diffro_scaled", "soft_votes"}
    assert rejected == world | {"classifier_free", "emodiff", "emomix", "emomix_style", "zet"}


@pytest.mark.long
def test_diffro_and_rrpo_end_in_records_and_a_table(release: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablations.run", "--grid", "paper", "--arms", "sft,diffro,rrpo", "--seeds", "1"]
    command += ["--model", str(release), "--train", str(release / "tokens.jsonl"), "--device", "cpu", "--workers", "1"]
    command += ["--runs-dir", str(tmp_path / "runs")]
    command += [part for name, value in TINY.items() for part in ("--set", f"cosyvoice.{name}={value}")]
    completed = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"COLUMNS": "200"}
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "All 3 cells are done" in completed.stdout
    records, _ = Store(RunsFolder(tmp_path / "runs")).states("paper")
    by_label = {record.label: record for record in records.values()}
    assert by_label.keys() == {"sft", "diffro", "rrpo"}
    assert by_label["sft"].scalars["end_kl_token"] == pytest.approx(0, abs=1e-5)
    assert by_label["diffro"].scalars["end_kl_token"] > 0
    assert len(by_label["rrpo"].curves) == 4
    assert len({record.world_hash for record in records.values()}) == 1
    row = table(list(records.values())).row("diffro")
    assert row["proxy"].mean == by_label["diffro"].scalars["end_proxy_accuracy"]
    assert not list(by_label["diffro"].folder.rglob("llm.pt")), "weights stay in the stage"
    selection = select(tmp_path / "runs", "paper")
    assert rollouts(by_label["diffro"]) == 4 * 8
    text = methods(selection)
    assert "Sampled without an optimization: sft." in text
    assert "Each other cell optimized the policy for 4 steps of 8 roll-outs" in text
    assert "Clean success was not measured. Nothing is tested." in text
    assert "raters" not in text, "the simulated world's redraws"
