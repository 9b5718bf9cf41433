"""The stage ``prefix_classifier``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rrpo.config import PrefixClassifierConfig
from rrpo.models.prefix_classifier import PrefixClassifier
from rrpo.pipeline.stages import Context
from rrpo.training import prefix_classifier

CONFIG = PrefixClassifierConfig(dim=16, steps=5, batch=8, dropout=0.0)


def with_neutral(speech: Path, folder: Path) -> Path:
    """The speech with its third class renamed."""
    shutil.copytree(speech, folder)
    for name in ("manifest.jsonl", "config.json"):
        (folder / name).write_text((folder / name).read_text().replace('"sad"', '"neutral"'))
    return folder


def test_it_is_stored_with_its_accuracy_along_the_utterance(
    tmp_path: Path, toy_speech: Callable[..., Path], toy_codec: Path
) -> None:
    inputs = {
        "speech": with_neutral(toy_speech(24), tmp_path / "speech"),
        "heldout": with_neutral(toy_speech(12, seed=1), tmp_path / "heldout"),
        "codec": toy_codec,
    }
    out = tmp_path / "out"
    out.mkdir()
    prefix_classifier.build(CONFIG, inputs, out, Context())
    scalars = json.loads((out / "scalars.json").read_text())
    assert list(scalars) == [f"prefix_accuracy_{share}" for share in (25, 50, 75, 100)]
    assert all(0 <= value <= 1 for value in scalars.values())
    model = PrefixClassifier.load(out)
    assert model.emotions == ("angry", "happy", "neutral")
    assert model(torch.tensor([[0, 25]])).exp().sum(-1).tolist() == [pytest.approx([1.0, 1.0])]


def test_speech_without_neutral_is_rejected(tmp_path: Path, toy_speech: Callable[..., Path], toy_codec: Path) -> None:
    inputs = {"speech": toy_speech(24), "heldout": toy_speech(12, seed=1), "codec": toy_codec}
    with pytest.raises(ValueError, match="neutral"):
        prefix_classifier.build(CONFIG, inputs, tmp_path, Context())
