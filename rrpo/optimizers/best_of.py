"""Best-of-n: choose the sample with the highest reward among n samples of the SFT policy, without training.

Stage ``draws`` samples each evaluation prompt n times, once per seed. Stage ``best_of_n`` ranks the samples by the reward model
of one arm and writes the files of stage ``optimize``, so that the arm is evaluated like the others. Its checkpoints are n = 1,
2, 4, ...: ``step`` is n, and each chooses among the first n draws. The first draw uses the evaluation noise, so n = 1 is the
SFT policy.

The KL of best-of-n to the sampling policy is ``log n - (n - 1) / n`` nats per utterance (Stiennon et al. 2020; an upper bound,
Beirami et al. 2024, arXiv 2401.01879).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rrpo.config import BestOfConfig, DrawsConfig, OptimizeConfig
from rrpo.corpus.prompts import load_prompts
from rrpo.judges.samples import Samples
from rrpo.models.policy import Policy, Rollout
from rrpo.optimizers.base import Batch
from rrpo.optimizers.loop import measure_samples, opinions, save, stored
from rrpo.optimizers.rollout import Models, Prompts, rollout_statistics
from rrpo.optimizers.scoring import compute_rewards
from rrpo.pipeline.stages import Context
from rrpo.seeding import uniform

DRAWS = "draws.npz"
"""File with ``tokens [n, P, N]`` (padded with 0), ``lengths [n, P]`` and ``ended [n, P]``."""


def kl_of(n: int) -> float:
    """Return ``log n - (n - 1) / n``, nats per utterance."""
    return math.log(n) - (n - 1) / n


def levels(n: int) -> list[int]:
    """Return the powers of two below ``n``, and ``n``: 1, 2, 4, ..., n."""
    return [2**k for k in range(n.bit_length()) if 2**k < n] + [n]


def draw(config: DrawsConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Build stage ``draws``: read ``policy`` and ``eval_prompts``, write `DRAWS`."""
    policy = Policy.load(inputs["policy"], context.device).requires_grad_(False)
    prefix = policy.prompt_ids(load_prompts(inputs["eval_prompts"])[: config.prompts])
    shape = config.n, len(prefix), policy.max_tokens
    tokens, lengths, ended = np.zeros(shape, np.int16), np.zeros(shape[:2], np.int16), np.zeros(shape[:2], bool)
    for i in range(config.n):
        noise = _noise(config, i, policy.max_tokens).to(prefix.device)
        for rows in torch.arange(len(prefix), device=prefix.device).split(config.eval_prompts):
            batch = prefix[rows]
            sampled = policy.sample(batch[:, int((batch == 0).all(0).sum()) :], noise[:, rows])
            indices = rows.cpu().numpy()
            tokens[i, indices, : sampled.tokens.shape[1]] = sampled.tokens.cpu().numpy()
            lengths[i, indices], ended[i, indices] = sampled.lengths.cpu().numpy(), sampled.ended.cpu().numpy()
        context.report(i + 1, config.n)
    np.savez_compressed(out / DRAWS, tokens=tokens[..., : lengths.max()], lengths=lengths, ended=ended)


def _noise(config: DrawsConfig, i: int, positions: int) -> Tensor:
    """Return the noise of draw ``i``; the first draw uses the evaluation noise."""
    if i == 0:
        return uniform((positions, config.final_prompts), config.seed, "evaluation noise")
    return uniform((positions, config.prompts), config.seed, "best of n", i)


def build(config: BestOfConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Build stage ``best_of_n``: rank the ``draws`` and write ``curves.parquet`` (empty), ``points.parquet``, ``samples.npz`` and
    ``scalars.json``."""
    models = Models.load(inputs, context.device, context.micro)
    device = torch.device(context.device)
    with np.load(inputs["draws"] / DRAWS) as arrays:
        tokens, lengths, ended = (torch.from_numpy(arrays[name]) for name in ("tokens", "lengths", "ended"))
    n, size = lengths.shape
    column = torch.arange(size, device=device)
    prompts = Prompts.load(inputs["eval_prompts"], models).select(column)
    draws = Rollout(
        tokens.flatten(0, 1).long().to(device), lengths.flatten().long().to(device), ended.flatten().to(device)
    )
    best, lowest = torch.zeros(size, dtype=torch.long, device=device), torch.full((size,), math.inf, device=device)
    points, samples = [], []
    for i in range(n):
        cost = costs(models, prompts, draws.select(i * size + column), config)
        best, lowest = torch.where(cost < lowest, i, best), cost.minimum(lowest)
        if i + 1 in levels(n):
            evaluated = column if i + 1 == n else column[: config.eval_prompts]
            row, best_samples = _evaluate(models, prompts, draws.select(best * size + column), evaluated, i + 1)
            points.append(row)
            samples.append(best_samples)
        context.report(i + 1, n)
    save(out, points, samples)


def costs(models: Models, prompts: Prompts, rollout: Rollout, config: BestOfConfig) -> Tensor:
    """Return ``[P]``: the cost that policy optimization minimizes, without the KL, for one sample per prompt."""
    settings = OptimizeConfig(
        reward=config.reward, emotion_weight=config.emotion_weight, content_weight=config.content_weight
    )
    return compute_rewards(models, Batch(0, prompts, rollout), settings).cost(settings)


def _evaluate(
    models: Models, prompts: Prompts, rollout: Rollout, rows: Tensor, n: int
) -> tuple[dict[str, float], Samples]:
    """Return the metrics and samples of one n for the prompts at ``rows``."""
    selected, sampled = prompts.select(rows), rollout.select(rows)
    measurements = measure_samples(models, selected, sampled)
    measurements["kl"] = torch.full_like(measurements["kl"], kl_of(n))
    row = (
        {"step": n}
        | rollout_statistics(measurements)
        | opinions(measurements, selected.target, models.reward_model.emotions)
    )
    return row | {"sqrt_kl": row["kl_token"] ** 0.5}, stored(n, rows, sampled, measurements, selected.target)
