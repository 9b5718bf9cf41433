"""``--train`` and ``--test``: the manifests they use, invalid input, and that a test set does not change a cell's identity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.execution.user_data import part_of, read_tests
from rrpo.corpus.config import ManifestConfig
from rrpo.errors import InputError
from rrpo.experiment import dataflow
from rrpo.pipeline.stages import walk
from rrpo.profiles import SMOKE, Profile
from rrpo.testing.corpora import write_tone


def manifest(path: Path, *emotions: str, pitch: float = 200) -> Path:
    """Write one tone per emotion; a different ``pitch`` gives different audio."""
    lines = []
    for index, emotion in enumerate(emotions):
        audio = path.with_name(f"{path.stem}{index}.wav")
        write_tone(audio, pitch + 10 * index)
        row = {"audio": audio.name, "text": "a", "phones": ["a"], "speaker": "s", "language": "en", "emotion": emotion}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


def cell_of(tests: list[str], folder: Path):
    return request(
        Options(grid="rm", profile="smoke", seeds=1, arms="rrpo", device="cpu", workers=1, tests=tests, runs_dir=folder)
    ).cells[0]


def test_a_test_set_adds_a_result_and_changes_no_key(tmp_path: Path) -> None:
    first = manifest(tmp_path / "mine.jsonl", "angry", "sad", "bored")
    plain, tested = cell_of([], tmp_path / "runs"), cell_of([f"mine={first}"], tmp_path / "runs")
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
    second = manifest(tmp_path / "other.jsonl", "angry", "sad", pitch=400)
    again = cell_of([f"mine={second}"], tmp_path / "runs")
    assert role not in again.optional, "a different set gives a different result"
    assert again.profile.tests["mine"].emotions == ()
    assert {stage.label for stage in walk(*tested.optional.values())} >= {
        "speech test mine",
        f"RM on mine seed {tested.seed}",
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["mine"], "has no manifest mine.test.jsonl or mine.jsonl"),
        (["={m}"], "--test takes NAME=PATH"),
        (["a b={m}"], "consist of letters, digits and hyphens"),
        (["m={m}", "m={m}"], "--test is given twice for m"),
        (["m=none.jsonl"], "none.jsonl: no such manifest"),
        (["m={bored}"], "no utterance has an emotion of the reward model"),
        (["m={learnt}"], "sounds the same, byte for byte"),
        (["m={gone}"], "gone0.wav: no such audio file"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, entries: list[str], message: str) -> None:
    paths = {
        "m": manifest(tmp_path / "m.jsonl", "angry"),
        "bored": manifest(tmp_path / "bored.jsonl", "bored", pitch=300),
        "learnt": manifest(tmp_path / "learnt.jsonl", "angry", "sad", pitch=400),
        "gone": manifest(tmp_path / "gone.jsonl", "angry", pitch=500),
    }
    (tmp_path / "gone0.wav").unlink()
    learnt = ManifestConfig(digest="x", path=str(paths["learnt"]))
    profile: Profile = replace(SMOKE, manifests={"annotated": learnt})
    with pytest.raises(InputError, match=message):
        read_tests([entry.format(**paths) for entry in entries], profile)


def rm(folder: Path, **options):
    return request(
        Options(grid="rm", profile="smoke", arms="rrpo", device="cpu", workers=1, runs_dir=folder / "runs", **options)
    )


def test_a_corpus_is_trained_and_tested_on_by_its_name(tmp_path: Path) -> None:
    """A name stands for the manifests written by the import; without a part ``test``, the whole corpus is the test set."""
    for pitch, part in ((200, "mine.train"), (400, "mine.valid"), (600, "mine.test"), (800, "other")):
        manifest(tmp_path / f"{part}.jsonl", "angry", "sad", pitch=pitch)
    corpus, second = tmp_path / "mine", tmp_path / "other.jsonl"
    profile = rm(tmp_path, seeds=1, train=str(corpus), tests=[str(corpus), str(second)]).cells[0].profile
    names = {name: Path(entry.path).name for name, entry in {**profile.manifests, **profile.tests}.items()}
    assert names == {
        "rm_pretrain": "mine.train.jsonl",
        "annotated": "mine.train.jsonl",
        "rm_valid": "mine.valid.jsonl",
        "mine": "mine.test.jsonl",
        "other": "other.jsonl",
    }
    with pytest.raises(InputError, match=r"no manifest other.train.jsonl(.|\n)*got: other.jsonl"):
        rm(tmp_path, seeds=1, train=str(second))


def test_each_seed_takes_a_fold_and_all_are_pooled(tmp_path: Path) -> None:
    for k in (1, 2):
        manifest(tmp_path / f"mine.fold{k}.train.jsonl", "angry", "sad", pitch=200 * k)
        manifest(tmp_path / f"mine.fold{k}.test.jsonl", "angry", "sad", pitch=200 * k + 100)
    options = {"train": str(tmp_path / "mine"), "tests": [str(tmp_path / "mine")], "folds": 2, "first_seed": 1001}
    cells = rm(tmp_path, **options).cells
    assert [cell.seed for cell in cells] == [1001, 1002]
    for k, cell in enumerate(cells, 1):
        used = cell.profile.manifests | cell.profile.tests
        assert {Path(entry.path).name for entry in used.values()} == {
            f"mine.fold{k}.{part}.jsonl" for part in ("train", "test")
        }
        assert cell.profile.tests.keys() == {"mine"}
    assert len({cell.world_hash for cell in cells}) == 1
    named = {"train": str(tmp_path / "mine.jsonl"), "tests": [str(tmp_path / "mine.jsonl")]}
    assert [cell.hash for cell in rm(tmp_path, **options | named).cells] == [cell.hash for cell in cells]
    (second,) = rm(tmp_path, **options | {"first_seed": 1002, "seeds": 1}).cells
    assert (second.hash, second.world_hash) == (cells[1].hash, cells[1].world_hash), (
        "a part of the folds is pooled likewise"
    )
    for wrong in ({"train": None}, {"seeds": 3}):
        with pytest.raises(InputError, match="one fold a seed"):
            rm(tmp_path, **options | wrong)


def test_a_missing_fold_is_told_with_the_command_that_makes_folds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--out .*mine.jsonl --folds K"):
        part_of(str(tmp_path / "mine.fold3"), "train")
