"""Policy optimisation of CosyVoice2 by any of the project's optimisers, with what can be measured on tokens.

The objective is a `PolicyOptimizer`'s and the settings are `OptimizeConfig`'s, as in the stage ``optimize``
(`rrpo.optimizers.loop`), whose judges and artefact detectors need log-mel frames. Here the proxy (the reward model), a held-out
reward model in gold's place, the KL to the reference and the lengths are measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rrpo.config import OptimizeConfig
from rrpo.optimizers.base import Batch, Loss, MicroBatch, PolicyOptimizer, State
from rrpo.optimizers.loop import prompts_of
from rrpo.optimizers.registry import OPTIMIZERS
from rrpo.optimizers.rollout import Models, Prompts, merge
from rrpo.optimizers.scoring import roll_out, score, split
from rrpo.pipeline.checkpoint import Checkpoints
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, uniform
from rrpo.training.trainer import multiplier

EVALUATED = 128
"""Evaluation prompts that are sampled at once."""


@dataclass
class Optimised:
    """What an optimisation leaves beside the changed policy."""

    curves: list[dict[str, float]]
    """A row a step: means over the roll-outs."""
    points: list[dict[str, float]]
    """A row a checkpoint, on the evaluation prompts."""
    said: list[list[int]]
    """Token ids of the evaluation prompts' samples at the end."""


def optimise(
    models: Models, train: Prompts, evaluation: Prompts, config: OptimizeConfig, context: Context | None = None
) -> Optimised:
    """Optimises ``models.policy`` in place; goes on from a checkpoint if ``context`` has one.

    Raises:
        DivergedError: A reward, the loss or the gradient is not finite; raised before the update.
        Interrupted: ``context`` asked for it between two steps.
    """
    context = context or Context()
    method = OPTIMIZERS.create(config.optimizer)
    asked = prompts_of(method, config)
    order = permutation_batches(len(train.phones), config.batch, config.steps, config.seed, "rl prompts")
    rows = torch.from_numpy(order).to(train.prefix.device)
    trained = [parameter for parameter in models.policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.lr, fused=True)
    checkpoints = Checkpoints(context, trained, optimizer)
    start, kept = checkpoints.resume()
    found = Optimised(kept.get("curves", []), kept.get("points", []), [])
    state: State = (
        {name: value.to(train.prefix.device) for name, value in kept["state"].items()}
        if "state" in kept
        else method.start(models, train, config, {})
    )
    due = {0, config.steps} | {step for step in config.checkpoints if step < config.steps}

    def keep() -> dict[str, Any]:
        return {"curves": found.curves, "points": found.points, "state": state}

    for step in range(start, config.steps + 1):
        if step in due:
            row, found.said = measured(models, evaluation, config)
            found.points.append({"step": float(step)} | row)
        if step == config.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * multiplier(step, config.steps, config.warmup, config.schedule)
        batch = roll_out(models, train.select(rows[step, :asked].repeat(method.samples)), config, step)
        found.curves.append({"step": float(step)} | _step(models, method, state, batch, trained, optimizer, config))
        context.watch(step, found.curves[-1])
        checkpoints.boundary(step + 1, keep)
        context.report(step + 1, config.steps)
    return found


def _step(
    models: Models,
    method: PolicyOptimizer,
    state: State,
    batch: Batch,
    trained: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
) -> dict[str, float]:
    """The updates on one batch of roll-outs; returns the last one's means."""
    metrics: dict[str, float] = {}
    for losses in method.updates(models, batch, config, state):
        metrics = _update(losses, batch, trained, optimizer, config)
    return metrics


def _update(
    losses: Iterator[Loss],
    batch: Batch,
    trained: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    total = 0.0
    for part in losses:
        part.loss.backward()
        total += float(part.loss.detach())
        found.append((part.part.rows, {**part.values, "kl_utterance": part.kl}))
    values = merge(found)
    norm = float(nn.utils.clip_grad_norm_(trained, config.grad_clip))
    means = {name: float(value.mean()) for name, value in values.items()} | {"loss": total, "grad_norm": norm}
    if not all(map(torch.isfinite, map(torch.tensor, means.values()))):
        raise DivergedError(
            f"policy step {batch.step + 1} of {config.steps}: {', '.join(f'{k} {v:.4g}' for k, v in means.items())}; "
            "a lower lr or a higher beta may keep it finite"
        )
    optimizer.step()
    counts = batch.rollout.counts.float()
    return means | {
        "kl_token": float(values["kl_utterance"].sum() / counts.sum()),
        "length": float(batch.rollout.lengths.float().mean()),
        "cut": float((~batch.rollout.ended).float().mean()),
    }


@torch.no_grad()
def measured(models: Models, prompts: Prompts, config: OptimizeConfig) -> tuple[dict[str, float], list[list[int]]]:
    """One sample of each prompt, its noise keyed by the seed alone: proxy, held-out reward model, KL, length; and the samples."""
    device = prompts.prefix.device
    noise = uniform((models.policy.max_tokens, len(prompts.phones)), config.seed, "evaluation noise", device=device)
    found: list[dict[str, Tensor]] = []
    said: list[list[int]] = []
    for rows in torch.arange(len(prompts.phones), device=device).split(EVALUATED):
        asked = prompts.select(rows)
        rollout = models.policy.sample(asked.prefix, noise[:, rows])
        parts = [(part.rows, _heard(models, part)) for part in split(models, Batch(0, asked, rollout))]
        counts = {"positions": rollout.counts, "length": rollout.lengths, "cut": ~rollout.ended}
        found.append(merge(parts) | counts)
        said += [row[:n] for row, n in zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)]
    values = {name: torch.cat([part[name] for part in found]).float() for name in found[0]}
    positions = values.pop("positions")
    row = {name: float(value.mean()) for name, value in values.items()}
    return row | {"kl_token": float(values["kl_utterance"].sum() / positions.sum())}, said


def _heard(models: Models, part: MicroBatch) -> dict[str, Tensor]:
    """What the frozen models make of some samples, each ``[b]``."""
    F, frames = models.codec.decode(part.rollout.tokens, part.rollout.lengths, part.prompts.speaker)
    target = part.prompts.target
    values = {
        "kl_utterance": score(models, part).kl,
        "content_loss": models.recogniser.ctc_loss(F, frames, part.prompts.phones),
    }
    for name, model in (("proxy", models.reward_model), ("val", models.val)):
        heard = model.log_probs(F, frames)
        values[f"{name}_accuracy"] = (heard.argmax(1) == target).float()
        values[f"{name}_logprob"] = heard.gather(1, target[:, None])[:, 0]
    return values
