"""Policy optimization of CosyVoice2 with any optimizer of the project, and measurements on tokens.

As in the stage ``optimize`` (`rrpo.optimizers.loop`), a `PolicyOptimizer` defines the objective and `OptimizeConfig` the
settings. The judges and artefact detectors of that stage need log-mel frames; here the measurements are the proxy (the reward
model), a held-out reward model in place of gold, the KL to the reference, and lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.prompts import write_prompts
from rrpo.cosyvoice.config import LoraConfig
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.lora import adapt
from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.cosyvoice.reward import NoContent
from rrpo.cosyvoice.tokens import TokenUtterance
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.models.policy import Rollout
from rrpo.models.protocols import TokenCodec
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.base import Batch, Loss, MicroBatch
from rrpo.optimizers.loop import Trajectory, optimize
from rrpo.optimizers.parallel import ALONE, Processes
from rrpo.optimizers.rollout import Models, Prompts, merge
from rrpo.optimizers.scoring import compute_rewards, score, split
from rrpo.pipeline.stages import Context
from rrpo.seeding import uniform

EVALUATED = 128
"""Evaluation prompts per batch."""


def with_reference(
    policy: CosyVoice2Policy,
    lora: LoraConfig | None,
    reward_model: RewardModel,
    judge: RewardModel,
    codec: FsqDigits,
    recogniser: Recogniser | None = None,
    micro: int | None = None,
) -> Models:
    """Return the models of an optimization: the policy, with low-rank updates if ``lora`` is given, a frozen copy of it as it was
    before, and the others; ``judge`` takes the place of gold, and without ``recogniser`` the content loss is constant."""
    reference = deepcopy(policy).requires_grad_(False)
    if lora is not None:
        adapt(policy, lora)
    content = recogniser or cast(Recogniser, NoContent())
    gold = cast(Judge, judge)  # any frame classifier with log_probs works
    return Models(policy, reference, reward_model, content, codec, gold, micro)


def optimise(
    models: Models,
    train: Prompts,
    evaluation: Prompts,
    config: OptimizeConfig,
    context: Context | None = None,
    *,
    inputs: Mapping[str, Path] | None = None,
    best_of: int = 1,
    processes: Processes = ALONE,
) -> Trajectory:
    """Run `rrpo.optimizers.loop.optimize` with the measurements on tokens; samples are lists of token ids.

    Args:
        models: The policy and the frozen models.
        train: Training prompts.
        evaluation: Evaluation prompts.
        config: The shared settings.
        context: Device, checkpoints and callbacks.
        inputs: Additional inputs of optimizers, from `write_inputs`.
        best_of: n: evaluate the sample with the lowest cost by the arm's reward of n samples per evaluation prompt.
        processes: Processes that share each batch.
    """

    def measure(step: int) -> tuple[dict[str, float], list[list[int]]]:
        return measured(models, evaluation, config, best_of)

    meter = partial(TokenMeter, processes=processes)
    return optimize(models, train, config, context or Context(), inputs or {}, measure, meter, processes)


def write_inputs(
    out: Path, utterances: Sequence[TokenUtterance], codec: TokenCodec, emotions: Sequence[str]
) -> dict[str, Path]:
    """Write the inputs of `PolicyOptimizer.start`: ``rl_prompts``, and one half of the utterances each as ``sft_speech`` and
    ``parallel_speech``. Return the folders by name."""
    half = len(utterances) // 2
    for name, part in (("sft_speech", utterances[:half]), ("parallel_speech", utterances[half:])):
        (out / name).mkdir(parents=True, exist_ok=True)
        digits = (codec.codebook[torch.tensor(u.tokens, device=codec.device)].half().cpu().numpy() for u in part)
        prompts = [utterance.prompt for utterance in part]
        speech = [
            Utterance(**vars(p), language="und", true_emotion=p.emotion, split="tokens", audio="tokens")
            for p in prompts
        ]
        write_speech(out / name, codec.audio, emotions, speech, digits)
    (out / "rl_prompts").mkdir(exist_ok=True)
    write_prompts(out / "rl_prompts", [utterance.prompt for utterance in utterances])
    return {path.name: path for path in out.iterdir()}


@dataclass
class TokenMeter:
    """The KL and the lengths of the roll-outs of one update, means over the processes."""

    models: Models
    batch: Batch
    config: OptimizeConfig
    update: int
    processes: Processes = ALONE
    loss: float = 0.0
    """The loss, summed in double precision."""
    kl: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)

    def add(self, loss: Loss) -> None:
        """As `rrpo.optimizers.loop.Meter.add`."""
        self.loss += float(loss.loss.detach())
        self.kl.append((loss.part.rows, {"kl_utterance": loss.kl}))

    def means(self) -> dict[str, float]:
        """As `rrpo.optimizers.loop.Meter.means`."""
        rollout = self.batch.rollout
        values = merge(self.kl) | {"positions": rollout.counts, "length": rollout.lengths, "cut": ~rollout.ended}
        means = {name: float(value.float().mean()) for name, value in values.items()} | {"loss": self.loss}
        means = self.processes.means(means)
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
    keys = [(), *((k,) for k in range(1, best_of))]  # the first sample has the noise of an evaluation without best-of-n
    noises = [uniform(shape, config.seed, "evaluation noise", *key, device=device) for key in keys]
    outputs: list[dict[str, Tensor]] = []
    samples: list[list[int]] = []
    for rows in torch.arange(len(prompts.phones), device=device).split(EVALUATED):
        batch = prompts.select(rows)
        rollout = cheapest(models, batch, [noise[:, rows] for noise in noises], config)
        parts = [(part.rows, _evaluate(models, part)) for part in split(models, Batch(0, batch, rollout))]
        counts = {"positions": rollout.counts, "length": rollout.lengths, "cut": ~rollout.ended}
        outputs.append(merge(parts) | counts)
        samples += [row[:n] for row, n in zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)]
    values = {name: torch.cat([output[name] for output in outputs]).float() for name in outputs[0]}
    positions = values.pop("positions")
    row = {name: float(value.mean()) for name, value in values.items()}
    return row | {"kl_token": float(values["kl_utterance"].sum() / positions.sum())}, samples


def cheapest(models: Models, prompts: Prompts, noises: Sequence[Tensor], config: OptimizeConfig) -> Rollout:
    """Draw one sample per prompt with each of ``noises [N_max, B]``; return those with the lowest cost by the arm's reward."""
    rollouts = [models.policy.sample(prompts.prefix, noise) for noise in noises]
    if len(rollouts) == 1:
        return rollouts[0]
    costs = [compute_rewards(models, Batch(0, prompts, rollout), config).cost(config) for rollout in rollouts]
    best = torch.stack(costs).argmin(0)
    return Rollout.concatenate(rollouts).select(best * len(best) + torch.arange(len(best), device=best.device))


def _evaluate(models: Models, part: MicroBatch) -> dict[str, Tensor]:
    """Return the outputs of the frozen models for samples, each ``[b]``."""
    F, frames = models.codec.decode(part.rollout.tokens, part.rollout.lengths, part.prompts.speaker)
    target = part.prompts.target
    values = {
        "kl_utterance": score(models, part).kl,
        "content_loss": models.recogniser.ctc_loss(F, frames, part.prompts.phones),
    }
    for name, model in (("proxy", models.reward_model), ("val", models.val)):
        log_probs = model.log_probs(F, frames)
        values[f"{name}_accuracy"] = (log_probs.argmax(1) == target).float()
        values[f"{name}_logprob"] = log_probs.gather(1, target[:, None])[:, 0]
    return values
