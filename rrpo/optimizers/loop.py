"""Stage ``optimize``: policy optimization of one cell, with curves by the ``val`` judge and samples stored as tokens.

The objective comes from a `PolicyOptimizer`; everything else is here and the same for all of them. Curves are measured on every
step's own roll-outs. Points are measured on the evaluation prompts at the declared checkpoints: on the first of them, and after
the last update on all. Evaluation noise is keyed only by the seed and drawn for all prompts, so that arms and checkpoints
differ only by their policies. The test judges never run here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.corpus.config import ARTEFACTS
from rrpo.judges.artefacts import OTHERS
from rrpo.judges.metrics import accuracy, expected_calibration_error, hack_rate, shortcut_uptake, target_log_prob
from rrpo.judges.samples import Samples
from rrpo.models.policy import Rollout, token_entropy
from rrpo.optimizers.base import Batch, Loss, PolicyOptimizer, State
from rrpo.optimizers.diversity import within_prompt_diversity
from rrpo.optimizers.matching import match
from rrpo.optimizers.probe import probe_statistics
from rrpo.optimizers.registry import OPTIMIZERS
from rrpo.optimizers.rollout import (
    Models,
    Prompts,
    judge_frames,
    merge,
    micro_batches,
    rollout_counts,
    rollout_statistics,
    rollout_sums,
)
from rrpo.optimizers.scoring import roll_out
from rrpo.pipeline.checkpoint import Checkpoints
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, uniform
from rrpo.training.trainer import multiplier

CURVE_INTERVAL = 5
"""Steps between two measurements of the training roll-outs by the judges."""


def build(config: OptimizeConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Optimize the policy and write ``curves.parquet``, ``points.parquet``, ``samples.npz`` and ``scalars.json``.

    Resumes from a checkpoint if there is one.

    Raises:
        PluginError: The optimizer does not exist, or its plugin has changed.
        ValueError: The batch is not a multiple of the optimizer's samples per prompt.
        DivergedError: A reward, the loss or the gradient is not finite; raised before the update.
        Interrupted: ``context`` requested a stop between two steps.
    """
    method = OPTIMIZERS.create(config.optimizer)
    asked = prompts_of(method, config)
    matched = match(inputs)
    config = replace(config, gradient_scale=config.gradient_scale * matched.get("gradient_match", 1.0))
    loaded = Models.load(inputs, context.device, context.micro, context.executor.precision)
    models: Models = context.join(loaded)
    train = Prompts.load(inputs["rl_prompts"], models)
    evaluation = Prompts.load(inputs["eval_prompts"], models)
    batches = permutation_batches(len(train.phones), config.batch, config.steps, config.seed, "rl prompts")
    rows = torch.from_numpy(batches).to(train.prefix.device)
    optimizer = torch.optim.Adam(models.policy.parameters(), lr=config.lr, fused=True)
    due = sorted({0, config.steps} | {step for step in config.checkpoints if step < config.steps})
    checkpoints = Checkpoints(context, models.policy.parameters(), optimizer)
    start, kept = checkpoints.resume()
    curves: list[dict[str, float]] = kept.get("curves", [])
    points: list[dict[str, float]] = kept.get("points", [])
    state = _on(train.prefix.device, kept["state"]) if "state" in kept else method.start(models, train, config, inputs)
    samples = [Samples(**{name: saved.numpy() for name, saved in part.items()}) for part in kept.get("samples", ())]
    _tell(context, checkpoints, curves)

    def keep() -> dict[str, Any]:
        stored = [{name: torch.from_numpy(values) for name, values in part.arrays().items()} for part in samples]
        return {"curves": curves, "points": points, "samples": stored, "state": state}

    for step in range(start, config.steps + 1):
        if step in due:
            row, drawn = evaluate(models, evaluation, config, step)
            points.append({"step": step} | row)
            samples.append(drawn)
        if step == config.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * multiplier(step, config.steps, config.warmup, config.schedule)
        chosen = rows[step, :asked].repeat(method.samples)
        batch = roll_out(models, train.select(chosen), config, step)
        curves.append({"step": step} | take_step(models, method, state, batch, optimizer, config))
        checkpoints.boundary(step + 1, keep)
        _tell(context, checkpoints, curves[-1:])
        context.report(step + 1, config.steps)

    pd.DataFrame(curves).to_parquet(out / "curves.parquet")
    frame = pd.DataFrame(points)
    frame.to_parquet(out / "points.parquet")
    Samples.concatenate(samples).save(out)
    (out / "scalars.json").write_text(json.dumps(summary(frame) | matched))


