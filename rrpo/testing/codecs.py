"""Contract tests of a codec: `CodecContract`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.models.protocols import TokenCodec
from rrpo.testing.toy_models import SPEAKERS

TOLERANCE = 1e-4
"""Tolerance for log-mel frames."""


class CodecContract:
    """Subclass it as ``Test...`` and set a factory of a small codec: ``make = staticmethod(my_codec)``."""

    make: ClassVar[Callable[[], TokenCodec]]
    """Returns a frozen codec in evaluation mode, the same on every call."""
    speakers: ClassVar[tuple[str, str]] = SPEAKERS
    """Two speakers that it knows."""

    @pytest.fixture
    def codec(self) -> TokenCodec:
        """Return a new codec."""
        return type(self).make()

    def tokens(self, codec: TokenCodec) -> tuple[Tensor, Tensor, Tensor]:
        """Return two rows of tokens ``[2, 9]``, their lengths, their speakers."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(codec.vocabulary, (2, 9), generator=generator).to(codec.device)
        return tokens, torch.tensor([9, 4], device=codec.device), codec.speaker_index(list(self.speakers))

    def test_frames_become_tokens(self, codec: TokenCodec) -> None:
        """Token counts do not depend on other utterances in the batch, and all ids are in the vocabulary."""
        generator = torch.Generator().manual_seed(0)
        F = (torch.randn(2, 40, codec.audio.n_mels, generator=generator) - 3).to(codec.device)
        tokens, lengths = codec.encode(F, torch.tensor([40, 12], device=codec.device))
        alone, short = codec.encode(F[1:, :12], torch.tensor([12], device=codec.device))
        assert int(lengths[1]) == int(short[0]) < int(lengths[0]) == tokens.shape[1]
        assert torch.equal(tokens[1, : int(short[0])], alone[0])
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < codec.vocabulary == len(codec.codebook)

    def test_ids_rows_and_codes_decode_to_the_same_frames(self, codec: TokenCodec) -> None:
        tokens, lengths, speaker = self.tokens(codec)
        F, frames = codec.decode(tokens, lengths, speaker)
        assert F.shape == (2, int(frames.max()), codec.audio.n_mels)
        rows = F_.one_hot(tokens, codec.vocabulary).float()
        for decoded, decoded_frames in (
            codec.decode(rows, lengths, speaker),
            codec.decode_codes(codec.codebook[tokens], lengths, speaker),
        ):
            assert torch.equal(decoded_frames, frames)
            assert torch.allclose(decoded, F, atol=TOLERANCE)

    def test_padding_does_not_matter(self, codec: TokenCodec) -> None:
        tokens, lengths, speaker = self.tokens(codec)
        F, frames = codec.decode(tokens, lengths, speaker)
        short, n = int(lengths[1]), int(frames[1])
        alone, _ = codec.decode(tokens[1:, :short], lengths[1:], speaker[1:])
        assert torch.allclose(F[1, :n], alone[0, :n], atol=TOLERANCE)

    def test_only_relaxed_tokens_within_the_length_have_a_gradient(self, codec: TokenCodec) -> None:
        tokens, lengths, speaker = self.tokens(codec)
        relaxed = torch.full((*tokens.shape, codec.vocabulary), 1 / codec.vocabulary, device=codec.device)
        F, _ = codec.decode(relaxed.requires_grad_(), lengths, speaker)
        (gradient,) = torch.autograd.grad(F.square().sum(), relaxed)
        assert bool((gradient[1, : int(lengths[1])].abs().sum(1) > 0).all())
        assert not gradient[1, int(lengths[1]) :].any()

    def test_the_speaker_changes_the_frames(self, codec: TokenCodec) -> None:
        tokens, lengths, speaker = self.tokens(codec)
        F, _ = codec.decode(tokens[:1].repeat(2, 1), lengths[:1].repeat(2), speaker)
        assert not torch.allclose(F[0], F[1], atol=TOLERANCE)

    def test_an_unknown_speaker_is_rejected(self, codec: TokenCodec) -> None:
        with pytest.raises(ValueError, match="no-such-speaker"):
            codec.speaker_index([self.speakers[0], "no-such-speaker"])
