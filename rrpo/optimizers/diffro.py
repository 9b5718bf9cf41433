"""DiffRO: the reward's gradient through relaxed tokens (arXiv 2507.05911; RRPO's Eq. 1 and 6). RRPO = DiffRO on the robust RM.

One step: a roll-out by ancestral sampling without gradient; one parallel forward over it, which gives the same logits; the
straight-through relaxed tokens, excluding eos and specials so that the reward has no hidden gradient on length; the codec's
decoder; the frozen reward model and the phone recognizer on its frames.

Loss = emotion weight x reward loss + content weight x phone recognizer's loss + beta x KL(pi || pi_SFT), or another penalty,
summed over an utterance's positions (Eq. 6; the content term is DiffRO's multi-task reward). The gradient scale multiplies only
the gradient that the emotion reward model sends into the frames. A weight or scale of 1 changes no bit.

Known differences from the exact gradient: (1) the path through the sampled history is dropped, so a token gets no credit for
its influence on later tokens; (2) the KL's prefix term is dropped too; (3) softmax at tau > 0 is biased.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrpo.optimizers.base import Batch, Loss, MicroBatch, PolicyOptimizer, State

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import OptimizeConfig
    from rrpo.optimizers.rollout import Models


@dataclass(frozen=True)
class RelaxedLoss(Loss):
    """A loss whose reward is differentiated through relaxed tokens."""

    soft: Tensor
    """``[P, V]``, without gradient: the relaxed tokens, whose gradient replaces that of the hard ones."""

    def measurements(self, models: Models, config: OptimizeConfig) -> dict[str, Tensor]:
        """Return ``relaxed_reward_loss``: the reward loss at the relaxed tokens themselves; no gradient."""
        import torch

        from rrpo.optimizers.reward import reward_loss

        part = self.part
        with torch.no_grad():
            codes = part.rollout.padded(self.soft @ models.codec.codebook)[:, :-1]
            F, frames = models.codec.decode_codes(codes, part.rollout.lengths, part.prompts.speaker)
            relaxed = reward_loss(models.reward_model, F, frames, part.prompts.target, config.reward)
        return {"relaxed_reward_loss": relaxed}


@dataclass(frozen=True)
class DiffRO(PolicyOptimizer):
    """DiffRO. Its settings are fields of `rrpo.config.OptimizeConfig`: τ, ``relaxation``, ``gradient_scale``."""

    equation: ClassVar[str] = (
        "w_e L_SER(F(tau)) + w_c L_CTC(F(tau)) + β KL(π || π_SFT), tau = softmax((l + G) / τ), G Gumbel or 0"
    )

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """Yield one update."""
        yield self._losses(models, batch, config)

    def _losses(self, models: Models, batch: Batch, config: OptimizeConfig) -> Iterator[RelaxedLoss]:
        import torch

        from rrpo.optimizers.relaxation import RELAXATIONS, no_noise, temperature
        from rrpo.optimizers.scoring import split
        from rrpo.seeding import uniform

        device, codes = batch.prompts.prefix.device, models.policy.codes
        tau = temperature(batch.step, config.steps, config.tau)

        def drawn(part: MicroBatch) -> Tensor:
            rows, counts = torch.stack([part.rows, part.rollout.counts]).tolist()
            noise = [
                uniform((n, codes), config.seed, "gumbel noise", batch.step, row, device=device)
                for row, n in zip(batch.keys(rows), counts, strict=True)
            ]
            return torch.cat(noise)

        for part in split(models, batch):
            noise = None if RELAXATIONS[config.relaxation] is no_noise else drawn(part)
            yield relaxed_loss(models, part, noise, config, tau)


def relaxed_loss(
    models: Models, part: MicroBatch, noise: Tensor | None, config: OptimizeConfig, tau: float
) -> RelaxedLoss:
    """Return DiffRO's loss of one micro-batch; ``noise [P, V]`` are uniforms for the P scored positions of its samples, None for
    the relaxation without noise."""
    import torch.nn.functional as F_

    from rrpo.models.scaled_gradient import scale_gradient
    from rrpo.optimizers.relaxation import soft_tokens, straight_through
    from rrpo.optimizers.reward import reward_loss
    from rrpo.optimizers.scoring import score

    prompts, rollout = part.prompts, part.rollout
    scores = score(models, part, config.penalty)
    packed = rollout.pick(F_.pad(rollout.tokens, (0, 1)), len(scores.logits))
    soft = soft_tokens(scores.logits[:, : models.policy.codes], packed, noise, tau, config.relaxation)
    codes = rollout.padded(straight_through(soft, packed, models.codec.codebook))[:, :-1]
    F, frames = models.codec.decode_codes(codes, rollout.lengths, prompts.speaker)
    scaled = scale_gradient(F, config.gradient_scale)
    reward = reward_loss(models.reward_model, scaled, frames, prompts.target, config.reward)
    content = models.recogniser.ctc_loss(F, frames, prompts.phones)
    loss = config.emotion_weight * reward + config.content_weight * content + config.beta * scores.penalty
    return RelaxedLoss(
        part=part,
        loss=part.share * loss.mean(),
        values={"reward_loss": reward.detach(), "content_loss": content.detach()},
        kl=scores.kl.detach(),
        log_p=scores.log_p,
        frames=(F.detach(), frames),
        soft=soft.detach(),
    )
