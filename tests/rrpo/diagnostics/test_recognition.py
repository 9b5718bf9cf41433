"""Stage ``recognition``: accuracies on a test set that may contain emotions unknown to the reward model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from rrpo.config import RewardModelConfig
from rrpo.corpus.features import SpeechSet, write_speech
from rrpo.diagnostics import examine
from rrpo.judges.config import RecognitionConfig
from rrpo.models.ensemble import RewardEnsemble
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context


def test_unweighted_accuracy_by_hand() -> None:
    """Class 0: three of four correct; class 2: none of one; class 1 does not occur, but is predicted once."""
    predicted = torch.tensor([0, 0, 0, 1, 0])
    p = torch.eye(3)[predicted]
    assert examine.unweighted_accuracy(p, torch.tensor([0, 0, 0, 0, 2])) == pytest.approx(0.375)


@pytest.mark.parametrize("members", [1, 2])
def test_unknown_emotions_are_left_out_and_counted(
    members: int, toy_speech: Callable[..., Path], tmp_path: Path
) -> None:
    speech = SpeechSet.load(toy_speech(20))
    known = speech.emotions[:2]
    torch.manual_seed(0)
    model = RewardModel(
        RewardModelConfig(dim=16, layers=1, heads=2), known, speech.audio.n_mels, speech.audio.floor
    ).eval()
    for name in ("model", "test", "out"):
        (tmp_path / name).mkdir()
    (model if members == 1 else RewardEnsemble([model, model], "worst")).save(tmp_path / "model")
    utterances = [
        dataclasses.replace(utterance, emotion="bored") if i < 3 else utterance
        for i, utterance in enumerate(speech.utterances)
    ]
    mels = [speech.mel(i).half().numpy() for i in range(len(speech))]
    write_speech(tmp_path / "test", speech.audio, (*speech.emotions, "bored"), utterances, mels)
    inputs = {"model": tmp_path / "model", "speech": tmp_path / "test"}
    examine.build_test_set(RecognitionConfig(name="mine"), inputs, tmp_path / "out", Context())
    scalars = json.loads((tmp_path / "out/scalars.json").read_text())
    table = pd.read_parquet(tmp_path / "out/recognition_mine.parquet")
    expected = [utterance.id for utterance in utterances if utterance.emotion in known]
    assert list(table["id"]) == expected
    assert scalars["rm_n_mine"] == len(expected) > 0
    assert scalars["rm_left_out_mine"] == 20 - len(expected)
    hits = table["emotion"] == table["heard"]
    assert scalars["rm_wa_mine"] == pytest.approx(hits.mean())
    assert scalars["rm_ua_mine"] == pytest.approx(hits.groupby(table["emotion"]).mean().mean())
