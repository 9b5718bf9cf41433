"""Stage ``gradients``: test DiffRO's claim that its gradient has less variance than the policy gradient, and measure its bias.

At a policy theta, each of `METHODS` computes B gradients g_1 ... g_B of the emotion reward alone (no KL, no content), each on
its own batch of roll-outs; methods with equally many samples per prompt use the same batches. The reference G is the mean of
REINFORCE's gradients, which are unbiased, on many other batches. Squared norms are corrected for noise:

    signal    |E g|^2  =  (|sum g|^2 - sum |g|^2) / (B (B - 1))
    variance  E |g - E g|^2, the sum over the parameters, of one batch
    cosine    mean over pairs of batches of cos(g_i, g_j)
    bias      |E g - G|^2 / |G|^2, for methods that estimate the gradient of the reward itself
    alignment <E g, G> / (|E g| |G|), independent of the scale of a method
    reference noise  variance / batches of the reference / |G|^2; above 1, bias and alignment are mostly noise

Then a step along the mean gradient moves the policy to a declared KL (nats per token) from theta. The gain is the increase of
the proxy's log-probability of the target on evaluation prompts, reported per nat of KL, and per thousand roll-outs and per
minute of computing used for the mean gradient. GRPO's gradients are of normalized rewards, so its variance and bias are on
another scale. For DiffRO only, the changes it predicts for single tokens are compared with the true changes when the rest is
held or redrawn (`rrpo.diagnostics.redrawn`).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from rrpo.config import GradientsConfig, OptimizeConfig
from rrpo.diagnostics import redrawn
from rrpo.diagnostics.fidelity import reward_of
from rrpo.models.protocols import TokenPolicy
from rrpo.optimizers import OPTIMIZERS, PolicyOptimizer
from rrpo.optimizers.base import prompts_of
from rrpo.optimizers.loop import optimize
from rrpo.optimizers.relaxation import temperature
from rrpo.optimizers.reward import reward_loss
from rrpo.optimizers.rollout import Models, Prompts, merge, micro_batches, rollout_sums
from rrpo.optimizers.scoring import roll_out
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, uniform

TABLE = "gradients.parquet"
"""File with one row per method: ``method``, then one column per measure."""
REFERENCE = "reinforce"
"""The method whose mean gradient is the reference for the true gradient."""
METHODS: dict[str, tuple[str, str]] = {
    "diffro": ("diffro", "probabilities"),
    "diffro_gumbel": ("diffro", "gumbel"),
    "reinforce": ("reinforce", "gumbel"),
    "grpo": ("grpo", "gumbel"),
}
"""Optimizer and relaxation (used by DiffRO only) by name, as the arms are named."""
RELAXED = "diffro"
"""The method whose gradient `rrpo.diagnostics.redrawn` compares with the effects of single tokens."""
SEARCH = 10
"""Maximum number of step lengths tried to reach the KL."""


def build(config: GradientsConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Read the inputs of stage ``optimize``; write `TABLE` and ``scalars.json`` (empty)."""
    models = Models.load(inputs, context.device, context.micro)
    train = Prompts.load(inputs["rl_prompts"], models)
    evaluation = Prompts.load(inputs["eval_prompts"], models)
    size = min(config.prompts, len(evaluation.phones))
    evaluation = evaluation.select(torch.arange(size, device=evaluation.prefix.device))
    silent = replace(context.part("optimize"), report=Context.report, on_measures=Context.on_measures)
    # Again, because the stage ``optimize`` stores no policies.
    optimize(models, train, config.optimize, silent, inputs, lambda step: ({}, None), updates=config.updates)
    current = replace(models, reference=frozen(models.policy))
    at_update = replace(config, optimize=emotion_reward(config.optimize, config.updates))
    rows: list[dict[str, str | float]] = []
    for row in compared(current, train, evaluation, at_update):
        rows.append(row)
        context.report(len(rows), len(METHODS))
    pd.DataFrame(rows).to_parquet(out / TABLE, index=False)
    (out / "scalars.json").write_text(json.dumps({}))


