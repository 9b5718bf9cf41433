"""The command that compares gradients: where they are measured, what is measured, and invalid options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ablations.execution.building import Builder
from ablations.gradients import FOLDER, TABLE, app, peaks
from ablations.rendering.gradients import CSV, MEASURES, ONCE
from ablations.tracking.records import POINTS_FILE
from ablations.tracking.runs_folder import check
from rrpo.config import OptimizeConfig
from rrpo.diagnostics import gradients as stage
from rrpo.pipeline.stages import Stage


def test_columns_are_the_stages() -> None:
    assert stage.REFERENCE in stage.METHODS
    row = stage.against(_two(), _two())
    measured_apart = {"gain_per_nat", "gain_per_1000_rollouts", "gain_per_minute"}
    measured_apart |= {name for name in ONCE if name.startswith("swap_")}
    assert {*MEASURES, *ONCE} - measured_apart <= row.keys()


def test_the_peak_is_the_first_of_the_best_checkpoints(tmp_path: Path) -> None:
    pd.DataFrame({"step": [0, 60, 120, 240], "val_accuracy": [0.7, 0.9, 0.9, 0.8]}).to_parquet(
        tmp_path / "points.parquet"
    )
    assert peaks(tmp_path) == {"SFT": 0, "peak": 60, "end": 240}


def _two() -> stage.Moments:
    import torch

    moments = stage.Moments()
    for row in ([1.0, 2.0], [2.0, 1.0]):
        moments.add(torch.tensor(row))
    return moments


def test_the_emotion_reward_is_measured_alone_and_at_the_updates_own_temperature() -> None:
    arm = OptimizeConfig(steps=90, tau=(2.0, 1.0, 0.8), emotion_weight=0.0, gradient_scale=3.0, content_weight=0.5)
    for updates, tau in ((0, 2.0), (30, 1.0), (90, 0.8)):
        settings = stage.emotion_reward(arm, updates)
        assert settings.tau == (tau,)
        assert (settings.emotion_weight, settings.gradient_scale) == (1.0, 1.0)
        assert (settings.content_weight, settings.beta) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--updates", "1,x"], "--updates takes numbers from 0"),
        (["--updates", "999999"], "--updates takes numbers from 0"),
        (["--arm", "nosuch"], "no arm of that name"),
        (["--arm", "best_of_16"], "guided decoding have no gradient"),
        (["--arm", "emodiff"], "guided decoding have no gradient"),
        (["--arm", "diffro_scaled"], "scaled to RRPO's, which is not known here"),
        (["--set", "nosuch=1"], "no size for --set"),
        (["--set", "batches=few"], "batches must be a number"),
        (["--set", "batches=1"], "a size is out of its range: batches must be in [2, inf), got 1"),
        (["--seeds", "0"], "--seeds must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments, "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "runs").exists()


def test_each_value_has_the_place_updates_and_seed_of_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold is highest after 20 updates with the first seed, after 40 with the second."""
    values = dict.fromkeys([*MEASURES, *ONCE], 1.0) | {"method": ["diffro", "reinforce"]}

    def build(builder: Builder, stages: Sequence[Stage]) -> dict[str, str]:
        for required in stages:
            folder = required.path(builder.folder.root)
            folder.mkdir(parents=True)
            if required.name == "optimize":
                gold = [0.5, 0.8, 0.7, 0.6] if required.config.seed == 1000 else [0.5, 0.6, 0.8, 0.7]
                pd.DataFrame({"step": [0, 20, 40, 60], "val_accuracy": gold}).to_parquet(folder / POINTS_FILE)
            else:
                measured_at = {"of_seed": required.config.optimize.seed, "after": required.config.updates}
                pd.DataFrame(values | measured_at).to_parquet(folder / TABLE)
        return {}

    monkeypatch.setattr(Builder, "build", build)
    runs = tmp_path / "runs"
    arguments = ["--seeds", "2", "--profile", "smoke", "--device", "cpu", "--runs-dir", str(runs)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert check(runs).root == runs, "the next command can use the folder"
    table = pd.read_csv(runs / FOLDER / CSV).query("method == 'diffro'")
    assert table[["place", "updates", "after", "seed", "of_seed"]].to_numpy().tolist() == [
        ["SFT", 0, 0, 1000, 1000],
        ["SFT", 0, 0, 1001, 1001],
        ["peak", 20, 20, 1000, 1000],
        ["peak", 40, 40, 1001, 1001],
        ["end", 60, 60, 1000, 1000],
        ["end", 60, 60, 1001, 1001],
    ]
