"""A corpus with emotions that the renderer lacks: K comes from the data, and requests for rendered splits are rejected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ablations.execution.options import Options
from ablations.execution.request import request
from rrpo.config import ArmConfig, CodecConfig, FinetuneConfig, PretrainConfig
from rrpo.corpus import features
from rrpo.corpus.config import EMOTIONS, ManifestConfig, SpeechConfig, SplitConfig, WorldConfig
from rrpo.corpus.intake import check_manifest, classes
from rrpo.corpus.manifest import ManifestError, read_manifest
from rrpo.diagnostics import examine
from rrpo.errors import InputError
from rrpo.experiment import measurements, world
from rrpo.judges.config import ExamineConfig
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.profiles import SMOKE
from rrpo.training import finetune, pretrain

SEVEN = ("angry", "happy", "sad", "surprised", "fearful", "bored", "neutral")
"""The renderer supports the first five."""


def corpus(folder: Path, name: str, emotions: tuple[str, ...] = SEVEN, pitch: int = 0) -> Path:
    """Write a manifest with two tones per emotion."""
    lines = []
    for i, emotion in enumerate((*emotions, *emotions)):
        tone = np.sin(np.arange(6000) * (0.05 + 0.02 * i + 0.001 * pitch))
        soundfile.write(folder / f"{name}-{i}.wav", 0.3 * tone, 16000)
        line = {"audio": f"{name}-{i}.wav", "text": "a", "phones": ["a"], "speaker": "li", "language": "en"}
        lines.append(line | {"emotion": emotion})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def plan(folder: Path, *names: str, **options: object):
    """Request the reward models of two arms, with a manifest of seven emotions for each split."""
    manifests = [f"{name}={corpus(folder, name, pitch=index)}" for index, name in enumerate(names)]
    values = {"grid": "rm", "profile": "smoke", "seeds": 1, "arms": "diffro,rrpo", "device": "cpu"} | options
    return request(Options(manifests=manifests, runs_dir=folder / "runs", **values))


def test_a_speaker_with_the_name_of_an_emotion_or_a_tag_is_refused(tmp_path: Path) -> None:
    for name in ("bored", "sad", "no-speaker"):
        path = corpus(tmp_path, "mine")
        path.write_text(path.read_text().replace('"li"', json.dumps(name), 1))
        with pytest.raises(ManifestError, match=f"speaker with the name of an emotion or of a tag, '{name}'"):
            classes({"annotated": read_manifest(path, None, "annotated")}, EMOTIONS, ())


def test_reward_models_of_seven_emotions_need_three_manifests(tmp_path: Path) -> None:
    planned = plan(tmp_path, "rm_pretrain", "annotated", "rm_valid")
    profile = planned.cells[0].profile
    assert profile.emotions == SEVEN
    assert profile.world.emotions == EMOTIONS
    for cell in planned.cells:
        assert cell.stages.keys() == {"examined"}, "the policy of gradient fidelity cannot speak them"
        assert cell.stages["examined"].inputs.keys() == {"model", "rm_valid"}, "rendered test sets are left out"
        assert cell.optional == {}


def test_the_oracle_is_left_out_unless_it_has_data(tmp_path: Path) -> None:
    """Everything a newcomer's `--train` gives is enough: nothing has to be rendered."""
    splits = ("rm_pretrain", "annotated", "rm_valid")
    with_oracle = {cell.label for cell in plan(tmp_path, *splits, "rm_oracle", arms=None).cells}
    assert with_oracle - {cell.label for cell in plan(tmp_path, *splits, arms=None).cells} == {"oracle"}


@pytest.mark.parametrize(
    ("names", "options", "missing"),
    [
        (("annotated",), {}, "rm_pretrain, rm_valid"),
        (
            ("rm_pretrain", "annotated", "rm_valid"),
            {"grid": "smoke"},
            "base, eval, judge_heldout, judge_test, judge_val",
        ),
    ],
)
def test_what_would_be_rendered_is_refused(
    tmp_path: Path, names: tuple[str, ...], options: dict[str, str], missing: str
) -> None:
    with pytest.raises(InputError, match=f"the renderer has no emotion bored, neutral: {missing}"):
        plan(tmp_path, *names, **options)
    assert not (tmp_path / "runs").exists()


def test_a_mistyped_emotion_is_no_class(tmp_path: Path) -> None:
    read = {name: read_manifest(corpus(tmp_path, name), None) for name in ("rm_pretrain", "annotated", "rm_test")}
    assert classes(read, EMOTIONS, world.LEARNT) == SEVEN
    for name, split in (("rm_test", "'rm_pretrain'"), ("annotated", "'rm_pretrain'"), ("rm_pretrain", "'annotated'")):
        wrong = [replace(read[name][0], emotion="agnry"), *read[name][1:]]
        with pytest.raises(
            ManifestError, match=rf"'agnry' is in the split '{name}' \(1 of 14 labels\) and not in {split}"
        ):
            classes(read | {name: wrong}, EMOTIONS, world.LEARNT)


def test_the_renderers_emotions_leave_every_key_as_it_was(tmp_path: Path) -> None:
    read = {"annotated": read_manifest(corpus(tmp_path, "annotated", ("sad", "angry")), None)}
    assert classes(read, EMOTIONS, world.LEARNT) == ()
    manifest = ManifestConfig(digest="d", path="x")
    profile = replace(SMOKE, manifests={"annotated": manifest})
    assert profile.emotions == EMOTIONS
    arm = ArmConfig()
    assert measurements.core(profile, arm, 1, policy=False).keys() == {"examined", "fidelity"}
    assert world.rm_tests(profile).keys() == world.rm_tests(SMOKE).keys()


def test_a_reward_model_of_seven_emotions_is_trained_and_tested(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("speech", "codec", "pretrained", "finetuned", "examined")}
    for folder in folders.values():
        folder.mkdir()
    path = corpus(tmp_path, "mine")
    manifest = replace(check_manifest(path, read_manifest(path, SEVEN), WorldConfig().audio), emotions=SEVEN)
    split = SplitConfig(name="rm_pretrain", size=1, manifest=manifest)
    features.build(SpeechConfig(world=WorldConfig(), split=split), {}, folders["speech"], Context())
    torch.manual_seed(0)
    Codec(CodecConfig(levels=(5, 5), dim=16), WorldConfig().audio, ("li",)).save(folders["codec"])
    data = {"speech": folders["speech"], "codec": folders["codec"]}
    pretrain.build(PretrainConfig(steps=2, batch=4), data, folders["pretrained"], Context())
    model = data | {"model": folders["pretrained"]}
    finetune.build(FinetuneConfig(steps=2, batch=4), model, folders["finetuned"], Context())
    assert RewardModel.load(folders["finetuned"]).emotions == SEVEN
    sets = {"model": folders["finetuned"], "rm_valid": folders["speech"]}
    examine.build(ExamineConfig(interpolation_pairs=2, pgd_steps=1), sets, folders["examined"], Context())
    scalars = json.loads((folders["examined"] / "scalars.json").read_text())
    assert 0 <= scalars["rm_accuracy_valid"] <= 1
    assert all(np.isfinite(list(scalars.values())))
