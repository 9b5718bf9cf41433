"""The loop of policy optimization, and stage ``optimize``, with curves by the ``val`` judge and samples stored as tokens.

The objective comes from a `PolicyOptimizer`; everything else is here and the same for all of them. `rrpo.cosyvoice` runs the same
loop (`optimize`) with other measurements. Curves are measured on every step's own roll-outs. Points are measured on the
evaluation prompts at the declared checkpoints: on the first of them, and after the last update on all. Evaluation noise is keyed
only by the seed and drawn for all prompts, so that arms and checkpoints differ only by their policies. The test judges never run
here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.corpus.config import ARTEFACTS
from rrpo.judges.artefacts import OTHERS
from rrpo.judges.metrics import (
    accuracy,
    artefact_columns,
    expected_calibration_error,
    hack_rate,
    shortcut_uptake,
    target_log_prob,
)
from rrpo.judges.samples import Samples
from rrpo.models.policy import Rollout, token_entropy
from rrpo.optimizers.base import Batch, Loss, PolicyOptimizer, State, prompts_of
from rrpo.optimizers.diversity import within_prompt_diversity
from rrpo.optimizers.matching import match
from rrpo.optimizers.parallel import ALONE, Processes
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


@dataclass
class Trajectory:
    """Measurements along one optimization; part of the checkpoints."""

    curves: list[dict[str, float]]
    """One row per step, on its roll-outs."""
    points: list[dict[str, float]]
    """One row per declared checkpoint, on the evaluation prompts."""
    samples: list[Any]
    """Samples of the evaluation prompts per declared checkpoint: tensors, numbers, and lists and dicts of them."""


class Meter(Protocol):
    """Measurements on the roll-outs of one update, in addition to its losses."""

    def add(self, loss: Loss) -> None:
        """Measure one micro-batch, after its loss was differentiated."""

    def means(self) -> dict[str, float]:
        """Return the measurements on all micro-batches."""


MakeMeter = Callable[[Models, Batch, OptimizeConfig, int], Meter]
"""Creates the meter of an update from the models, the roll-outs, the settings and the number of the update on this batch."""


@dataclass
class Judges:
    """Evaluate the roll-outs by the frozen models at every `CURVE_INTERVAL`-th step, before the policy changes."""

    models: Models
    batch: Batch
    config: OptimizeConfig
    update: int
    measured: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    extra: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)

    def add(self, loss: Loss) -> None:
        """As `Meter.add`."""
        if self.update == 0 and self.batch.step % CURVE_INTERVAL == 0:
            rows = loss.part.rows
            self.measured.append((rows, _measure(self.models, loss)))
            self.extra.append((rows, loss.measurements(self.models, self.config)))

    def means(self) -> dict[str, float]:
        """As `Meter.means`."""
        if not self.measured:
            return {}
        values = merge(self.measured)
        relaxed = _numbers(_means(merge(self.extra)))
        judged = opinions(values, self.batch.prompts.target, self.models.reward_model.emotions)
        return rollout_statistics(values) | judged | relaxed


def build(config: OptimizeConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Build stage ``optimize``: run `optimize` and `save` the result."""
    matched = match(inputs)
    config = replace(config, gradient_scale=config.gradient_scale * matched.get("gradient_match", 1.0))
    loaded = Models.load(inputs, context.device, context.micro, context.executor.precision)
    models: Models = replace(context.join(loaded), backward=context.backward)
    train = Prompts.load(inputs["rl_prompts"], models)
    evaluation = Prompts.load(inputs["eval_prompts"], models)

    def measure(step: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        row, evaluated = evaluate(models, evaluation, config, step)
        return row, {name: torch.from_numpy(values) for name, values in evaluated.arrays().items()}

    trajectory = optimize(models, train, config, context, inputs, measure)
    samples = [Samples(**{name: value.numpy() for name, value in arrays.items()}) for arrays in trajectory.samples]
    save(out, trajectory.points, samples, trajectory.curves, matched)


def optimize(
    models: Models,
    train: Prompts,
    config: OptimizeConfig,
    context: Context,
    inputs: Mapping[str, Path],
    measure: Callable[[int], tuple[dict[str, float], Any]],
    meter: MakeMeter = Judges,
    processes: Processes = ALONE,
    updates: int | None = None,
) -> Trajectory:
    """Optimize ``models.policy`` in place, resuming from a checkpoint if ``context`` has one.

    Args:
        models: The policy and the frozen models.
        train: Training prompts.
        config: The settings.
        context: Device, checkpoints and callbacks.
        inputs: Folders that `PolicyOptimizer.start` may read.
        measure: Returns the row of `Trajectory.points` and the samples at a declared checkpoint.
        meter: Measurements of each update.
        processes: Processes that share each batch.
        updates: Number of updates to make; None: all ``config.steps``.

    Raises:
        PluginError: The optimizer does not exist, or its plugin has changed.
        InputError: The batch is not a multiple of the optimizer's samples per prompt.
        DivergedError: A reward, the loss or the gradient is not finite; raised before the update.
        Interrupted: ``context`` requested a stop between two steps.
    """
    method = OPTIMIZERS.create(config.optimizer)
    count = prompts_of(method, config)
    numbers = processes.numbers(count, method.samples)
    device = train.prefix.device
    batches = permutation_batches(len(train.phones), config.batch, config.steps, config.seed, "rl prompts")
    order = torch.from_numpy(batches).to(device)
    parameters = [parameter for parameter in models.policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.lr, fused=True)
    end = config.steps if updates is None else updates
    due = {0, end} | {step for step in config.checkpoints if step < end}
    checkpoints = Checkpoints(context, parameters, optimizer)
    start, saved = checkpoints.resume()
    trajectory = Trajectory(*(saved.get(name, []) for name in ("curves", "points", "samples")))
    state = _to_device(device, saved["state"]) if "state" in saved else method.start(models, train, config, inputs)
    _watch(context, checkpoints, trajectory.curves)

    for step in range(start, end + 1):
        if step in due:
            row, samples = measure(step)
            trajectory.points.append({"step": step} | row)
            trajectory.samples.append(samples)
        if step == end:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * multiplier(step, config.steps, config.warmup, config.schedule)
        rows = order[step, :count].repeat(method.samples)
        batch = roll_out(models, train.select(rows if numbers is None else rows[numbers]), config, step, numbers)
        metrics = take_step(models, method, state, batch, optimizer, config, meter, processes)
        trajectory.curves.append({"step": step} | metrics)
        checkpoints.boundary(step + 1, lambda: vars(trajectory) | {"state": state}, last=step + 1 == end)
        _watch(context, checkpoints, trajectory.curves[-1:])
        context.report(step + 1, end)
    return trajectory


def _watch(context: Context, checkpoints: Checkpoints, rows: Sequence[Mapping[str, float]]) -> None:
    """Pass rows of the curves to ``context.on_measures``. If it raises, remove the checkpoints: nothing of the run is kept."""
    try:
        for row in rows:
            context.on_measures(int(row["step"]), row)
    except Exception:
        checkpoints.discard()
        raise


def _to_device(device: torch.device, state: State) -> State:
    return {name: value.to(device) for name, value in state.items()}


def take_step(
    models: Models,
    method: PolicyOptimizer,
    state: State,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
    meter: MakeMeter = Judges,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Make the updates on one batch and return its metrics.

    If there are several updates, the losses, gradient norms and the optimizer's values of the last one are returned.
    """
    metrics: dict[str, float] = {}
    for number, losses in enumerate(method.updates(models, batch, config, state)):
        if isinstance(losses, Loss):
            raise TypeError(
                f"{type(method).__name__}.updates gives losses; it must yield updates, each an iterator of losses"
            )
        measured = meter(models, batch, config, number)
        metrics |= _update(models, losses, batch, optimizer, config, measured, processes)
    if not metrics:
        raise ValueError(f"{type(method).__name__}.updates yields no update")
    return metrics


def _update(
    models: Models,
    losses: Iterable[Loss],
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    config: OptimizeConfig,
    meter: Meter,
    processes: Processes,
) -> dict[str, float]:
    """Make one update and return its metrics."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=batch.prompts.prefix.device)
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    for loss in losses:
        models.backward(loss.loss)
        total += loss.loss.detach()
        parts.append((loss.part.rows, loss.values))
        meter.add(loss)
    values = merge(parts)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    processes.average(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
    finite = torch.isfinite(values["reward_loss"])
    metrics = _numbers(_means(values) | {"loss": total, "grad_norm": norm, "lost": (~finite).sum()})
    metrics = processes.means(metrics)
    lost = metrics.pop("lost") * processes.count
    if lost or not math.isfinite(metrics["loss"] + metrics["grad_norm"]):
        raise DivergedError(
            f"policy step {batch.step + 1} of {config.steps}: loss {metrics['loss']:.4g}, "
            f"gradient norm {metrics['grad_norm']:.4g}, {lost:.0f} of {len(finite) * processes.count} rewards not finite; "
            "the cell counts as diverged: a lower lr or a higher beta may keep it finite"
        )
    optimizer.step()
    return metrics | meter.means()


def _means(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.mean() for name, value in values.items()}


def _numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the scalars as numbers. They are transferred together because each transfer waits for the device."""
    values = torch.stack([scalar.double() for scalar in scalars.values()]).tolist() if scalars else []
    return dict(zip(scalars, values, strict=True))


@torch.no_grad()
def _measure(models: Models, loss: Loss) -> dict[str, Tensor]:
    """Return the measurements on the training roll-outs of one micro-batch, each ``[b]`` or ``[b, K]``."""
    rollout = loss.part.rollout
    sums = {"kl": loss.kl, "entropy": rollout.sums(token_entropy(loss.log_p))} | rollout_counts(rollout)
    return sums | judge_frames(models, *loss.frames, loss.part.prompts.target)


@torch.no_grad()
def evaluate(models: Models, prompts: Prompts, config: OptimizeConfig, step: int) -> tuple[dict[str, float], Samples]:
    """Sample the evaluation prompts of one checkpoint, a few of them repeatedly for diversity. Return metrics and samples.

    Batches have `OptimizeConfig.eval_prompts` prompts, so that a sample has the same bits however many prompts are sampled.
    """
    device = prompts.prefix.device
    count = config.final_prompts if step == config.steps else config.eval_prompts
    indices = torch.arange(min(count, len(prompts.phones)), device=device)
    shape = (models.policy.max_tokens, config.final_prompts)
    noise = uniform(shape, config.seed, "evaluation noise", device=device)
    measurements: list[dict[str, Tensor]] = []
    samples: list[Samples] = []
    for rows in indices.split(config.eval_prompts):
        batch = prompts.select(rows)
        rollout = models.policy.sample(batch.prefix, noise[:, rows])
        measurements.append(measure_samples(models, batch, rollout))
        samples.append(stored(step, rows, rollout, measurements[-1], batch.target))
    values = {name: torch.cat([part[name] for part in measurements]) for name in measurements[0]}
    row = rollout_statistics(values) | opinions(values, prompts.target[indices], models.reward_model.emotions)
    row["diversity"] = within_prompt_diversity(models.policy, prompts.prefix, config.seed)
    return row | {"sqrt_kl": max(0.0, row["kl_token"]) ** 0.5}, Samples.concatenate(samples)


@torch.no_grad()
def measure_samples(models: Models, prompts: Prompts, rollout: Rollout) -> dict[str, Tensor]:
    """Return the measurements on samples of ``prompts``, each ``[B]`` or ``[B, K]``: `rollout_sums` and `judge_frames`."""
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    for rows in micro_batches(rollout.lengths, models.micro):
        batch, samples = prompts.select(rows), rollout.select(rows)
        logits, reference = (model.logits(batch.prefix, samples.tokens) for model in (models.policy, models.reference))
        F, frames = models.codec.decode(samples.tokens, samples.lengths, batch.speaker)
        outputs = judge_frames(models, F, frames, batch.target)
        parts.append((rows, rollout_sums(logits, reference, samples) | outputs))
    return merge(parts)


def opinions(measurements: dict[str, Tensor], target: Tensor, emotions: Sequence[str]) -> dict[str, float]:
    """Return accuracy, log-probability, calibration, hacking and artefacts of one batch; ``target [B]`` counts ``emotions``."""
    kinds = (*ARTEFACTS, *OTHERS)
    names = ["proxy", "val", *(f"artefact_{kind}" for kind in kinds)]
    arrays = {name: measurements[name].float().cpu().numpy() for name in names}
    targets = target.cpu().numpy()
    flags = np.stack([arrays[f"artefact_{kind}"] for kind in ARTEFACTS], 1) > 0
    row = {f"artefact_{kind}": float(flags[:, k].mean()) for k, kind in enumerate(ARTEFACTS)}
    for name in ("proxy", "val"):
        row[f"{name}_accuracy"] = accuracy(arrays[name], targets)
        row[f"{name}_logprob"] = target_log_prob(arrays[name], targets)
    row["proxy_confidence"] = float(np.exp(arrays["proxy"].max(1)).mean())
    row["proxy_ece"] = expected_calibration_error(arrays["proxy"], targets)
    row |= probe_statistics(measurements)
    flagged = np.stack([arrays[f"artefact_{kind}"] for kind in kinds], 1).any(1)
    row["val_clean"] = float(((arrays["val"].argmax(1) == targets) & ~flagged).mean())
    row["val_hack_rate"] = hack_rate(arrays["proxy"].argmax(1), arrays["val"].argmax(1), targets, flags)
    row["uptake"] = shortcut_uptake(flags, np.array(artefact_columns(emotions))[targets])
    return row


def stored(step: int, indices: Tensor, rollout: Rollout, measurements: dict[str, Tensor], target: Tensor) -> Samples:
    """Return samples of the evaluation prompts at ``indices`` as they are stored, with the outputs of proxy and ``val``."""
    tokens = rollout.tokens.cpu().numpy().astype(np.int16)
    lengths = rollout.lengths.cpu().numpy().astype(np.int16)
    tokens[np.arange(tokens.shape[1])[None] >= lengths[:, None]] = -1
    outputs = {name: measurements[name].float() for name in ("proxy", "val")}
    return Samples(
        step=np.full(len(lengths), step),
        prompt=indices.cpu().numpy(),
        tokens=tokens,
        lengths=lengths,
        **{f"{name}_argmax": log_p.argmax(1).cpu().numpy().astype(np.int8) for name, log_p in outputs.items()},
        **{f"{name}_logprob": log_p.gather(1, target[:, None])[:, 0].cpu().numpy() for name, log_p in outputs.items()},
    )


def save(
    out: Path,
    points: Sequence[Mapping[str, float]],
    samples: Sequence[Samples],
    curves: Sequence[Mapping[str, float]] = (),
    scalars: Mapping[str, float] | None = None,
) -> None:
    """Write ``curves.parquet``, ``points.parquet``, ``samples.npz`` and ``scalars.json``, the files that scoring reads.

    Args:
        out: Folder of the stage.
        points: One row per evaluated checkpoint.
        samples: Its samples.
        curves: One row per update; none without optimization.
        scalars: Numbers in addition to the `summary` of ``points``.
    """
    frame = pd.DataFrame(points)
    pd.DataFrame(curves).to_parquet(out / "curves.parquet")
    frame.to_parquet(out / "points.parquet")
    Samples.concatenate(samples).save(out)
    (out / "scalars.json").write_text(json.dumps(summary(frame) | dict(scalars or {})))


def summary(points: pd.DataFrame) -> dict[str, float]:
    """Return the final values of every metric, the initial values of some, and the peak of the accuracy."""
    first, last = points.iloc[0], points.iloc[-1]
    scalars = {f"end_{name}": float(last[name]) for name in points.columns if name != "step"}
    scalars |= {
        f"start_{name}": float(first[name]) for name in ("proxy_accuracy", "val_accuracy", "val_logprob", "length")
    }
    return scalars | {"peak_val_accuracy": float(points["val_accuracy"].max())}
