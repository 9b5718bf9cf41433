"""A small grid in the frozen world: no model of the world is trained, SFT speaks as asked, and the reward is climbed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablations.tracking.reader import Store
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import RunsFolder
from rrpo.experiment import frozen
from rrpo.pipeline import stages
from rrpo.pipeline.stages import MARKER

pytestmark = pytest.mark.timeout(900)
CHANCE = 1 / 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute on two idle cores. Of the two frozen seeds, the first runs; `test_frozen` looks at both."""
    folder = tmp_path_factory.mktemp("quick") / "runs"
    command = [sys.executable, "-m", "ablations.run", "--grid", "smoke", "--profile", "quick", "--device", "cpu"]
    command += ["--seeds", "1", "--first-seed", str(frozen.SEEDS[0]), "--runs-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 2 cells are done." in done.stdout
    return folder


@pytest.fixture(scope="module")
def cells(runs: Path) -> list[Record]:
    return Store(RunsFolder(runs)).records("smoke")


def test_nothing_that_is_frozen_is_built(runs: Path, cells: list[Record]) -> None:
    assert {record.seed for record in cells} == set(frozen.SEEDS[:1])
    built = {path.parent.name for path in (runs / "stages").glob(f"*/{MARKER}")}
    assert not built & {path.name for path in stages.LAYER.iterdir()}
    assert not {name.rpartition("-")[0] for name in built} & {"codec", "base", "judge", "recogniser", "sft", "pretrain"}


def test_sft_speaks_as_asked_and_the_proxy_goes_up(cells: list[Record]) -> None:
    """Gold is far above chance before any update, and the mean reward of the two cells rises."""
    points = [record.points for record in cells]
    assert np.mean([p["val_accuracy"].iloc[0] for p in points]) > 2.5 * CHANCE
    assert np.mean([p["test_accuracy"].iloc[0] for p in points]) > 2.5 * CHANCE
    assert np.mean([p["proxy_logprob"].iloc[-1] - p["proxy_logprob"].iloc[0] for p in points]) > 0.1
