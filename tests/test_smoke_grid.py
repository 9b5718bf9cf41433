"""The smoke grid from end to end, in a small world that it builds: real speech, real training, real processes, MLflow read back,
a report from it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ablations.rendering.card import conclusion
from ablations.tracking.reader import Store
from ablations.tracking.records import SAMPLES_FILE, Record, read_table
from ablations.tracking.runs_folder import RunsFolder
from rrpo.validation.lines import NOT_INSTALLED, load

pytestmark = pytest.mark.timeout(900)
"""The first test builds the grid and its world: a minute and a half on two idle cores."""
CHANCE = 1 / 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smoke") / "runs"
    command = [sys.executable, "-m", "ablations.run", "--grid", "smoke", "--profile", "smoke", "--first-seed", "1"]
    command += ["--device", "cpu", "--runs-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 4 cells are done." in done.stdout
    assert "mlflow ui --backend-store-uri" in done.stdout
    return folder


@pytest.fixture(scope="module")
def cells(runs: Path) -> dict[tuple[str, int], Record]:
    found = Store(RunsFolder(runs)).records("smoke")
    return {(record.label, record.seed): record for record in found}


def test_every_cell_is_recorded(cells: dict[tuple[str, int], Record]) -> None:
    assert sorted(cells) == [("diffro", 1), ("diffro", 2), ("rrpo", 1), ("rrpo", 2)]
    assert len({record.world_hash for record in cells.values()}) == 1
    assert len({record.cell_hash for record in cells.values()}) == 4


def test_arms_of_a_seed_start_from_the_same_samples(cells: dict[tuple[str, int], Record]) -> None:
    for seed in (1, 2):
        first, second = (np.load(cells[arm, seed].folder / "samples.npz") for arm in ("diffro", "rrpo"))
        start, end = first["step"] == 0, first["step"] == first["step"].max()
        assert np.array_equal(first["step"], second["step"])
        assert np.array_equal(first["lengths"][start], second["lengths"][start])
        shortest = min(first["tokens"].shape[1], second["tokens"].shape[1])
        assert np.array_equal(first["tokens"][start, :shortest], second["tokens"][start, :shortest])
        assert not np.array_equal(first["lengths"][end], second["lengths"][end])


def test_the_policy_moves_towards_its_reward(cells: dict[tuple[str, int], Record]) -> None:
    """The proxy goes up, mean over the four cells, and the KL leaves zero. How well so small a policy speaks is not asked."""
    points = [record.points for record in cells.values()]
    assert np.mean([p["proxy_logprob"].iloc[-1] - p["proxy_logprob"].iloc[0] for p in points]) > 0
    for p in points:
        assert p["kl_token"].iloc[0] == pytest.approx(0.0, abs=1e-6)
        assert p["kl_token"].iloc[-1] > 0.01


def test_audio_is_not_silent_and_differs_between_arms(cells: dict[tuple[str, int], Record]) -> None:
    waves = {}
    for arm in ("diffro", "rrpo"):
        files = sorted((cells[arm, 1].folder / "audio").glob("*.wav"))
        assert len(files) == 10
        waves[arm] = [soundfile.read(file) for file in files]
        for wave, rate in waves[arm]:
            assert rate == 16000
            assert 0 < len(wave) / rate < 3
        spoken = [wave for wave, rate in waves[arm] if len(wave) > 0.1 * rate]
        assert len(spoken) >= 8, "a policy of twenty updates may end a sample at once, hardly two of ten"
        for wave in spoken:
            assert np.sqrt(np.mean(wave**2)) > 1e-3
    pairs = zip(waves["diffro"], waves["rrpo"], strict=True)
    assert any(len(a) != len(b) or not np.array_equal(a, b) for (a, _), (b, _) in pairs)


def test_every_sample_is_judged(cells: dict[tuple[str, int], Record], documented: Callable[[str], list[str]]) -> None:
    """Arms of a seed start from the same samples, so everyone but the arm's own reward model says the same of them."""
    test_points = set(documented("Checkpoints by gold"))
    for seed in (1, 2):
        first, second = (cells[arm, seed].points.iloc[0] for arm in ("diffro", "rrpo"))
        for name in test_points - {"hack_rate"} | {"diversity", "val_accuracy"}:
            assert first[name] == pytest.approx(second[name], nan_ok=True), name
    for record in cells.values():
        assert test_points <= set(record.points.columns)
        assert set(documented("Samples")) == set(read_table(record.folder / SAMPLES_FILE).columns)
        assert record.tracked.groupby("step").size().tolist() == [60, 60, 60]
        pd.testing.assert_frame_equal(record.trajectory.iloc[:-1], record.points.iloc[:-1])
        assert record.samples.groupby("step").size().tolist() == [60, 60, 120]
        looked = record.curves.dropna()
        expected = {*documented("Training curves"), "proxy_grad_h", "proxy_relative_delta", "proxy_l_adv_over_l_emo"}
        assert expected <= set(looked.columns)
        assert (looked["relaxed_reward_loss"] - looked["reward_loss"]).abs().max() > 0


