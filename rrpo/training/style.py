"""EmoMix's style loss (arXiv 2306.00648) in the supervised training of a token policy: emotional style by Gram matrices.

    L_style = || G(h(y)) - G(h(ref)) ||_F^2 / d^2,   G(h) = h^T h / T

h are the frame-level features ``[T, d]`` of an emotion recogniser. ref is an utterance after the codec, and y the same
utterance as predicted token by token by the policy; the codec decodes the policy's probabilities, so that the loss has a
gradient. A Gram matrix discards when a feature occurs and keeps which features occur together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rrpo.masking import valid_mask
from rrpo.models.protocols import TokenCodec
from rrpo.models.reward_model import RewardModel


@dataclass(frozen=True)
class StyleLoss:
    """Weighted style loss on the features h' of one frozen recogniser."""

    model: RewardModel
    codec: TokenCodec
    weight: float

    @staticmethod
    def load(folder: Path, codec: TokenCodec, weight: float) -> StyleLoss:
        """Load the recogniser, a reward model, from ``folder``."""
        return StyleLoss(RewardModel.load(folder, str(codec.device)), codec, weight)

    def __call__(self, packed: Tensor, tokens: Tensor, lengths: Tensor, speakers: Sequence[str]) -> Tensor:
        """Return the weighted mean over B utterances.

        Args:
            packed: The policy's logits ``[P, V + 1]`` for each utterance's tokens and eos, concatenated; eos is ignored.
            tokens: True tokens ``[B, N]``.
            lengths: ``[B]`` in tokens.
            speakers: B names.
        """
        speaker = self.codec.speaker_index(list(speakers))
        valid = valid_mask(lengths, tokens.shape[1])
        ends = torch.zeros(len(packed), dtype=torch.bool, device=packed.device)
        ends[(lengths + 1).cumsum(0) - 1] = True
        probabilities = packed[~ends, : self.codec.vocabulary].softmax(1)
        relaxed = packed.new_zeros(*valid.shape, self.codec.vocabulary).masked_scatter(valid[..., None], probabilities)
        predicted = self._gram(*self.codec.decode(relaxed, lengths, speaker))
        with torch.no_grad():
            reference = self._gram(*self.codec.decode(tokens, lengths, speaker))
        return self.weight * gram_distance(predicted, reference).mean()

    def _gram(self, F: Tensor, frames: Tensor) -> Tensor:
        return gram(*self.model.encode(F, frames))


def gram(h: Tensor, mask: Tensor) -> Tensor:
    """Return G ``[B, d, d]`` of ``h [B, T, d]`` over the positions where ``mask [B, T]`` is True."""
    h = h.masked_fill(~mask[..., None], 0.0)
    return h.mT @ h / mask.sum(1)[:, None, None]


def gram_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return ``|| a - b ||_F^2 / d^2`` ``[B]`` of ``[B, d, d]``."""
    return (a - b).square().mean((1, 2))
