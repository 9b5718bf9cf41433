"""``--test NAME=PATH``: invalid values are refused, and a test set does not change the identity of a cell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.errors import InputError
from ablations.execution.request import request
from ablations.execution.test_sets import read_tests
from rrpo.corpus.config import ManifestConfig
from rrpo.pipeline import dataflow
from rrpo.pipeline.stages import walk
from rrpo.profiles import SMOKE, Profile
from rrpo.testing.corpora import write_tone


def manifest(path: Path, *emotions: str, pitch: float = 200) -> Path:
    """Write one tone per emotion; another ``pitch`` gives other audio."""
    lines = []
    for place, emotion in enumerate(emotions):
        audio = path.with_name(f"{path.stem}{place}.wav")
        write_tone(audio, pitch + 10 * place)
        row = {"audio": audio.name, "text": "a", "phones": ["a"], "speaker": "s", "language": "en", "emotion": emotion}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


def cell_of(tests: list[str], folder: Path):
    return request(
        grid="rm", profile="smoke", seeds=1, arms="rrpo", device="cpu", workers=1, tests=tests, runs_dir=folder
    ).cells[0]


def test_a_test_set_adds_a_result_and_changes_no_key(tmp_path: Path) -> None:
    mine = manifest(tmp_path / "mine.jsonl", "angry", "sad", "bored")
    plain, tested = cell_of([], tmp_path / "runs"), cell_of([f"mine={mine}"], tmp_path / "runs")
    assert tested.hash == plain.hash
    assert tested.world_hash == plain.world_hash
    role = f"recognition_mine_{tested.profile.tests['mine'].digest[:8]}"
    assert tested.optional.keys() - plain.optional.keys() == {role}
    stage = tested.optional[role]
    assert stage.inputs["model"].key == dataflow.reward_model(plain.profile, plain.arm, plain.seed).key
    assert stage.inputs["speech"].config.split.manifest == tested.profile.tests["mine"]
    assert tested.profile.tests["mine"].emotions == ("angry", "bored", "sad"), (
        "the set keeps emotions that the model lacks"
    )
    other = manifest(tmp_path / "other.jsonl", "angry", "sad", pitch=400)
    again = cell_of([f"mine={other}"], tmp_path / "runs")
    assert role not in again.optional, "another set gives another result"
    assert again.profile.tests["mine"].emotions == ()
    assert {stage.label for stage in walk(*tested.optional.values())} >= {
        "speech test mine",
        f"RM on mine seed {tested.seed}",
    }


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["mine"], "--test takes NAME=PATH"),
        (["a b={m}"], "of letters, digits and hyphens"),
        (["m={m}", "m={m}"], "each name once"),
        (["m=none.jsonl"], "none.jsonl: no such manifest"),
        (["m={bored}"], "no utterance has an emotion of the reward model"),
        (["m={learnt}"], "sounds the same, byte for byte"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, entries: list[str], said: str) -> None:
    paths = {
        "m": manifest(tmp_path / "m.jsonl", "angry"),
        "bored": manifest(tmp_path / "bored.jsonl", "bored", pitch=300),
        "learnt": manifest(tmp_path / "learnt.jsonl", "angry", "sad", pitch=400),
    }
    learnt = ManifestConfig(digest="x", path=str(paths["learnt"]))
    profile: Profile = replace(SMOKE, manifests={"annotated": learnt})
    with pytest.raises(InputError, match=said):
        read_tests([entry.format(**paths) for entry in entries], profile)
