"""DiffRO: the reward's gradient through relaxed tokens (arXiv 2507.05911; RRPO's Eq. 1 and 6). RRPO = DiffRO on the robust RM.

One step: a roll-out by ancestral sampling without gradient; one parallel forward over it gives the same logits; eos and
specials are left out of the relaxation, so that the reward has no hidden gradient on length; the straight-through relaxed
tokens enter the codec's decoder, its frames the frozen reward model and the phone recogniser.

Loss = emotion weight x reward loss + content weight x phone recogniser's loss + beta x KL(pi || pi_SFT) summed over an
utterance's positions (Eq. 6; the content term is DiffRO's multi-task reward). The gradient scale multiplies what the emotion
reward model sends into the frames, and nothing else. A weight or a scale of 1 changes no bit.

What differs from the exact gradient, and is known: (1) the path through the sampled history is dropped, so a token's
influence on later tokens earns nothing; (2) so is the KL's prefix term; (3) softmax at tau > 0 is biased.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.models.policy import Rollout
from rrpo.optimizers.relaxation import soft_tokens, straight_through, temperature
from rrpo.optimizers.reward import reward_loss
from rrpo.optimizers.rollout import Models, Prompts, micro_batches
from rrpo.seeding import uniform


@dataclass(frozen=True)
class Step:
    """The share that some rows of a batch have in one step's loss."""

    rows: Tensor
    """``[b]`` row numbers."""
    loss: Tensor
    """Scalar to be differentiated: their share of the batch's mean, so that the shares' sum is the step's loss."""
    parts: dict[str, Tensor]
    """``[b]``, detached: reward loss, content loss."""
    kl: Tensor
    """``[b]``, detached: KL to the reference in nats an utterance."""
    rollout: Rollout
    """Their samples."""
    log_p: Tensor
    """``[P, V + 1]``, detached: log-probabilities at the positions whose prediction was used, one row after another."""
    frames: tuple[Tensor, Tensor]
    """Decoded F ``[b, T, M]`` (detached; hard tokens, by straight-through) and lengths ``[b]``."""
    soft: Tensor
    """``[P, V]``, detached: the relaxed tokens whose gradient the hard ones take."""


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """``x``, whose gradient is multiplied by ``scale``: the identity, gradient and all, at 1."""
    return x.detach() + scale * (x - x.detach())


def diffro_step(models: Models, prompts: Prompts, config: OptimizeConfig, step: int) -> Iterator[Step]:
    """Samples a batch; then relaxes, decodes and gives the loss of one micro-batch after another.

    Differentiate each before the next is asked for: gradients add up to the step's, and only one graph is held.

    Args:
        models: Policy, reference and the frozen models.
        prompts: The step's prompts, B rows.
        config: The objective; ``config.seed`` keys the noise.
        step: Index of the step, from 0.
    """
    device = prompts.prefix.device
    batch, longest = len(prompts.phones), models.policy.config.max_tokens
    draw = uniform((longest, batch), config.seed, "sampling noise", step, device=device)
    rollout = models.policy.sample(prompts.prefix, draw)
    tau = temperature(step, config.steps, config.tau)
    for rows in micro_batches(rollout.lengths, models.micro):
        part = rollout.select(rows)
        noise = [
            uniform((n, models.policy.codes), config.seed, "gumbel noise", step, row, device=device)
            for row, n in zip(rows.tolist(), part.counts.tolist(), strict=True)
        ]
        yield _loss(models, prompts.select(rows), part, torch.cat(noise), config, tau, rows, len(rows) / batch)


def _loss(
    models: Models,
    prompts: Prompts,
    rollout: Rollout,
    noise: Tensor,
    config: OptimizeConfig,
    tau: float,
    rows: Tensor,
    share: float,
) -> Step:
    """``noise [P, V]`` are uniforms, for the P predictions used of b samples; ``share`` is the rows' part of the batch."""
    tokens, counts = rollout.tokens, rollout.counts
    logits = models.policy.packed_logits(prompts.prefix, tokens, counts)
    with torch.no_grad():
        reference = models.reference.packed_logits(prompts.prefix, tokens, counts)
        log_p = logits.log_softmax(-1)
        ratio = log_p - reference.log_softmax(-1)
    # the gradient of log p within E[log p - log q] is nought: sum_v p_v d(log p_v) = 0
    kl = rollout.sums(torch.linalg.vecdot(logits.softmax(-1), ratio))
    packed = F_.pad(tokens, (0, 1))[rollout.scored]
    soft = soft_tokens(logits[:, : models.policy.codes], packed, noise, tau, config.relaxation)
    codes = rollout.padded(straight_through(soft, packed, models.codec.codebook))[:, :-1]
    F, frames = models.codec.decode_codes(codes, rollout.lengths, prompts.speaker)
    pushed = scale_gradient(F, config.gradient_scale)
    reward = reward_loss(models.reward_model, pushed, frames, prompts.target, config.reward)
    content = models.recogniser.ctc_loss(F, frames, prompts.phones)
    loss = share * (config.emotion_weight * reward + config.content_weight * content + config.beta * kl).mean()
    parts = {"reward_loss": reward.detach(), "content_loss": content.detach()}
    return Step(rows, loss, parts, kl.detach(), rollout, log_p, (F.detach(), frames), soft.detach())
