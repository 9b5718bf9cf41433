"""Policy optimization of CosyVoice2 with any optimizer of the project, and measurements on tokens.

As in the stage ``optimize`` (`rrpo.optimizers.loop`), a `PolicyOptimizer` defines the objective and `OptimizeConfig` the
settings. The judges and artefact detectors of that stage need log-mel frames; here the measurements are the proxy (the reward
model), a held-out reward model in place of gold, the KL to the reference, and lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from rrpo.config import OptimizeConfig
from rrpo.cosyvoice.parallel import Processes, own_prompts
from rrpo.models.policy import Rollout
from rrpo.optimizers.base import Batch, Loss, MicroBatch, PolicyOptimizer, State
from rrpo.optimizers.loop import prompts_of
from rrpo.optimizers.registry import OPTIMIZERS
from rrpo.optimizers.rollout import Models, Prompts, merge
from rrpo.optimizers.scoring import hear, roll_out, score, split
from rrpo.pipeline.checkpoint import Checkpoints
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, uniform
from rrpo.training.trainer import multiplier

EVALUATED = 128
"""Evaluation prompts per batch."""


@dataclass
class Optimised:
    """Results of an optimization, in addition to the trained policy."""

    curves: list[dict[str, float]]
    """One row per step: means over the roll-outs."""
    points: list[dict[str, float]]
    """One row per checkpoint, on the evaluation prompts."""
    said: list[list[int]]
    """Token ids of the final samples of the evaluation prompts."""


def optimise(
    models: Models,
    train: Prompts,
    evaluation: Prompts,
    config: OptimizeConfig,
    context: Context | None = None,
    *,
    inputs: Mapping[str, Path] | None = None,
    best_of: int = 1,
    processes: Processes | None = None,
) -> Optimised:
    """Optimize ``models.policy`` in place, resuming from a checkpoint if ``context`` has one.

    Args:
        models: The policy and the frozen models.
        train: Training prompts.
        evaluation: Evaluation prompts.
        config: The shared settings.
        context: Device, checkpoints and callbacks.
        inputs: Additional inputs of optimizers, from `rrpo.cosyvoice.inputs`.
        best_of: n: evaluate the sample with the lowest cost by the arm's reward of n samples per evaluation prompt.
        processes: Processes that share each batch; None: this process only.

    Raises:
        DivergedError: A reward, the loss or the gradient is not finite; raised before the update.
        Interrupted: ``context`` requested a stop between two steps.
    """
    context = context or Context()
    method = OPTIMIZERS.create(config.optimizer)
    asked = prompts_of(method, config)
    processes = processes or Processes(context.device)
    numbers = processes.numbers(asked, method.samples)
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
        else method.start(models, train, config, inputs or {})
    )
    due = {0, config.steps} | {step for step in config.checkpoints if step < config.steps}

    def keep() -> dict[str, Any]:
        return {"curves": found.curves, "points": found.points, "state": state}

    for step in range(start, config.steps + 1):
        if step in due:
            row, found.said = measured(models, evaluation, config, best_of)
            found.points.append({"step": float(step)} | row)
        if step == config.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * multiplier(step, config.steps, config.warmup, config.schedule)
        own = own_prompts(train, rows[step, :asked].repeat(method.samples), numbers)
        batch = roll_out(models, own, config, step, numbers)
        metrics = _step(models, method, state, batch, trained, optimizer, config, processes)
        found.curves.append({"step": float(step)} | metrics)
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
    processes: Processes,
) -> dict[str, float]:
    """Make the updates on one batch of roll-outs and return the means of the last."""
    metrics: dict[str, float] = {}
    for losses in method.updates(models, batch, config, state):
        metrics = _update(losses, batch, trained, optimizer, config, processes)
    return metrics


def _update(
    losses: Iterator[Loss],
    batch: Batch,
    trained: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
    processes: Processes,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    total = 0.0
    for part in losses:
        part.loss.backward()
        total += float(part.loss.detach())
        found.append((part.part.rows, {**part.values, "kl_utterance": part.kl}))
    values = merge(found)
    processes.average(trained)
    norm = float(nn.utils.clip_grad_norm_(trained, config.grad_clip))
    counts = batch.rollout.counts.float()
    means = processes.means(
        {name: float(value.mean()) for name, value in values.items()}
        | {
            "loss": total,
            "grad_norm": norm,
            "positions": float(counts.mean()),
            "length": float(batch.rollout.lengths.float().mean()),
            "cut": float((~batch.rollout.ended).float().mean()),
        }
    )
    if not all(map(torch.isfinite, map(torch.tensor, means.values()))):
        raise DivergedError(
            f"policy step {batch.step + 1} of {config.steps}: {', '.join(f'{k} {v:.4g}' for k, v in means.items())}; "
            "a lower lr or a higher beta may keep it finite"
        )
    optimizer.step()
    return means | {"kl_token": means["kl_utterance"] / means.pop("positions")}


@torch.no_grad()
def measured(
    models: Models, prompts: Prompts, config: OptimizeConfig, best_of: int = 1
) -> tuple[dict[str, float], list[list[int]]]:
    """Draw one sample per prompt with noise keyed only by the seed. Return proxy, held-out reward model, KL, length; and the
    samples.

    The KL of best-of-n exceeds the KL measured on its tokens by at most log n - (n - 1) / n nats per utterance.
    """
    device = prompts.prefix.device
    shape = models.policy.max_tokens, len(prompts.phones)
    first = uniform(shape, config.seed, "evaluation noise", device=device)
    others = (uniform(shape, config.seed, "evaluation noise", k, device=device) for k in range(1, best_of))
    noises = [first, *others]
    found: list[dict[str, Tensor]] = []
    said: list[list[int]] = []
    for rows in torch.arange(len(prompts.phones), device=device).split(EVALUATED):
        asked = prompts.select(rows)
        rollout = cheapest(models, asked, [noise[:, rows] for noise in noises], config)
        parts = [(part.rows, _heard(models, part)) for part in split(models, Batch(0, asked, rollout))]
        counts = {"positions": rollout.counts, "length": rollout.lengths, "cut": ~rollout.ended}
        found.append(merge(parts) | counts)
        said += [row[:n] for row, n in zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)]
    values = {name: torch.cat([part[name] for part in found]).float() for name in found[0]}
    positions = values.pop("positions")
    row = {name: float(value.mean()) for name, value in values.items()}
    return row | {"kl_token": float(values["kl_utterance"].sum() / positions.sum())}, said


def cheapest(models: Models, prompts: Prompts, noises: Sequence[Tensor], config: OptimizeConfig) -> Rollout:
    """Draw one sample per prompt with each of ``noises [N_max, B]``; return those with the lowest cost by the arm's reward."""
    drawn = [models.policy.sample(prompts.prefix, noise) for noise in noises]
    if len(drawn) == 1:
        return drawn[0]
    best = torch.stack([hear(models, Batch(0, prompts, one), config).cost(config) for one in drawn]).argmin(0)
    rows = torch.arange(len(best), device=best.device)
    lengths, ended = (torch.stack([getattr(one, name) for one in drawn])[best, rows] for name in ("lengths", "ended"))
    tokens = [F_.pad(one.tokens, (0, models.policy.max_tokens - one.tokens.shape[1])) for one in drawn]
    return Rollout(torch.stack(tokens)[best, rows][:, : int(lengths.max())], lengths, ended)


def _heard(models: Models, part: MicroBatch) -> dict[str, Tensor]:
    """Return the outputs of the frozen models for samples, each ``[b]``."""
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
