"""Acoustic intensity: the axis from neutral to an emotion, its measures, and the stage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import samples_of

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.prompts import Prompt, write_prompts
from rrpo.judges import intensity
from rrpo.judges.config import IntensityConfig, JudgeConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.intensity import MEASURES, Axes, measures
from rrpo.judges.samples import Samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context


def test_neutral_is_zero_the_emotions_mean_is_one_and_half_way_a_half() -> None:
    """Two speakers with different neutral voices; happy changes the first measure by 2, sad the second by -4."""
    neutral = {"anna": np.array([0.0, 0.0]), "ben": np.array([10.0, -5.0])}
    moves = {"neutral": np.array([0.0, 0.0]), "happy": np.array([2.0, 0.0]), "sad": np.array([0.0, -4.0])}
    spread = [np.array(step) for step in ([0.5, 0.1], [-0.5, -0.1], [0.1, -0.5], [-0.1, 0.5])]
    rows = [(s, e, neutral[s] + moves[e] + step) for s in neutral for e in moves for step in spread]
    axes = Axes(np.array([x for *_, x in rows]), [e for _, e, _ in rows], [s for s, *_ in rows], 0.1)
    cases = [("anna", "happy", 0.0), ("ben", "happy", 1.0), ("ben", "sad", 0.5), ("anna", "sad", 2.0)]
    x = np.array([neutral[s] + share * moves[e] for s, e, share in cases])
    positions = axes.places(x, [e for _, e, _ in cases], [s for s, *_ in cases])
    assert positions == pytest.approx([share for *_, share in cases])
    with pytest.raises(ValueError, match="there is no neutral speech by cora, with which intensity is compared"):
        axes.places(x[:1], ["happy"], ["cora"])
    with pytest.raises(ValueError, match="there is no neutral speech by ben"):
        Axes(np.array([x for *_, x in rows[:13]]), [e for _, e, _ in rows[:12]] + ["sad"], ["anna"] * 12 + ["ben"], 0.1)


def test_measures_do_not_depend_on_padding() -> None:
    audio = AudioConfig()
    torch.manual_seed(0)
    F = torch.randn(2, 30, audio.n_mels) - 3
    lengths, phones = torch.tensor([30, 12]), torch.tensor([10, 6])
    together = measures(F, lengths, phones, audio)
    alone = measures(F[1:, :12], lengths[1:], phones[1:], audio)
    assert together.shape == (2, len(MEASURES))
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-5, atol=1e-5)


def test_louder_is_more_energy_and_slower_more_frames_a_phone() -> None:
    audio = AudioConfig()
    F = torch.zeros(2, 20, audio.n_mels)
    F[1] += 1.0
    x = measures(F, torch.tensor([20, 20]), torch.tensor([10, 5]), audio)
    energy, pace, tilt = (MEASURES.index(name) for name in ("energy", "pace", "tilt"))
    assert x[1, energy] - x[0, energy] == pytest.approx(1.0, abs=1e-5)
    assert x[1, pace] - x[0, pace] == pytest.approx(math.log(2))
    assert x[1, tilt] == pytest.approx(x[0, tilt], abs=1e-5)


def test_each_sample_is_placed_on_the_axis_of_its_prompt(
    toy_speech: Callable[..., Path], toy_codec: Path, tmp_path: Path
) -> None:
    """Two checkpoints of samples of different lengths, compared with measuring one sample and one utterance at a time."""
    emotions = ("angry", "happy", "neutral")
    inputs = {name: tmp_path / name for name in ("samples", "eval_prompts", "test", "out")}
    for folder in inputs.values():
        folder.mkdir()
    inputs |= {"speech": toy_speech(24, emotions=emotions), "codec": toy_codec}
    speech, codec = SpeechSet.load(inputs["speech"]), Codec.load(toy_codec)
    prompts = [
        Prompt(id=str(i), text="t", phones=("t",) * (i + 1), speaker=codec.speakers[i % 2], emotion=emotions[i // 2])
        for i in range(4)
    ]
    write_prompts(inputs["eval_prompts"], prompts)
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(dim=8), emotions, codec.audio).eval()
    judge.save(inputs["test"])
    rng = np.random.default_rng(0)
    tokens = {step: [rng.integers(0, 25, 9 - 2 * i + step).tolist() for i in range(4)] for step in (0, 3)}
    Samples.concatenate([samples_of(step, rows) for step, rows in tokens.items()]).save(inputs["samples"])
    intensity.build(IntensityConfig(), inputs, inputs["out"], Context())
    table = pd.read_parquet(inputs["out"] / "intensity_samples.parquet")

    x = []
    for i, own in enumerate(speech.utterances):
        frames = codec.resynthesise(*speech.batch([i]), codec.speaker_index([own.speaker]))
        x.append(measures(*frames, torch.tensor([len(own.phones)]), codec.audio)[0])
    axes = Axes(np.array(x), [u.emotion for u in speech.utterances], [u.speaker for u in speech.utterances], 0.1)
    rows = [(step, i, sample) for step in tokens for i, sample in enumerate(tokens[step])]
    for (step, i, sample), (_, row) in zip(rows, table.iterrows(), strict=True):
        speaker = codec.speaker_index([prompts[i].speaker])
        F, lengths = codec.decode(torch.tensor([sample]), torch.tensor([len(sample)]), speaker)
        place = axes.places(
            measures(F, lengths, torch.tensor([i + 1]), codec.audio), [prompts[i].emotion], [prompts[i].speaker]
        )
        assert (row["step"], row["prompt"]) == (step, i)
        assert row["intensity"] == pytest.approx(place[0], rel=1e-3)
        heard = judge.log_probs(F, lengths)[0].exp().tolist()
        assert row[[f"heard_{name}" for name in emotions]].tolist() == pytest.approx(heard, rel=1e-3)
    last = json.loads((inputs["out"] / "scalars.json").read_text())["end_intensity"]
    assert last == pytest.approx(table["intensity"][4:].mean())
