"""The stage ``prefix_classifier``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from rrpo.config import PrefixClassifierConfig
from rrpo.corpus.features import SpeechSet
from rrpo.models.codec import Codec
from rrpo.models.prefix_classifier import PrefixClassifier
from rrpo.pipeline.stages import Context
from rrpo.training import prefix_classifier
from rrpo.training.sft import TokenSet

CONFIG = PrefixClassifierConfig(dim=16, steps=5, batch=8, dropout=0.0)


EMOTIONS = ("angry", "happy", "neutral")


class ByToken:
    """A classifier that looks at the current token only; ``features [V + 1, K]`` are its probabilities."""

    emotions = EMOTIONS

    def __init__(self, features: list[list[float]]) -> None:
        self.features = torch.tensor(features)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.features[tokens].log()


def tokens_of(**utterances: list[int]) -> Any:
    """Return a stand-in for a `TokenSet`: emotion -> tokens of an utterance."""
    return SimpleNamespace(
        utterances=[SimpleNamespace(emotion=name) for name in utterances],
        tokens=pad_sequence([torch.tensor(row) for row in utterances.values()], batch_first=True),
        lengths=torch.tensor([len(row) for row in utterances.values()]),
    )


def test_the_loss_is_the_mean_over_all_prefixes_by_hand() -> None:
    """Each utterance has the probabilities of its own emotion at its tokens and at eos, token 3; padding does not count."""
    model: Any = ByToken([[0.5, 0.25, 0.25], [0.6, 0.25, 0.15], [0.125, 0.125, 0.75], [0.7, 0.2, 0.1]])
    data = tokens_of(happy=[1], angry=[0, 2])
    expected = -np.log([0.5, 0.125, 0.7, 0.25, 0.2]).mean()
    assert prefix_classifier._loss(model, data, np.array([1, 0])).item() == pytest.approx(expected)
    alone = -np.log([0.25, 0.2]).mean()
    assert prefix_classifier._loss(model, data, np.array([0])).item() == pytest.approx(alone)


def test_accuracy_is_read_after_a_share_of_the_positions() -> None:
    """Token 1 sounds happy, token 0 and eos angry. After 1, 2, 3, 4 of 4 positions the first utterance is right from the second
    on; after 2, 4, 6, 7 of 7 positions the other is right at the sixth."""
    model: Any = ByToken([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    data = tokens_of(angry=[1, 0, 0], happy=[0, 0, 0, 0, 0, 1])
    assert list(prefix_classifier._accuracies(model, data).values()) == [0.0, 0.5, 1.0, 0.5]


def test_it_is_stored_with_its_accuracy_along_the_utterance(
    tmp_path: Path, toy_speech: Callable[..., Path], toy_codec: Path
) -> None:
    inputs = {
        "speech": toy_speech(24, emotions=EMOTIONS),
        "heldout": toy_speech(12, seed=1, emotions=EMOTIONS),
        "codec": toy_codec,
    }
    out = tmp_path / "out"
    out.mkdir()
    prefix_classifier.build(CONFIG, inputs, out, Context())
    scalars = json.loads((out / "scalars.json").read_text())
    assert list(scalars) == [f"prefix_accuracy_{share}" for share in (25, 50, 75, 100)]
    model = PrefixClassifier.load(out)
    assert model.emotions == EMOTIONS
    heldout = TokenSet(SpeechSet.load(inputs["heldout"]), Codec.load(toy_codec), "cpu")
    assert scalars == prefix_classifier._accuracies(model, heldout)
    assert model(torch.tensor([[0, 25]])).exp().sum(-1).tolist() == [pytest.approx([1.0, 1.0])]


def test_speech_without_neutral_is_rejected(tmp_path: Path, toy_speech: Callable[..., Path], toy_codec: Path) -> None:
    inputs = {"speech": toy_speech(24), "heldout": toy_speech(12, seed=1), "codec": toy_codec}
    with pytest.raises(ValueError, match="neutral"):
        prefix_classifier.build(CONFIG, inputs, tmp_path, Context())
