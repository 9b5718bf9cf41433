"""The smoke grid in a small world that it builds: every stage of a world in real processes, a cell reproduced, the card."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablations.rendering.card import conclusion
from ablations.tracking.reader import Store
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import RunsFolder
from rrpo.validation.lines import NOT_INSTALLED, load

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
CHANCE = 1 / 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute and a half on two idle cores."""
    folder = tmp_path_factory.mktemp("built") / "runs"
    command = [sys.executable, "-m", "ablations.run", "--grid", "smoke", "--profile", "smoke", "--first-seed", "1"]
    command += ["--device", "cpu", "--runs-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 4 cells are done." in done.stdout
    return folder


@pytest.fixture(scope="module")
def cells(runs: Path) -> dict[tuple[str, int], Record]:
    return {(record.label, record.seed): record for record in Store(RunsFolder(runs)).records("smoke")}


def test_two_seeds_share_the_world_and_their_policies_move(cells: dict[tuple[str, int], Record]) -> None:
    """The mean proxy of the four cells rises. How well so small a policy speaks is not asked."""
    assert sorted(cells) == [("diffro", 1), ("diffro", 2), ("rrpo", 1), ("rrpo", 2)]
    assert len({record.world_hash for record in cells.values()}) == 1
    points = [record.points for record in cells.values()]
    assert np.mean([p["proxy_logprob"].iloc[-1] - p["proxy_logprob"].iloc[0] for p in points]) > 0
    assert all(p["kl_token"].iloc[-1] > 0.01 for p in points)


def test_a_cell_is_reproduced_to_the_last_bit(runs: Path, cells: dict[tuple[str, int], Record]) -> None:
    """From its recorded config, in a store of its own; the world's stages are taken as they are."""
    run_id = cells["rrpo", 2].run_id
    command = [sys.executable, "-m", "ablations.reproduce", run_id, "--reuse-world", "--runs-dir", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same software" in done.stdout
    assert "bit-equal" in done.stdout


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
    undefined = [line for line in lines if line.note == NOT_INSTALLED or line.name.endswith("(correlation)")]
    measured = {line.name: line for line in lines}
    if measured["drawl: recall"].value == 0:  # nothing that so small a codec decodes is flagged
        undefined.append(measured["drawl: precision"])
    assert all(np.isfinite(line.value) for line in lines if line not in undefined)
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
