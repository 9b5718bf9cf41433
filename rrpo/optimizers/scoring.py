"""Components of objectives: roll-outs, their scores by the policy and the reference, and the rewards of the decoded speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.masking import with_eos
from rrpo.models.policy import Rollout
from rrpo.optimizers.base import Batch, Loss, MicroBatch
from rrpo.optimizers.reward import reward_loss
from rrpo.optimizers.rollout import Models, Prompts, merge, micro_batches
from rrpo.seeding import uniform


def roll_out(
    models: Models, prompts: Prompts, config: OptimizeConfig, step: int, numbers: Sequence[int] | None = None
) -> Batch:
    """Draw one sample for each of the B ``prompts``, with noise keyed by seed, step and row: the same for all arms of one batch
    size.

    ``numbers`` are the rows of these prompts in the whole batch, if other processes roll out the others.
    """
    shape = (models.policy.max_tokens, len(prompts.phones) if numbers is None else config.batch)
    noise = uniform(shape, config.seed, "sampling noise", step, device=prompts.prefix.device)
    if numbers is not None:
        noise = noise[:, numbers]
    return Batch(step, prompts, models.policy.sample(prompts.prefix, noise), numbers)


def split(models: Models, batch: Batch) -> Iterator[MicroBatch]:
    """Yield the batch in `micro_batches`."""
    for rows in micro_batches(batch.rollout.lengths, models.micro):
        share = len(rows) / len(batch.rollout.lengths)
        yield MicroBatch(rows, share, batch.prompts.select(rows), batch.rollout.select(rows))


@dataclass(frozen=True)
class Scores:
    """Scores of P sampled positions (every token, and eos where it was drawn) by the policy and its reference."""

    logits: Tensor
    """``[P, V + 1]`` of the policy, with gradient."""
    log_p: Tensor
    """``[P, V + 1]``, their log-probabilities without gradient."""
    kl: Tensor
    """``[b]``: full-vocabulary KL to the reference (Eq. 6), summed over each utterance's positions; with gradient."""
    penalty: Tensor
    """``[b]``, with gradient: the term weighted by β, one of `rrpo.config.PENALTIES`, summed over each utterance's positions."""


def score(models: Models, part: MicroBatch, penalty: str = "kl") -> Scores:
    """Run one parallel forward of the policy and of the reference.

    ``kl``: ``sum_v p log(p / q)``. ``chi2``: ``sum_v p^2 / q - 1``, the chi-squared divergence of each position's distribution
    (Laidlaw et al. 2024, arXiv 2403.03185, penalize that of whole sequences; the per-position form is ours). The penalty's
    gradient omits its prefix term: the effect of early samples on the contexts of later terms.
    """
    tokens, counts = part.rollout.tokens, part.rollout.counts
    logits = models.policy.packed_logits(part.prompts.prefix, tokens, counts)
    with torch.no_grad():
        reference = models.reference.packed_logits(part.prompts.prefix, tokens, counts)
        log_p = logits.log_softmax(-1)
        ratio = log_p - reference.log_softmax(-1)
    # the gradient of log p within E[log p - log q] is zero: sum_v p_v d(log p_v) = 0
    p = logits.softmax(-1)
    kl = part.rollout.sums(torch.linalg.vecdot(p, ratio))
    if penalty == "kl":
        return Scores(logits, log_p, kl, kl)
    # the gradient of sum_v p_v^2 / q_v is sum_v 2 (p_v / q_v) dp_v
    chi2 = torch.linalg.vecdot(p, 2 * ratio.exp()) - (log_p + ratio).exp().sum(-1) - 1
    return Scores(logits, log_p, kl, part.rollout.sums(chi2))


def predicted(rollout: Rollout, logits: Tensor) -> Tensor:
    """Return ``[P]``: the classes at the scored positions of ``logits [P, V + 1]``, tokens and eos (the last class)."""
    values = with_eos(rollout.tokens, rollout.lengths, logits.shape[1] - 1)
    return rollout.pick(values, len(logits))


def sampled_log_probs(rollout: Rollout, logits: Tensor) -> Tensor:
    """Return ``[P]``: log-probabilities of the sampled tokens, eos included, under ``logits [P, V + 1]``; with gradient."""
    tokens = predicted(rollout, logits)
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


@dataclass(frozen=True)
class Rewards:
    """Outputs of the frozen models for a batch's sampled speech; no gradient."""

    losses: dict[str, Tensor]
    """``[B]`` by name: ``reward_loss`` (-R) and ``content_loss`` (the phone recognizer's)."""
    frames: list[tuple[Tensor, Tensor]]
    """F ``[b, T, M]`` and lengths ``[b]`` of each of the batch's micro-batches."""

    def cost(self, config: OptimizeConfig) -> Tensor:
        """Return ``[B]``, the cost to minimize: the losses by the config's weights of emotion and content, without the KL."""
        losses = self.losses
        return config.emotion_weight * losses["reward_loss"] + config.content_weight * losses["content_loss"]

    def of(self, part: MicroBatch) -> dict[str, Tensor]:
        """Return `losses` for a micro-batch's rows."""
        return {name: losses[part.rows] for name, losses in self.losses.items()}


@torch.no_grad()
def compute_rewards(models: Models, batch: Batch, config: OptimizeConfig) -> Rewards:
    """Decode the sampled tokens, and compute the losses of the reward model and the phone recognizer."""
    losses: list[tuple[Tensor, dict[str, Tensor]]] = []
    decoded: list[tuple[Tensor, Tensor]] = []
    for part in split(models, batch):
        F, frames = models.codec.decode(part.rollout.tokens, part.rollout.lengths, part.prompts.speaker)
        reward = reward_loss(models.reward_model, F, frames, part.prompts.target, config.reward)
        content = models.recogniser.ctc_loss(F, frames, part.prompts.phones)
        losses.append((part.rows, {"reward_loss": reward, "content_loss": content}))
        decoded.append((F, frames))
    return Rewards(merge(losses), decoded)


def policy_gradient(
    models: Models, batch: Batch, config: OptimizeConfig, outputs: Rewards, advantage: Tensor
) -> Iterator[Loss]:
    """Yield losses of one update with the gradient ``-mean_i A_i grad log pi(y_i)`` plus β times that of the penalty.

    Args:
        models: Policy and reference.
        batch: The roll-outs.
        config: β and the penalty.
        outputs: Result of `compute_rewards` on the batch.
        advantage: A ``[B]``.
    """
    for part, frames in zip(split(models, batch), outputs.frames, strict=True):
        scores = score(models, part, config.penalty)
        log_p = part.rollout.sums(sampled_log_probs(part.rollout, scores.logits))
        loss = config.beta * scores.penalty - advantage[part.rows] * log_p
        yield Loss(part, part.share * loss.mean(), outputs.of(part), scores.kl.detach(), scores.log_p, frames)
