"""A user's recordings replace a split: from the command line to a finished and different reward model."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import RunsFolder
from rrpo.corpus.render import render
from rrpo.corpus.splits import draw_split
from rrpo.experiment import world
from rrpo.profiles import SMOKE

pytestmark = pytest.mark.long


def corpus(folder: Path) -> Path:
    """Write sixty recordings of the RM's speakers, under unknown names, as wav files with a manifest."""
    split = replace(world.splits(SMOKE)["rm_valid"], name="recorded", size=60)
    lines = []
    for number, utterance in enumerate(draw_split(SMOKE.world, split)):
        assert utterance.spec is not None
        soundfile.write(folder / f"{number}.wav", render(utterance.spec, 16000), 16000)
        row = {name: getattr(utterance, name) for name in ("text", "language", "emotion")}
        lines.append(
            row | {"audio": f"{number}.wav", "speaker": f"actor {utterance.speaker}", "votes": [utterance.emotion] * 3}
        )
    (folder / "mine.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return folder / "mine.jsonl"


def run(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "ablations.run",
        "--grid",
        "rm",
        "--profile",
        "smoke",
        "--seeds",
        "1",
        "--arms",
        "diffro",
    ]
    command += ["--device", "cpu", "--runs-dir", str(runs), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})


def test_a_users_annotated_speech_fine_tunes_the_reward_model(tmp_path: Path) -> None:
    manifest = corpus(tmp_path)
    for arguments in ((), ("--manifest", f"annotated={manifest}")):
        done = run(tmp_path / "runs", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = Store(RunsFolder(tmp_path / "runs")).records("rm")
    assert ours.cell_hash != theirs.cell_hash
    assert ours.scalars["rm_confidence"] != theirs.scalars["rm_confidence"], (
        "another model; accuracies of so few may tie"
    )
    assert theirs.config["profile.manifests.annotated.digest"] != ours.config.get("profile.manifests.annotated.digest")
    before = {path for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    (tmp_path / "3.wav").unlink()
    done = run(tmp_path / "runs", "--manifest", f"annotated={manifest}")
    assert done.returncode == 2
    assert "3.wav: no such audio file" in done.stderr
    assert {path for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
