"""Policy optimisation of CosyVoice2 by any of the project's optimisers, with what can be measured on tokens.

The objective is a `PolicyOptimizer`'s and the settings are `OptimizeConfig`'s, as in the stage ``optimize``
(`rrpo.optimizers.loop`), whose judges and artefact detectors need log-mel frames. Here the proxy (the reward model), a held-out
reward model in gold's place, the KL to the reference and the lengths are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rrpo.config import OptimizeConfig
from rrpo.models.policy import Rollout
from rrpo.optimizers.base import Batch, Loss, PolicyOptimizer, State
from rrpo.optimizers.loop import prompts_of
from rrpo.optimizers.registry import OPTIMIZERS
from rrpo.optimizers.rollout import Models, Prompts, merge
from rrpo.optimizers.scoring import roll_out, score, split
from rrpo.pipeline.checkpoint import Checkpoints
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, uniform
from rrpo.training.trainer import multiplier


@dataclass
class Optimised:
    """What an optimisation leaves beside the changed policy."""

    curves: list[dict[str, float]]
    """A row a step: means over the roll-outs."""
    points: list[dict[str, float]]
    """A row a checkpoint, on the evaluation prompts."""
    rollout: Rollout
    """The evaluation prompts' samples at the end."""


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
    found = Optimised(kept.get("curves", []), kept.get("points", []), measured(models, evaluation, config)[1])
    state: State = (
        {name: value.to(train.prefix.device) for name, value in kept["state"].items()}
        if "state" in kept
        else method.start(models, train, config)
    )
    due = {0, config.steps} | {step for step in config.checkpoints if step < config.steps}

    def keep() -> dict[str, Any]:
        return {"curves": found.curves, "points": found.points, "state": state}

    for step in range(start, config.steps + 1):
        if step in due:
            row, found.rollout = measured(models, evaluation, config)
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
    checkpoints.discard()
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
def measured(models: Models, prompts: Prompts, config: OptimizeConfig) -> tuple[dict[str, float], Rollout]:
    """One sample of each prompt, its noise keyed by the seed alone: proxy, held-out reward model, KL, length."""
    noise = uniform((models.policy.max_tokens, len(prompts.phones)), config.seed, "evaluation noise")
    rollout = models.policy.sample(prompts.prefix, noise.to(prompts.prefix.device))
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for part in split(models, Batch(0, prompts, rollout)):
        F, frames = models.codec.decode(part.rollout.tokens, part.rollout.lengths, part.prompts.speaker)
        target = part.prompts.target[:, None]
        values = {"kl_utterance": score(models, part).kl}
        for name, model in (("proxy", models.reward_model), ("val", models.val)):
            said = model.log_probs(F, frames)
            values[f"{name}_accuracy"] = (said.argmax(1) == target[:, 0]).float()
            values[f"{name}_logprob"] = said.gather(1, target)[:, 0]
        values["content_loss"] = models.recogniser.ctc_loss(F, frames, part.prompts.phones)
        found.append((part.rows, values))
    merged: Mapping[str, Tensor] = merge(found)
    row = {name: float(value.mean()) for name, value in merged.items()}
    row["kl_token"] = float(merged["kl_utterance"].sum() / rollout.counts.sum())
    row["length"] = float(rollout.lengths.float().mean())
    row["cut"] = float((~rollout.ended).float().mean())
    return row, rollout
