"""Stage ``fidelity``: how reliable the gradient of one reward model through the tokens is.

DiffRO follows the gradient g of the reward R = log p(target) with respect to the (one-hot) rows of the sampled tokens. The
gradient is useful as far as the change that it predicts for other tokens equals the change that they cause. For draws of the
SFT policy, some tokens are swapped for others and the rest is held fixed:

    predicted change = sum over positions of g[n, new] - g[n, old]
    own change       = R(swapped) - R(sampled), of the same reward model
    val change       = log p(target | swapped) - log p(target | sampled) of the ``val`` judge

The correlation of the predicted with the own change measures how linear R is between tokens; the correlation with the ``val``
change measures whether the gradient points where the judge agrees. A swap replaces one token, or a share of an utterance's
tokens at once. A position is drawn uniformly, and its new token from the policy's own distribution there, given the sampled
history and excluding the sampled token, because an update moves probability to such tokens.

Not measured: a token's influence on later tokens (the rest is held fixed, as in DiffRO's gradient), and the bias of the
relaxation, since g is the gradient at the one-hot rows, before any softmax.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.corpus.prompts import load_prompts
from rrpo.judges.config import FidelityConfig
from rrpo.judges.emotion import Judge
from rrpo.masking import valid_mask
from rrpo.models.codec import Codec
from rrpo.models.ensemble import load_reward_model
from rrpo.models.policy import Policy, Rollout, inverse_cdf
from rrpo.models.protocols import TokenCodec, TokenPolicy
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.matching import TABLE
from rrpo.optimizers.reward import reward_loss
from rrpo.optimizers.rollout import Prompts, merge, micro_batches
from rrpo.pipeline.stages import Context
from rrpo.seeding import uniform

Opinion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``F [b, T, M], lengths [b], target [b]`` -> log p(target) ``[b]``."""


