"""Stage ``mine``: which samples fool a reward model, their labels, and the stages of a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rrpo.config import OFF, ArmConfig, FinetuneConfig, MineConfig
from rrpo.corpus.features import SpeechSet
from rrpo.experiment import dataflow
from rrpo.judges import mine
from rrpo.judges.samples import Samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.profiles import SMOKE
from rrpo.testing.toy_models import EMOTIONS, optimize_inputs, toy_prompts
from rrpo.training import finetune

VANILLA = ArmConfig(regularizers=OFF)
ROWS = [
    # step, prompt (its target is prompt mod 3), proxy, val, proxy's log p, tokens
    (0, 0, 0, 1, -0.1, 3),  # not of the last checkpoint
    (4, 0, 0, 1, -0.5, 3),  # fools
    (4, 1, 1, 1, -0.1, 3),  # right
    (4, 2, 1, 1, -0.1, 3),  # the reward model does not hear the target
    (4, 3, 0, 2, -0.2, 2),  # fools, and surer
    (4, 4, 1, 0, -0.1, 0),  # says nothing
]


def samples() -> Samples:
    step, prompt, proxy, val, logprob, lengths = map(np.array, zip(*ROWS, strict=True))
    tokens = np.where(np.arange(3)[None] < lengths[:, None], 7, -1).astype(np.int16)
    return Samples(step, prompt, tokens, lengths.astype(np.int16), proxy, logprob, val, logprob)


def test_the_surest_of_those_that_fool_are_chosen_first():
    last, prompts = samples().at(4), toy_prompts()
    assert last.select(mine.chosen(last, prompts, EMOTIONS, 9)).prompt.tolist() == [3, 0]
    assert last.select(mine.chosen(last, prompts, EMOTIONS, 1)).prompt.tolist() == [3]


@pytest.fixture
def inputs(tmp_path: Path, toy_speech: Callable[..., Path]) -> dict[str, Path]:
    folders = optimize_inputs(tmp_path / "models")
    folder = tmp_path / "samples"
    folder.mkdir()
    samples().save(folder)
    return {
        "speech": toy_speech(12),
        "samples": folder,
        "prompts": folders["rl_prompts"],
        "codec": folders["codec"],
    } | {"model": folders["reward_model"]}


def test_mined_samples_follow_the_annotated_utterances_labelled_by_the_judge(inputs: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    mine.build(MineConfig(limit=9), inputs, out, Context())
    before, after = SpeechSet.load(inputs["speech"]), SpeechSet.load(out)
    assert [u.id for u in after.utterances[:12]] == [u.id for u in before.utterances]
    assert all(torch.equal(after.mel(i), before.mel(i)) for i in range(12))
    added = after.utterances[12:]
    assert [(u.emotion, u.speaker) for u in added] == [("sad", "ben"), ("happy", "anna")]
    codec = Codec.load(inputs["codec"])
    F, lengths = codec.decode(torch.full((1, 2), 7), torch.tensor([2]), codec.speaker_index(["ben"]))
    torch.testing.assert_close(after.mel(12), F[0, : lengths[0]].half().float())
    again = tmp_path / "again"
    again.mkdir()
    mine.build(MineConfig(limit=9), {**inputs, "speech": out}, again, Context())
    assert len(SpeechSet.load(again)) == 16, "a second round adds to the first"
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    config = FinetuneConfig(steps=2, batch=8, regularizers=OFF)
    finetune.build(config, {**inputs, "speech": out}, tuned, Context())
    assert (tuned / "reward_model.pt").is_file()


def test_without_fooling_samples_the_annotated_set_is_unchanged(inputs: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    mine.build(MineConfig(limit=0), inputs, out, Context())
    before, after = SpeechSet.load(inputs["speech"]), SpeechSet.load(out)
    assert after.utterances == before.utterances
    assert np.array_equal(after.frames, before.frames)


def test_a_round_mines_the_round_before_on_training_prompts_and_starts_from_the_same_models():
    plain, first, second = (dataflow.reward_model(SMOKE, replace(VANILLA, rounds=n), 5) for n in range(3))
    assert first.inputs["model"].key == plain.inputs["model"].key
    mined = first.inputs["speech"].inputs
    assert mined["speech"].key == plain.inputs["speech"].key
    run = mined["samples"]
    assert run.inputs["reward_model"].key == plain.key
    assert run.inputs["policy"].key == dataflow.sft(SMOKE, 5).key
    assert run.inputs["eval_prompts"].key == mined["prompts"].key == run.inputs["rl_prompts"].key
    assert second.inputs["speech"].inputs["speech"].key == first.inputs["speech"].key
    assert second.inputs["speech"].inputs["samples"].inputs["reward_model"].key == first.key
    assert dataflow.optimized(SMOKE, replace(VANILLA, rounds=1), 5).inputs["reward_model"].key == first.key
