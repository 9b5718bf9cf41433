"""Speakers from references: the appended entries, the reversed gradient, and the files written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rrpo.config import ZeroShotConfig
from rrpo.corpus.features import SpeechSet, write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.tags import NEUTRAL, NO_EMOTION, NO_SPEAKER
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy
from rrpo.pipeline.stages import Context
from rrpo.testing.toy_models import AUDIO, EMOTIONS, PHONES, SPEAKERS, toy_codec, toy_policy
from rrpo.training.sft import TokenSet
from rrpo.training.zero_shot import VECTORS, ZeroShot, build, statistics, with_speakers

FRAMES = 12
CONFIG = ZeroShotConfig(steps=3, batch=4, dim=8, size=4, tag_dropout=0.15)


def speech(folder: Path, speakers: tuple[str, ...]) -> SpeechSet:
    """Return noise by each speaker in each emotion, including neutral."""
    folder.mkdir(parents=True)
    classes = (*EMOTIONS, NEUTRAL)
    utterances = [
        Utterance(
            id=f"{name}-{emotion}",
            text="ab",
            phones=PHONES,
            speaker=name,
            language="en",
            emotion=emotion,
            true_emotion=emotion,
            split="toy",
            audio="none.wav",
        )
        for name in speakers
        for emotion in classes
    ]
    rng = np.random.default_rng(0)
    mels = [rng.normal(-5, 1, (FRAMES, AUDIO.n_mels)).astype(np.float16) for _ in utterances]
    write_speech(folder, AUDIO, classes, utterances, mels)
    return SpeechSet.load(folder)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Write the inputs of the stage: the toy policy and codec know Anna and Ben; Ben is the unseen speaker of the references."""
    folders = {name: tmp_path / name for name in ("speech", "references", "codec", "base")}
    speech(folders["speech"], SPEAKERS[:1])
    speech(folders["references"], SPEAKERS[1:])
    for name, model in (("codec", toy_codec()), ("base", toy_policy())):
        folders[name].mkdir()
        model.save(folders[name])
    return folders


def model(inputs: dict[str, Path], config: ZeroShotConfig = CONFIG) -> tuple[ZeroShot, SpeechSet, TokenSet]:
    torch.manual_seed(0)
    data, codec = SpeechSet.load(inputs["speech"]), Codec.load(inputs["codec"])
    policy = toy_policy().extended({f"<{NEUTRAL}>": ["<sad>"]})
    return ZeroShot(policy, codec, len(data.emotions), config), data, TokenSet(data, codec, "cpu")


def test_an_entry_behind_the_table_is_a_speaker_like_any_other(inputs: dict[str, Path]) -> None:
    """With Anna's rows as U s and W s, the loss equals that of policy and codec for utterances by Anna."""
    zero_shot, data, tokens = model(inputs, ZeroShotConfig(dim=8, size=4))
    anna = zero_shot.policy.symbols.index("<anna>")
    with torch.no_grad():
        for layer, row in (
            (zero_shot.embedding, zero_shot.policy.llm.embed_tokens.weight[anna]),
            (zero_shot.voice, zero_shot.codec.speaker.weight[0]),
        ):
            layer.weight.zero_()
            layer.bias.copy_(row)
    chosen = np.array([0, 2, 3])
    s = zero_shot.vectors(statistics(data, zero_shot.codec))[chosen]
    expected = tokens.loss(zero_shot.policy, chosen) + zero_shot.codec.loss(
        *data.batch(chosen), torch.zeros(3, dtype=torch.long)
    )
    assert torch.allclose(zero_shot.speech_loss(s, tokens, data, chosen, 0), expected)


@pytest.mark.parametrize("reversal", [0.0, 0.5])
def test_the_encoder_unlearns_what_the_classifier_learns(inputs: dict[str, Path], reversal: float) -> None:
    """At the end the encoder's gradient is that of a cooperative classifier times -reversal; it is 0 at reversal 0 and at the
    start."""
    zero_shot, data, _ = model(inputs, ZeroShotConfig(dim=8, size=4, reversal=reversal))
    labels = data.labels(data.emotions)

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        zero_shot.zero_grad()
        loss.backward()
        return [p.grad.clone() for part in (zero_shot.encoder, zero_shot.emotion) for p in part.parameters()]

    def vectors() -> torch.Tensor:
        return zero_shot.vectors(statistics(data, zero_shot.codec))

    honest = gradients(torch.nn.functional.cross_entropy(zero_shot.emotion(vectors()), labels))
    early, late = (gradients(zero_shot.emotion_loss(vectors(), labels, progress)) for progress in (0.0, 1.0))
    encoder = len(list(zero_shot.encoder.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in honest)
    for expected, first, found in zip(honest[:encoder], early, late, strict=False):
        assert not first.any()
        assert torch.allclose(found, -reversal * math.tanh(5) * expected, atol=1e-7)
    for expected, found in zip(honest[encoder:], late[encoder:], strict=True):
        assert torch.equal(found, expected), "the classifier itself learns as ever"


def test_statistics_are_of_each_utterances_frames(inputs: dict[str, Path]) -> None:
    data, codec = SpeechSet.load(inputs["speech"]), toy_codec()
    codec.mean.fill_(-5.0)
    codec.std.fill_(2.0)
    actual = statistics(data, codec)
    frames = (data.mel(1).numpy() + 5) / 2
    assert np.allclose(actual[1], np.concatenate([frames.mean(0), frames.std(0)]), atol=1e-6)


def test_unseen_speakers_are_enrolled_from_neutral_references(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    build(CONFIG, inputs, out, Context())
    policy, codec, before = Policy.load(out), Codec.load(out), Codec.load(inputs["codec"])
    assert policy.prefix_ids([PHONES], ["ben"], ["angry"]).shape == (1, 5)
    for tag in (NEUTRAL, NO_EMOTION, NO_SPEAKER):
        assert f"<{tag}>" in policy.symbols
    assert torch.equal(codec.speaker.weight[0], before.speaker.weight[0]), "Anna has the voice that she had"
    assert not torch.equal(codec.speaker.weight[1], before.speaker.weight[1]), "Ben has that of the reference"
    for name, value in before.state_dict().items():
        if name != "speaker.weight":
            assert torch.equal(codec.state_dict()[name], value), name
    with np.load(out / VECTORS) as stored:
        assert stored["vectors"].shape == (4, CONFIG.size)
        assert stored["speakers"].tolist() == ["ben"] * 4
        assert np.allclose(stored["vectors"].mean(1), 0, atol=1e-5)


def test_new_symbols_start_as_the_mean_of_their_like(inputs: dict[str, Path]) -> None:
    policy = toy_policy()
    unseen = speech(inputs["speech"].parent / "cara", ("cara",))
    wide = with_speakers(policy, SpeechSet.load(inputs["speech"]), unseen)
    rows = wide.llm.embed_tokens.weight
    emotions = [policy.symbols.index(f"<{name}>") for name in EMOTIONS]
    assert torch.allclose(rows[wide.symbols.index(f"<{NEUTRAL}>")], rows[emotions].mean(0))
    assert torch.equal(rows[wide.symbols.index("<cara>")], rows[policy.symbols.index("<anna>")])
    assert torch.equal(rows[: len(policy.symbols)], policy.llm.embed_tokens.weight)
