"""The non-neural judge learns from real rendered speech, returns a distribution, and can be saved and loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("parselmouth", reason="extra judges")

from rrpo.corpus.features import SpeechSet
from rrpo.judges.config import PhoneticJudgeConfig
from rrpo.judges.phonetic_judge import PhoneticJudge, build, features
from rrpo.judges.phonetics import MEASURES
from rrpo.pipeline.stages import Context


@pytest.fixture(scope="module")
def folder(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phonetic")
    inputs = {"speech": stages["speech"], "codec": stages["codec"]}
    build(PhoneticJudgeConfig(folds=2, shrinkage=0.5), inputs, out, Context())
    return out


def test_it_classifies_its_training_data(folder: Path, stages: dict[str, Path]) -> None:
    speech = SpeechSet.load(stages["speech"])
    judge = PhoneticJudge.load(folder)
    right = judge.log_probs(*speech.batch(range(len(speech)))).argmax(1) == speech.labels(speech.emotions)
    assert right.float().mean() > 0.5
    scores = json.loads((folder / "scalars.json").read_text())
    assert set(scores) == {"accuracy_lda", "accuracy_qda"}


def test_answers_are_distributions_and_do_not_depend_on_neighbours(folder: Path, frames: tuple[Tensor, Tensor]) -> None:
    judge = PhoneticJudge.load(folder)
    F, lengths = frames
    together = judge.log_probs(F, lengths)
    assert torch.allclose(together.exp().sum(1), torch.ones(len(F)), atol=1e-4)
    alone = torch.cat([judge.log_probs(F[i : i + 1, : lengths[i]], lengths[i : i + 1]) for i in range(len(F))])
    assert torch.allclose(together, alone, atol=0.05)


def test_features_are_those_of_the_vocoded_wave(frames: tuple[Tensor, Tensor], stages: dict[str, Path]) -> None:
    audio = SpeechSet.load(stages["heldout"]).audio
    F, lengths = frames
    soft, loud = features(F, lengths, audio), features(F + np.log(4.0), lengths, audio)
    assert soft.shape == (len(F), len(MEASURES))
    assert loud[:, MEASURES.index("intensity")] - soft[:, MEASURES.index("intensity")] == pytest.approx(6.02, abs=0.3)
