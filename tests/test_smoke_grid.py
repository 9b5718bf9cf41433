"""The smoke grid from end to end, in the frozen world: real speech, real training, real processes, MLflow read back, a report.
No model of the world is trained, SFT speaks as asked, and the reward is climbed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner

from ablations import transfer
from ablations.tracking.reader import Store
from ablations.tracking.records import SAMPLES_FILE, Record, read_table
from ablations.tracking.runs_folder import RunsFolder
from reports import run as report
from rrpo.experiment import frozen
from rrpo.pipeline import stages
from rrpo.pipeline.stages import MARKER

pytestmark = pytest.mark.timeout(900)
CHANCE = 1 / 5
SEED = frozen.SEEDS[0]
"""Of the two frozen seeds, the first runs; `test_frozen` looks at both."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute on two idle cores."""
    folder = tmp_path_factory.mktemp("smoke") / "runs"
    command = [sys.executable, "-m", "ablations.run", "--grid", "smoke", "--seeds", "1", "--first-seed", str(SEED)]
    command += ["--device", "cpu", "--runs-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 2 cells are done." in done.stdout
    assert "mlflow ui --backend-store-uri" in done.stdout
    return folder


@pytest.fixture(scope="module")
def cells(runs: Path) -> dict[str, Record]:
    return {record.label: record for record in Store(RunsFolder(runs)).records("smoke")}


def test_every_cell_is_recorded_and_nothing_that_is_frozen_is_built(runs: Path, cells: dict[str, Record]) -> None:
    assert sorted(cells) == ["diffro", "rrpo"]
    assert {record.seed for record in cells.values()} == {SEED}
    assert len({record.world_hash for record in cells.values()}) == 1
    assert len({record.cell_hash for record in cells.values()}) == 2
    built = {path.parent.name for path in (runs / "stages").glob(f"*/{MARKER}")}
    assert not built & {path.name for path in stages.LAYER.iterdir()}
    assert not {name.rpartition("-")[0] for name in built} & {"codec", "base", "judge", "recogniser", "sft", "pretrain"}


def test_arms_of_a_seed_start_from_the_same_samples(cells: dict[str, Record]) -> None:
    first, second = (np.load(cells[arm].folder / "samples.npz") for arm in ("diffro", "rrpo"))
    start, end = first["step"] == 0, first["step"] == first["step"].max()
    assert np.array_equal(first["step"], second["step"])
    assert np.array_equal(first["lengths"][start], second["lengths"][start])
    shortest = min(first["tokens"].shape[1], second["tokens"].shape[1])
    assert np.array_equal(first["tokens"][start, :shortest], second["tokens"][start, :shortest])
    assert not np.array_equal(first["lengths"][end], second["lengths"][end])


def test_sft_speaks_as_asked_and_the_policy_moves_towards_its_reward(cells: dict[str, Record]) -> None:
    """Gold is far above chance before any update, the mean proxy of the two cells rises, and the KL leaves zero."""
    points = [record.points for record in cells.values()]
    assert np.mean([p["val_accuracy"].iloc[0] for p in points]) > 2.5 * CHANCE
    assert np.mean([p["test_accuracy"].iloc[0] for p in points]) > 2.5 * CHANCE
    assert np.mean([p["proxy_logprob"].iloc[-1] - p["proxy_logprob"].iloc[0] for p in points]) > 0.1
    for p in points:
        assert p["kl_token"].iloc[0] == pytest.approx(0.0, abs=1e-6)
        assert p["kl_token"].iloc[-1] > 0.01


def test_audio_is_not_silent_and_differs_between_arms(cells: dict[str, Record]) -> None:
    waves = {}
    for arm in ("diffro", "rrpo"):
        files = sorted((cells[arm].folder / "audio").glob("*.wav"))
        assert len(files) == 10
        waves[arm] = [soundfile.read(file) for file in files]
        for wave, rate in waves[arm]:
            assert rate == 16000
            assert 0 < len(wave) / rate < 4, "80 tokens are 3.2 s"
        spoken = [wave for wave, rate in waves[arm] if len(wave) > 0.1 * rate]
        assert len(spoken) >= 8, "a policy may end a sample at once, hardly two of ten"
        for wave in spoken:
            assert np.sqrt(np.mean(wave**2)) > 1e-3
    pairs = zip(waves["diffro"], waves["rrpo"], strict=True)
    assert any(len(a) != len(b) or not np.array_equal(a, b) for (a, _), (b, _) in pairs)


def test_every_sample_is_judged(cells: dict[str, Record], documented: Callable[[str], list[str]]) -> None:
    """Arms of a seed start from the same samples, so everyone but the arm's own reward model says the same of them."""
    test_points = set(documented("Checkpoints by gold"))
    first, second = (cells[arm].points.iloc[0] for arm in ("diffro", "rrpo"))
    for name in test_points - {"hack_rate"} | {"diversity", "val_accuracy"}:
        assert first[name] == pytest.approx(second[name], nan_ok=True), name
    for record in cells.values():
        assert test_points <= set(record.points.columns)
        assert set(documented("Samples")) == set(read_table(record.folder / SAMPLES_FILE).columns)
        assert record.tracked.groupby("step").size().tolist() == [24, 24, 24]
        pd.testing.assert_frame_equal(record.trajectory.iloc[:-1], record.points.iloc[:-1])
        assert record.samples.groupby("step").size().tolist() == [24, 24, 60]
        looked = record.curves.dropna()
        expected = {*documented("Training curves"), "proxy_grad_h", "proxy_relative_delta", "proxy_l_adv_over_l_emo"}
        assert expected <= set(looked.columns)
        assert (looked["relaxed_reward_loss"] - looked["reward_loss"]).abs().max() > 0


def test_the_report_comes_from_mlflow_alone_with_the_transfer_matrix(runs: Path, tmp_path: Path) -> None:
    measured = CliRunner().invoke(transfer.app, ["--grid", "smoke", "--runs-dir", str(runs)])
    assert measured.exit_code == 0, measured.output
    assert "1 of 1 seeds are measured, 2 arms each." in measured.output
    made = CliRunner().invoke(report.app, ["--grid", "smoke", "--runs-dir", str(runs), "--out", str(tmp_path)])
    assert made.exit_code == 0, made.output
    table = (tmp_path / "table.md").read_text()
    assert "| diffro | 1 |" in table
    assert "| rrpo | 1 |" in table
    assert "simulated" in table
    assert (tmp_path / "goodhart.png").stat().st_size > 10_000
    assert "by the common RM" in (tmp_path / "rulers.md").read_text()
    assert "RM of rrpo" in (tmp_path / "transfer.md").read_text()
