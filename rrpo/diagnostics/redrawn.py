"""Compare the effect of one token on the reward, with all later tokens redrawn, with the prediction of DiffRO's gradient.

The gradient g of R = log p(target) through the rows of the sampled tokens holds the rest of the utterance fixed: the effect of a
token on later tokens is dropped. One token is swapped in one sample of each prompt, as in `rrpo.diagnostics.fidelity`, and

    predicted change  g[n, new] - g[n, old]
    held              R(swapped) - R(sampled)
    re-drawn          mean over K continuations of R(swapped, then continued) - R(sampled, then continued)

where both histories are continued from the swapped position with the same noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rrpo.diagnostics.fidelity import Opinion, gradient, pearson, predicted_change, swap
from rrpo.models.policy import Rollout
from rrpo.models.protocols import TokenCodec, TokenPolicy
from rrpo.optimizers.rollout import Prompts
from rrpo.seeding import uniform


def compare(
    policy: TokenPolicy, codec: TokenCodec, reward: Opinion, prompts: Prompts, seed: int, continuations: int
) -> dict[str, float]:
    """Return correlations of the predicted change with both true changes, and the reliability of the redrawn change.

    ``swap_held``, ``swap_redrawn``: the correlations. ``swap_spread_held``, ``swap_spread_redrawn``: standard deviations over
    prompts in nats, the latter without the noise of the continuations. ``swap_reliability``: the fraction of the variance of
    the redrawn change that is not noise of the continuations; its square root is an upper bound for ``swap_redrawn``. NaN for a
    single continuation.
    """
    device, shape = prompts.prefix.device, (policy.max_tokens, len(prompts.phones))
    sampled = policy.sample(prompts.prefix, uniform(shape, seed, "swaps", device=device))
    B, N = sampled.tokens.shape
    u_position, u_code = (uniform((N, B), seed, f"swaps {name}", device=device).T for name in ("place", "code"))

    @torch.no_grad()
    def evaluate(rollout: Rollout) -> Tensor:
        F, frames = codec.decode(rollout.tokens, rollout.lengths, prompts.speaker)
        return reward(F, frames, prompts.target)

    with torch.no_grad():
        logits = policy.logits(prompts.prefix, sampled.tokens)[:, :-1]
        one, codes = torch.ones_like(sampled.lengths), logits[..., : policy.codes]
        new = swap(sampled.tokens, sampled.lengths, codes, one, u_position, u_code)
        forced = [forcing(logits, tokens) for tokens in (sampled.tokens, new)]
    g = gradient(codec, reward, sampled.tokens, sampled.lengths, prompts.speaker, prompts.target)
    predicted = predicted_change(g, sampled.tokens, new)
    held = evaluate(Rollout(new, sampled.lengths, sampled.ended)) - evaluate(sampled)
    fixed = torch.arange(N, device=device)[:, None] <= (new != sampled.tokens).long().argmax(1)
    changes = []
    for k in range(continuations):
        noise = uniform(shape, seed, "swaps continued", k, device=device)
        before, after = (
            evaluate(policy.sample(prompts.prefix, torch.cat([torch.where(fixed, prefix_noise, noise[:N]), noise[N:]])))
            for prefix_noise in forced
        )
        changes.append(after - before)
    redrawn = torch.stack(changes)
    mean, noise_variance = redrawn.mean(0), float(redrawn.var(0).mean()) / continuations
    signal = float(mean.var()) - noise_variance
    return {
        "swap_held": pearson(predicted.cpu().numpy(), held.cpu().numpy()),
        "swap_redrawn": pearson(predicted.cpu().numpy(), mean.cpu().numpy()),
        "swap_spread_held": float(held.std()),
        "swap_spread_redrawn": math.sqrt(signal) if signal > 0 else math.nan,
        "swap_reliability": signal / float(mean.var()),
    }


def forcing(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return noise ``[N, B]`` with which a policy that predicts ``logits [B, N, V + 1]`` draws ``tokens [B, N]``."""
    p = logits.double().softmax(-1)
    indices = tokens[..., None]
    return (p.cumsum(-1).gather(-1, indices) - p.gather(-1, indices) / 2)[..., 0].T.float()