def _tell(context: Context, checkpoints: Checkpoints, rows: Sequence[Mapping[str, float]]) -> None:
    """Pass rows of the curves to ``context.watch``. If it raises, remove the checkpoints, so that nothing of the run is kept."""
    try:
        for row in rows:
            context.watch(int(row["step"]), row)
    except Exception:
        checkpoints.discard()
        raise


def prompts_of(method: PolicyOptimizer, config: OptimizeConfig) -> int:
    """Return the number of prompts in a batch; each is sampled ``method.samples`` times."""
    prompts, left = divmod(config.batch, method.samples)
    if left:
        raise ValueError(
            f"a batch of {config.batch} roll-outs does not hold {method.samples} of each prompt; "
            f"set optimize.batch to a multiple of {method.samples}"
        )
    return prompts


def _on(device: torch.device, state: State) -> State:
    return {name: value.to(device) for name, value in state.items()}


def take_step(
    models: Models,
    method: PolicyOptimizer,
    state: State,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
) -> dict[str, float]:
    """Make the updates on one batch and return its metrics.

    The judges evaluate the roll-outs at the first update, before the policy changes. If there are several updates, the losses,
    gradient norms and the optimizer's values of the last one are returned.
    """
    metrics: dict[str, float] = {}
    look = batch.step % CURVE_INTERVAL == 0
    for losses in method.updates(models, batch, config, state):
        metrics |= _update(models, losses, batch, optimizer, config, look=look)
        look = False
    return metrics


def _update(
    models: Models,
    losses: Iterable[Loss],
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
    *,
    look: bool,
) -> dict[str, float]:
    """Make one update and return its metrics."""
    optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=batch.prompts.prefix.device)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    heard: list[tuple[Tensor, dict[str, Tensor]]] = []
    own: list[tuple[Tensor, dict[str, Tensor]]] = []
    for part in losses:
        models.backward(part.loss)
        loss += part.loss.detach()
        rows = part.part.rows
        found.append((rows, part.values))
        if look:
            heard.append((rows, _look(models, part)))
            own.append((rows, part.look(models, config)))
    values = merge(found)
    norm = torch.nn.utils.clip_grad_norm_(models.policy.parameters(), config.grad_clip)
    finite = torch.isfinite(values["reward_loss"])
    metrics = _numbers(_means(values) | {"loss": loss, "grad_norm": norm, "lost": (~finite).sum()})
    lost = int(metrics.pop("lost"))
    if lost or not math.isfinite(metrics["loss"] + metrics["grad_norm"]):
        raise DivergedError(
            f"policy step {batch.step + 1} of {config.steps}: loss {metrics['loss']:.4g}, "
            f"gradient norm {metrics['grad_norm']:.4g}, {lost} of {len(finite)} rewards not finite; "
            "the cell counts as diverged: a lower lr or a higher beta may keep it finite"
        )
    optimizer.step()
    if look:
        values = merge(heard)
        relaxed = _numbers(_means(merge(own)))
        metrics |= rollout_statistics(values) | opinions(values, batch.prompts.target) | relaxed
    return metrics


def _means(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.mean() for name, value in values.items()}


