"""Eq. 5: the objective of the reward model's fine-tuning, including all regularizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rrpo.regularizers.base import Batch, Regularizer, SampleLoss, cross_entropy
from rrpo.regularizers.registry import active

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import RegularizerConfig
    from rrpo.models.reward_model import RewardModel


def scalars_of(regularizers: Sequence[Regularizer]) -> list[str]:
    """Return the names of the scalars of `robust_loss`: the objective, L_emo, additional terms, and other recorded values."""
    terms = [regularizer.term for regularizer in regularizers if regularizer.term]
    return ["loss", "l_emo", *terms, *(name for regularizer in regularizers for name in regularizer.scalars)]


def robust_loss(
    model: RewardModel, F: Tensor, lengths: Tensor, y: Tensor, config: RegularizerConfig, seed: int, step: int
) -> dict[str, Tensor]:
    """Return `objective` for the regularizers of a config, with the noise of one step of one seed."""
    regularizers = active(config)
    draws = [regularizer.draws(F.shape, seed, step).to(F.device, non_blocking=True) for regularizer in regularizers]
    return objective(model, F, lengths, y, regularizers, draws)


def objective(
    model: RewardModel,
    F: Tensor,
    lengths: Tensor,
    y: Tensor,
    regularizers: Sequence[Regularizer],
    draws: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Compute Eq. 5, ``L_ser = L_emo + α L_adv``, including Eq. 2-4 and the additions of plugins.

    ``L_emo = mean_i[(1-λ_i) L_LS(ŷ_i, y'_i) + λ_i L_LS(ŷ_i, y'_j)]`` (Eq. 3, second label read as the partner's) and L_adv is
    the same at ``h' + δ``. L_adv is computed at ``α = 0`` too: it then adds exact zeros.

    Args:
        model: The reward model.
        F: Log-mel frames ``[B, T, M]``.
        lengths: Frames of each utterance ``[B]``.
        y: Labels before smoothing, one-hot or vote shares ``[B, K]``.
        regularizers: Regularizers in the order in which they act.
        draws: Noise of each, from its `Regularizer.draws`.

    Returns:
        The scalars named by `scalars_of`: ``loss`` with its graph, the others without. RRPO's own are ``l_emo``, ``l_adv``,
            ``lambda`` (mean λ) and ``relative_delta`` (mean ||δ||/||h'||).
    """
    from rrpo.masking import valid_mask

    sample_loss: SampleLoss = cross_entropy
    for regularizer in regularizers:
        y = regularizer.targets(y)
        sample_loss = regularizer.loss(sample_loss)
    batch = Batch(F, lengths, ((y.new_ones(len(y)), y),), model.floor, signal=model.signal)
    for regularizer, noise in zip(regularizers, draws, strict=True):
        batch = regularizer.mix(batch, noise)
    h, mask = model.encode(batch.F, batch.lengths)

    def losses(h: Tensor) -> Tensor:
        logits = model.classify(h, mask)
        first, *others = (weight * sample_loss(logits, target) for weight, target in batch.targets)
        return sum(others, start=first)

    def input_losses(F: Tensor) -> Tensor:
        return losses(model.encode(F, batch.lengths)[0])

    levels = {
        "hidden": (losses, h, mask),
        "input": (input_losses, batch.F, valid_mask(batch.lengths, batch.F.shape[1])),
    }
    l_emo = losses(h).mean()
    loss = l_emo
    scalars = {"l_emo": l_emo.detach(), **batch.scalars}
    for regularizer, noise in zip(regularizers, draws, strict=True):
        if regularizer.term:
            term = regularizer.extra(*levels[regularizer.level], noise)
            mean = term.losses.mean()
            loss = loss + term.weight * mean
            scalars |= {regularizer.term: mean.detach(), **term.scalars}
    return {"loss": loss, **scalars}
