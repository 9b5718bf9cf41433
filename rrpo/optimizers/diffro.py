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
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.optimizers.rollout import Models, Prompts, micro_batches
from rrpo.policy import Rollout, token_kl
from rrpo.relaxation import soft_tokens, straight_through, temperature
from rrpo.reward import reward_loss
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
    rollout: Rollout
    """Their samples."""
    logits: Tensor
    """``[b, N + 1, V + 1]``, detached."""
    reference: Tensor
    """``[b, N + 1, V + 1]`` of the SFT policy."""
    frames: tuple[Tensor, Tensor]
    """Decoded F ``[b, T, M]`` (detached; hard tokens, by straight-through) and lengths ``[b]``."""
    soft: Tensor
    """``[b, N, V]``, detached: the relaxed tokens whose gradient the hard ones take."""


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
    shape = (rollout.tokens.shape[1], batch, models.policy.codes)
    gumbel = uniform(shape, config.seed, "gumbel noise", step, device=device)
    tau = temperature(step, config.steps, config.tau)
    for rows in micro_batches(rollout.lengths, models.micro):
        part = rollout.select(rows)
        noise = gumbel[: part.tokens.shape[1], rows].transpose(0, 1)
        yield _loss(models, prompts.select(rows), part, noise, config, tau, rows, len(rows) / batch)


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
    """``noise [b, N, V]`` are uniforms; ``share`` is the rows' part of the batch."""
    tokens = rollout.tokens
    logits = models.policy.logits(prompts.prefix, tokens)
    with torch.no_grad():
        reference = models.reference.logits(prompts.prefix, tokens)
    kl = (token_kl(logits, reference) * rollout.scored).sum(1)
    soft = soft_tokens(logits[:, :-1, : models.policy.codes], tokens, noise, tau, config.relaxation)
    F, frames = models.codec.decode(straight_through(soft, tokens), rollout.lengths, prompts.speaker)
    pushed = scale_gradient(F, config.gradient_scale)
    reward = reward_loss(models.reward_model, pushed, frames, prompts.target, config.reward)
    content = models.recogniser.ctc_loss(F, frames, prompts.phones)
    loss = share * (config.emotion_weight * reward + config.content_weight * content + config.beta * kl).mean()
    parts = {"reward_loss": reward.detach(), "content_loss": content.detach()}
    return Step(rows, loss, parts, rollout, logits.detach(), reference, (F.detach(), frames), soft.detach())