def _numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the scalars as numbers. They are transferred together because each transfer waits for the device."""
    values = torch.stack([scalar.double() for scalar in scalars.values()]).tolist() if scalars else []
    return dict(zip(scalars, values, strict=True))


@torch.no_grad()
def _look(models: Models, part: Loss) -> dict[str, Tensor]:
    """Return the measurements on the training roll-outs of one micro-batch, each ``[b]`` or ``[b, K]``."""
    rollout = part.part.rollout
    sums = {"kl": part.kl, "entropy": rollout.sums(token_entropy(part.log_p))} | rollout_counts(rollout)
    return sums | judge_frames(models, *part.frames, part.part.prompts.target)


@torch.no_grad()
def evaluate(models: Models, prompts: Prompts, config: OptimizeConfig, step: int) -> tuple[dict[str, float], Samples]:
    """Sample the evaluation prompts of one checkpoint, a few of them repeatedly for diversity. Return metrics and samples.

    Batches have `OptimizeConfig.eval_prompts` prompts, so that a sample has the same bits however many prompts are sampled.
    """
    device = prompts.prefix.device
    asked = config.final_prompts if step == config.steps else config.eval_prompts
    places = torch.arange(min(asked, len(prompts.phones)), device=device)
    shape = (models.policy.max_tokens, config.final_prompts)
    noise = uniform(shape, config.seed, "evaluation noise", device=device)
    found: list[dict[str, Tensor]] = []
    drawn: list[Samples] = []
    for rows in places.split(config.eval_prompts):
        batch = prompts.select(rows)
        rollout = models.policy.sample(batch.prefix, noise[:, rows])
        found.append(listen(models, batch, rollout))
        drawn.append(stored(step, rows, rollout, found[-1], batch.target))
    values = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    row = rollout_statistics(values) | opinions(values, prompts.target[places])
    row["diversity"] = within_prompt_diversity(models.policy, prompts.prefix, config.seed)
    return row | {"sqrt_kl": max(0.0, row["kl_token"]) ** 0.5}, Samples.concatenate(drawn)


@torch.no_grad()
def listen(models: Models, prompts: Prompts, rollout: Rollout) -> dict[str, Tensor]:
    """Return the measurements on samples of ``prompts``, each ``[B]`` or ``[B, K]``: `rollout_sums` and `judge_frames`."""
    heard: list[tuple[Tensor, dict[str, Tensor]]] = []
    for chosen in micro_batches(rollout.lengths, models.micro):
        few, part = prompts.select(chosen), rollout.select(chosen)
        logits, reference = (model.logits(few.prefix, part.tokens) for model in (models.policy, models.reference))
        F, frames = models.codec.decode(part.tokens, part.lengths, few.speaker)
        judged = judge_frames(models, F, frames, few.target)
        heard.append((chosen, rollout_sums(logits, reference, part) | judged))
    return merge(heard)


def opinions(heard: dict[str, Tensor], target: Tensor) -> dict[str, float]:
    """Return accuracy, log-probability, calibration, hacking and artefacts of one batch."""
    kinds = (*ARTEFACTS, *OTHERS)
    names = ["proxy", "val", *(f"artefact_{kind}" for kind in kinds)]
    host = {name: heard[name].float().cpu().numpy() for name in names}
    wanted = target.cpu().numpy()
    flags = np.stack([host[f"artefact_{kind}"] for kind in ARTEFACTS], 1) > 0
    row = {f"artefact_{kind}": float(flags[:, k].mean()) for k, kind in enumerate(ARTEFACTS)}
    for name in ("proxy", "val"):
        row[f"{name}_accuracy"] = accuracy(host[name], wanted)
        row[f"{name}_logprob"] = target_log_prob(host[name], wanted)
    row["proxy_confidence"] = float(np.exp(host["proxy"].max(1)).mean())
    row["proxy_ece"] = expected_calibration_error(host["proxy"], wanted)
    row |= probe_statistics(heard)
    flagged = np.stack([host[f"artefact_{kind}"] for kind in kinds], 1).any(1)
    row["val_clean"] = float(((host["val"].argmax(1) == wanted) & ~flagged).mean())
    row["val_hack_rate"] = hack_rate(host["proxy"].argmax(1), host["val"].argmax(1), wanted, flags)
    row["uptake"] = shortcut_uptake(flags, wanted)
    return row


def stored(step: int, places: Tensor, rollout: Rollout, opinions: dict[str, Tensor], target: Tensor) -> Samples:
    """Return samples of the evaluation prompts at ``places`` as they are stored, with the outputs of proxy and ``val``."""
    tokens = rollout.tokens.cpu().numpy().astype(np.int16)
    lengths = rollout.lengths.cpu().numpy().astype(np.int16)
    tokens[np.arange(tokens.shape[1])[None] >= lengths[:, None]] = -1
    heard = {name: opinions[name].float() for name in ("proxy", "val")}
    return Samples(
        step=np.full(len(lengths), step),
        prompt=places.cpu().numpy(),
        tokens=tokens,
        lengths=lengths,
        **{f"{name}_argmax": said.argmax(1).cpu().numpy().astype(np.int8) for name, said in heard.items()},
        **{f"{name}_logprob": said.gather(1, target[:, None])[:, 0].cpu().numpy() for name, said in heard.items()},
    )


def summary(points: pd.DataFrame) -> dict[str, float]:
    """Return the final values of every metric, the initial values of some, and the peak of the accuracy."""
    first, last = points.iloc[0], points.iloc[-1]
    scalars = {f"end_{name}": float(last[name]) for name in points.columns if name != "step"}
    scalars |= {
        f"start_{name}": float(first[name]) for name in ("proxy_accuracy", "val_accuracy", "val_logprob", "length")
    }
    return scalars | {"peak_val_accuracy": float(points["val_accuracy"].max())}
