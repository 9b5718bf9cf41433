"""The codec: one-hot rows and ids decode equally, padding never leaks, gradients reach tokens, training lowers the error."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rrpo.config import CodecConfig
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.testing import toy_models
from rrpo.testing.codecs import CodecContract
from rrpo.training.codec import build


class TestCodec(CodecContract):
    make = staticmethod(toy_models.toy_codec)


@pytest.fixture(scope="module")
def codec(toy_codec: Path) -> Codec:
    return Codec.load(toy_codec)


def test_a_saved_codec_loads_unchanged(codec: Codec, tmp_path: Path) -> None:
    codec.save(tmp_path)
    loaded, (tokens, lengths) = Codec.load(tmp_path), codec.encode(*frames(10, 7))
    speaker = codec.speaker_index(["anna", "ben"])
    assert loaded.audio == codec.audio
    assert torch.equal(loaded.decode(tokens, lengths, speaker)[0], codec.decode(tokens, lengths, speaker)[0])


def frames(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    F = torch.randn(len(lengths), max(lengths), 8, generator=torch.Generator().manual_seed(0)) - 3
    return F, torch.tensor(lengths)


def test_two_frames_make_a_token(codec: Codec) -> None:
    tokens, lengths = codec.encode(*frames(10, 7, 1))
    assert tokens.shape == (3, 5)
    assert lengths.tolist() == [5, 4, 1]
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) < codec.vocabulary == 25


def test_padding_changes_neither_tokens_nor_frames(codec: Codec) -> None:
    F, lengths = frames(12, 6)
    tokens, steps = codec.encode(F, lengths)
    alone, _ = codec.encode(F[1:, :6], lengths[1:])
    assert torch.equal(tokens[1, :3], alone[0])
    speaker = codec.speaker_index(["anna", "ben"])
    together, _ = codec.decode(tokens, steps, speaker)
    short, _ = codec.decode(alone, steps[1:], speaker[1:])
    assert torch.allclose(together[1, :6], short[0], atol=1e-6)
    assert (together[1, 6:] == together.min()).all()


def test_training_lowers_the_held_out_error(toy_speech: Callable[..., Path], tmp_path: Path) -> None:
    errors = []
    for steps in (1, 150):
        out = tmp_path / str(steps)
        out.mkdir()
        build(CodecConfig(levels=(5, 5), dim=16, steps=steps, crop=8), {"speech": toy_speech(120)}, out, Context())
        errors.append(json.loads((out / "scalars.json").read_text())["codec_l1"])
        assert torch.isfinite(Codec.load(out).resynthesise(*frames(5), torch.tensor([0]))[0]).all()
    assert errors[1] < 0.9 * errors[0]


def test_an_unknown_speaker_is_rejected_or_gets_the_mean_voice(codec: Codec) -> None:
    with pytest.raises(ValueError, match="not trained on speaker 'zoe'"):
        codec.speaker_index(["anna", "zoe"])
    speaker = codec.speaker_index(["ben", "zoe"], average=True)
    assert speaker[0] == codec.speaker_index(["ben"])[0]
    tokens, lengths = torch.tensor([[3, 7, 1]] * 2), torch.tensor([3, 3])
    decoded, _ = codec.decode(tokens, lengths, speaker)
    assert not torch.equal(decoded[0], decoded[1])
    with torch.no_grad():
        weight = codec.speaker.weight.clone()
        codec.speaker.weight.copy_(weight.mean(0, keepdim=True).expand_as(weight))
        mean, _ = codec.decode(tokens, lengths, torch.tensor([0, 0]))
        codec.speaker.weight.copy_(weight)
    assert torch.allclose(decoded[1], mean[1], atol=1e-5)