def test_the_report_comes_from_mlflow_alone_with_the_transfer_matrix(runs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablations.transfer", "--grid", "smoke", "--runs-dir", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 seeds are measured, 2 arms each." in done.stdout
    command = [sys.executable, "-m", "reports.run", "--grid", "smoke", "--runs-dir", str(runs), "--out", str(tmp_path)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    table = (tmp_path / "table.md").read_text()
    assert "| diffro | 2 |" in table
    assert "| rrpo | 2 |" in table
    assert "simulated" in table
    assert (tmp_path / "goodhart.png").stat().st_size > 10_000
    assert "by the common RM" in (tmp_path / "rulers.md").read_text()
    assert "RM of rrpo" in (tmp_path / "transfer.md").read_text()


@pytest.mark.long
def test_a_cell_is_reproduced_to_the_last_bit(runs: Path, cells: dict[tuple[str, int], Record]) -> None:
    """From its recorded config, in a store of its own; the world's stages are taken as they are."""
    run_id = cells["rrpo", 2].run_id
    command = [sys.executable, "-m", "ablations.reproduce", run_id, "--reuse-world", "--runs-dir", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same software" in done.stdout
    assert "bit-equal" in done.stdout


@pytest.mark.long
def test_the_world_card_of_the_smoke_world(runs: Path) -> None:
    """Every section but the regime is measured; so small a world fails lines, and the exit status says so."""
    command = [sys.executable, "-m", "ablations.validate", "--profile", "smoke", "--device", "cpu", "--skip", "regime"]
    done = subprocess.run([*command, "--runs-dir", str(runs)], capture_output=True, text=True)
    lines = load(runs / "world-card" / "card.json")
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == conclusion(lines)
    sections = {line.section for line in lines}
    assert {"Speech", "Ideal observer", "Judges", "Recognisers", "Codec", "Policy can hack"} <= sections
    assert {"Shortcut", "SFT policy", "Naturalness", "Detectors", "Other synthesisers"} <= sections
    voiceless = [line for line in lines if line.name.endswith("(correlation)")]  # of so small a codec
    assert all(np.isfinite(line.value) for line in lines if line.note != NOT_INSTALLED and line not in voiceless)
    measured = {line.name: line for line in lines}
    assert measured["rate as published, by emotion and language"].passed
    assert measured["third (not neural): accuracy"].value > CHANCE + 0.1
    assert measured["click: recall"].passed
    assert not measured["phone error rate"].passed
    assert (runs / "world-card" / "phonetics.png").stat().st_size > 10_000
    assert "world card" in (runs / "world-card" / "card.md").read_text()
    client = Store(RunsFolder(runs)).client
    experiment = client.get_experiment_by_name("world")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["judged"] > run.data.metrics["passed"] > 0
    assert Store(RunsFolder(runs)).grids() == ["smoke"]