def emotion_reward(config: OptimizeConfig, updates: int) -> OptimizeConfig:
    """Return the settings of an arm after ``updates`` updates, for the emotion reward alone, with weight and scale 1."""
    tau = temperature(updates, config.steps, config.tau)
    return replace(config, beta=0.0, content_weight=0.0, emotion_weight=1.0, gradient_scale=1.0, tau=(tau,))


def frozen(policy: TokenPolicy) -> TokenPolicy:
    """Return a frozen copy."""
    duplicate = copy.deepcopy(policy)
    for parameter in duplicate.parameters():
        parameter.requires_grad_(False)
    return duplicate


@dataclass
class Moments:
    """Running sums over gradients ``g [D]``; sums over parameters are in float64."""

    count: int = 0
    total: Tensor | float = 0.0
    """Sum of g."""
    directions: Tensor | float = 0.0
    """Sum of g / |g|."""
    squares: float = 0.0
    """Sum of |g|^2."""

    def add(self, g: Tensor) -> None:
        """Add one gradient."""
        square = dot(g, g)
        self.count += 1
        self.total = self.total + g
        self.directions = self.directions + g / math.sqrt(square)
        self.squares += square

    @property
    def mean(self) -> Tensor:
        """Mean of the gradients."""
        return torch.as_tensor(self.total) / self.count

    @property
    def signal(self) -> float:
        """|E g|^2 corrected for noise; may be below 0 if the gradients are mostly noise."""
        total = torch.as_tensor(self.total)
        return (dot(total, total) - self.squares) / (self.count * (self.count - 1))

    @property
    def variance(self) -> float:
        """E |g - E g|^2 of a single gradient."""
        return (self.squares - self.count * dot(self.mean, self.mean)) / (self.count - 1)

    @property
    def cosine(self) -> float:
        """Mean cosine over pairs of gradients."""
        directions = torch.as_tensor(self.directions)
        return (dot(directions, directions) - self.count) / (self.count * (self.count - 1))


def dot(a: Tensor, b: Tensor) -> float:
    """Return the inner product in float64."""
    return float(torch.dot(a.double(), b.double()))


def against(moments: Moments, reference: Moments) -> dict[str, float]:
    """Return signal, variance and cosine of one method's gradients, and bias and alignment relative to a reference from other
    batches."""
    squared = reference.signal
    noise = moments.variance / moments.count + reference.variance / reference.count
    difference = moments.mean - reference.mean
    product = moments.signal * squared
    aligned = dot(moments.mean, reference.mean) / math.sqrt(product) if moments.signal > 0 and squared > 0 else math.nan
    return {
        "signal": moments.signal,
        "variance": moments.variance,
        "relative_variance": moments.variance / moments.signal if moments.signal > 0 else math.nan,
        "cosine": moments.cosine,
        "bias": (dot(difference, difference) - noise) / squared if squared > 0 else math.nan,
        "alignment": aligned,
        "reference_noise": reference.variance / reference.count / squared if squared > 0 else math.nan,
    }


def compared(
    models: Models, train: Prompts, evaluation: Prompts, config: GradientsConfig
) -> Iterator[dict[str, str | float]]:
    """Yield one row of measures per method, at the current policy."""
    further = range(config.batches, config.batches + config.reference_batches)
    reference, _ = measured(models, train, REFERENCE, config, further)
    for name in METHODS:
        moments, seconds = measured(models, train, name, config, range(config.batches))
        row = against(moments, reference)
        if name == RELAXED:
            reward, seed = reward_of(models.reward_model), config.optimize.seed
            row |= redrawn.compare(models.policy, models.codec, reward, evaluation, seed, config.continuations)
        gain, kl = stepped(models, evaluation, -moments.mean, config)
        yield {
            "method": name,
            **row,
            "gain": gain,
            "kl": kl,
            "gain_per_nat": gain / kl if kl > 0 else math.nan,
            "gain_per_1000_rollouts": 1000 * gain / (config.batches * config.batch),
            "gain_per_minute": 60 * gain / seconds,
            "seconds_per_batch": seconds / config.batches,
        }