def build(config: FidelityConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``policy``, ``reward_model``, ``codec``, ``val``, ``eval_prompts``; write `TABLE` and ``scalars.json``.

    The scalars are `correlations`: ``rm_fidelity_one_own``, ``rm_fidelity_one_val``, ``rm_fidelity_many_own``,
    ``rm_fidelity_many_val``. Noise is keyed only by the seed: all reward models of a seed are measured on the same swaps.
    """
    device = context.device
    policy = Policy.load(inputs["policy"], device).requires_grad_(False)
    model, codec = load_reward_model(inputs["reward_model"], device), Codec.load(inputs["codec"], device)
    judge = Judge.load(inputs["val"], device)
    prompts = Prompts.prepare(load_prompts(inputs["eval_prompts"])[: config.prompts], policy, codec, model.emotions)
    shape = (policy.max_tokens, len(prompts.phones))
    rollout = policy.sample(prompts.prefix, uniform(shape, config.seed, "fidelity sampling", device=device))
    table = changes(policy, codec, reward_of(model), gold_of(judge), prompts, rollout, config, context.micro)
    table.to_parquet(out / TABLE, index=False)
    (out / "scalars.json").write_text(json.dumps(correlations(table)))


def reward_of(model: RewardModel) -> Opinion:
    """Return R of Eq. 6 with ``hard_ce``, whatever reward the arm uses; differentiable in F."""
    return lambda F, lengths, target: -reward_loss(model, F, lengths, target)


def gold_of(judge: Judge) -> Opinion:
    """Return the judge's calibrated log-probability of the target."""
    return lambda F, lengths, target: judge.log_probs(F, lengths).gather(1, target[:, None])[:, 0]


def changes(
    policy: TokenPolicy,
    codec: TokenCodec,
    reward: Opinion,
    val: Opinion,
    prompts: Prompts,
    rollout: Rollout,
    config: FidelityConfig,
    micro: int | None = None,
) -> pd.DataFrame:
    """Return `TABLE` for swaps in ``rollout``, the policy's answers to ``prompts``; ``reward`` must be differentiable in F."""
    kinds = [("one", draw) for draw in range(config.one_draws)] + [("many", draw) for draw in range(config.many_draws)]
    noise = [_noise(rollout, config.seed, kind, draw) for kind, draw in kinds]
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    for rows in micro_batches(rollout.lengths, micro):
        batch, sample = prompts.select(rows), rollout.select(rows)
        tokens, lengths, longest = sample.tokens, sample.lengths, sample.tokens.shape[1]
        g = gradient(codec, reward, tokens, lengths, batch.speaker, batch.target)

        def evaluate(tokens: Tensor, lengths: Tensor = lengths, batch: Prompts = batch) -> dict[str, Tensor]:
            F, frames = codec.decode(tokens, lengths, batch.speaker)
            return {"own": reward(F, frames, batch.target), "val": val(F, frames, batch.target)}

        swaps: list[dict[str, Tensor]] = []
        with torch.no_grad():
            logits = policy.logits(batch.prefix, tokens)[:, :-1, : policy.codes]
            before = evaluate(tokens)
            for (kind, _), (u_position, u_code) in zip(kinds, noise, strict=True):
                count = _counts(lengths, config.share if kind == "many" else 0.0)
                new = swap(tokens, lengths, logits, count, u_position[rows, :longest], u_code[rows, :longest])
                actual = {name: after - before[name] for name, after in evaluate(new).items()}
                swaps.append({"swapped": count, "predicted": predicted_change(g, tokens, new), **actual})
        parts.append((rows, {name: torch.stack([entry[name] for entry in swaps], 1) for name in swaps[0]}))
    values = merge(parts)
    samples = len(rollout.lengths)
    keys = {
        "kind": [kind for kind, _ in kinds] * samples,
        "prompt": np.repeat(np.arange(samples), len(kinds)),
        "draw": [draw for _, draw in kinds] * samples,
    }
    return pd.DataFrame(keys | {name: value.flatten().cpu().numpy() for name, value in values.items()})


def gradient(
    codec: TokenCodec, reward: Opinion, tokens: Tensor, lengths: Tensor, speaker: Tensor, target: Tensor
) -> Tensor:
    """Return g ``[b, N, V]``: the gradient of the reward of ``tokens [b, N]`` with respect to their one-hot rows."""
    rows = functional.one_hot(tokens, codec.vocabulary).float().requires_grad_()
    F, frames = codec.decode(rows, lengths, speaker)
    (g,) = torch.autograd.grad(reward(F, frames, target).sum(), rows)
    return g


def predicted_change(g: Tensor, tokens: Tensor, new: Tensor) -> Tensor:
    """Return the change ``[b]`` of the reward that its gradient g ``[b, N, V]`` predicts for ``new [b, N]`` in place of
    ``tokens [b, N]``."""
    return (g.gather(2, new[..., None]) - g.gather(2, tokens[..., None])).sum((1, 2))


def swap(tokens: Tensor, lengths: Tensor, logits: Tensor, count: Tensor, u_position: Tensor, u_code: Tensor) -> Tensor:
    """Replace ``count [b]`` tokens of each row of ``tokens [b, N]`` by other codes drawn from the policy's distribution.

    Args:
        tokens: The sampled codes.
        lengths: Tokens of each row ``[b]``; no position beyond them is swapped.
        logits: ``[b, N, V]``, the policy's logits of every position given the sampled history.
        count: At most ``lengths``.
        u_position: Uniforms ``[b, N]``: the positions with the smallest values are swapped.
        u_code: Uniforms ``[b, N]``: the new codes by inverse CDF, excluding the sampled ones.
    """
    u_position = u_position.masked_fill(~valid_mask(lengths, tokens.shape[1]), math.inf)
    swapped = u_position.argsort(1).argsort(1) < count[:, None]
    other_logits = logits[swapped].scatter(1, tokens[swapped][:, None], -math.inf)
    new = tokens.clone()
    new[swapped] = inverse_cdf(other_logits, u_code[swapped])
    return new


def correlations(table: pd.DataFrame) -> dict[str, float]:
    """Return ``rm_fidelity_KIND_WHOSE``: Pearson correlation of predicted and actual change over all swaps of a kind.

    Undefined correlations, for example of a constant reward model, are omitted.
    """
    values = {
        f"rm_fidelity_{kind}_{whose}": pearson(swaps["predicted"].to_numpy(), swaps[whose].to_numpy())
        for kind, swaps in table.groupby("kind")
        for whose in ("own", "val")
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of ``x [n]`` and ``y [n]``; NaN if one is constant or not finite."""
    x, y = (values.astype(float) - values.mean(dtype=float) for values in (x, y))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def _counts(lengths: Tensor, share: float) -> Tensor:
    """Return the number of tokens to swap ``[b]``: ``share`` of each length, and at least one."""
    return (share * lengths).round().long().clamp(min=1)


def _noise(rollout: Rollout, seed: int, kind: str, draw: int) -> tuple[Tensor, Tensor]:
    """Return uniforms ``[P, N]`` for one swap per sample: for the positions and for the codes."""
    N, P = rollout.tokens.T.shape
    u_position, u_code = (uniform((N, P), seed, f"fidelity {kind} {name}", draw).T for name in ("place", "code"))
    return u_position.to(rollout.tokens.device), u_code.to(rollout.tokens.device)