def measured(
    models: Models, train: Prompts, name: str, config: GradientsConfig, batches: range
) -> tuple[Moments, float]:
    """Return a method's gradients on the batches with these numbers, and the CPU seconds (on a GPU: wall-clock) they took."""
    optimiser, relaxation = METHODS[name]
    method = OPTIMIZERS.create(OPTIMIZERS.choice(optimiser))
    base = config.optimize
    settings = replace(base, relaxation=relaxation, batch=config.batch)
    total = config.batches + config.reference_batches
    rows = permutation_batches(len(train.phones), config.batch, total, base.seed, "gradient prompts")
    clock = _clock(train.prefix.device)
    start, moments = clock(), Moments()
    for number in batches:
        indices = torch.from_numpy(rows[number, : prompts_of(method, settings)]).to(train.prefix.device)
        prompts = train.select(indices.repeat(method.samples))
        moments.add(gradient(models, method, prompts, settings, base.steps + number))
    return moments, clock() - start


def gradient(models: Models, method: PolicyOptimizer, prompts: Prompts, config: OptimizeConfig, step: int) -> Tensor:
    """Return the gradient ``[D]`` of a method's first update on one batch; ``step`` keys its noise."""
    parameters = list(models.policy.parameters())
    for parameter in parameters:
        parameter.grad = None
    for loss in next(iter(method.updates(models, roll_out(models, prompts, config, step), config, {}))):
        torch.autograd.backward(loss.loss)
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


def stepped(models: Models, prompts: Prompts, direction: Tensor, config: GradientsConfig) -> tuple[float, float]:
    """Step along ``direction [D]``; return the increase of the proxy's mean log-probability of the target, and the KL per token.

    The length is corrected until the KL matches, using that the KL of a short step grows with the square of its length.
    """
    shape, seed = (models.policy.max_tokens, len(prompts.phones)), config.optimize.seed
    noise = uniform(shape, seed, "gradient steps", device=prompts.prefix.device)
    before = parameters_to_vector(models.policy.parameters()).detach()
    initial, _ = measure_policy(models, prompts, noise)
    unit, length = direction / direction.norm(), 1.0
    gain, kl = 0.0, 0.0
    for _ in range(SEARCH):
        _set_parameters(models, before + length * unit)
        shifted, kl = measure_policy(models, prompts, noise)
        gain = shifted - initial
        if abs(kl - config.kl) < 0.1 * config.kl:
            break
        length *= min(4.0, max(0.25, math.sqrt(config.kl / max(kl, 1e-12))))
    _set_parameters(models, before)
    return gain, kl


@torch.no_grad()
def _set_parameters(models: Models, vector: Tensor) -> None:
    """Set the policy's parameters to ``vector [D]``."""
    parameters = list(models.policy.parameters())
    for parameter, value in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(value.view_as(parameter))


@torch.no_grad()
def measure_policy(models: Models, prompts: Prompts, noise: Tensor) -> tuple[float, float]:
    """Return the reward model's mean log-probability of the targets for one sample per prompt, and the KL per token."""
    rollout = models.policy.sample(prompts.prefix, noise)
    parts = []
    for rows in micro_batches(rollout.lengths, models.micro):
        batch, samples = prompts.select(rows), rollout.select(rows)
        logits, reference = (model.logits(batch.prefix, samples.tokens) for model in (models.policy, models.reference))
        F, frames = models.codec.decode(samples.tokens, samples.lengths, batch.speaker)
        loss = {"loss": reward_loss(models.reward_model, F, frames, batch.target)}
        parts.append((rows, rollout_sums(logits, reference, samples) | loss))
    values = merge(parts)
    return -float(values["loss"].mean()), float(values["kl"].sum() / values["scored"].sum())


def _clock(device: torch.device) -> Callable[[], float]:
    """Return a clock: CPU seconds, or on a GPU wall-clock seconds after synchronization."""
    if device.type == "cpu":
        return time.process_time

    def wall() -> float:
        torch.cuda.synchronize(device)
        return time.monotonic()

    return wall
