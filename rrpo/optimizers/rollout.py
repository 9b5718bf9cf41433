"""Models and prompts as tensors, and all measurements on the policy's samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges.artefacts import detect
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.masking import valid_mask
from rrpo.models.codec import Codec
from rrpo.models.ensemble import load_reward_model
from rrpo.models.policy import Policy, Rollout, token_entropy, token_kl
from rrpo.models.protocols import TokenCodec, TokenPolicy
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.probe import probe

MICRO = {"cpu": 8}
"""Samples per forward by device; the whole batch on other devices. Mathematically equivalent, up to rounding."""


@dataclass(frozen=True)
class Models:
    """The policy and the frozen models around it."""

    policy: TokenPolicy
    reference: TokenPolicy
    reward_model: RewardModel
    recogniser: Recogniser
    codec: TokenCodec
    val: Judge
    micro: int | None = None
    """Samples per forward; None uses `MICRO`."""
    backward: Callable[[Tensor], None] = torch.autograd.backward
    """Adds a loss's gradients to the policy's parameters."""

    @staticmethod
    def load(inputs: dict[str, Path], device: str, micro: int | None = None, precision: str = "fp32") -> Models:
        """Load all models of an ``optimize`` stage; the policy is trainable. Policy and reference have ``precision``."""
        policy, reference = (Policy.load(inputs["policy"], device) for _ in range(2))
        policy.precision = reference.precision = precision
        return Models(
            policy=policy,
            reference=reference.requires_grad_(False),
            reward_model=load_reward_model(inputs["reward_model"], device),
            recogniser=Recogniser.load(inputs["recogniser"], device),
            codec=Codec.load(inputs["codec"], device),
            val=Judge.load(inputs["val"], device),
            micro=micro,
        )


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts as tensors."""

    prefix: Tensor
    """``[B, L]`` symbol ids."""
    speaker: Tensor
    """``[B]`` indices into the codec's speaker table."""
    target: Tensor
    """``[B]`` class indices."""
    phones: list[tuple[str, ...]]

    @staticmethod
    def prepare(prompts: Sequence[Prompt], policy: TokenPolicy, codec: TokenCodec, emotions: Sequence[str]) -> Prompts:
        """Return tensors of ``prompts`` for a policy and a codec; targets are indices into ``emotions``."""
        return Prompts(
            prefix=policy.prompt_ids(prompts),
            speaker=codec.speaker_index([prompt.speaker for prompt in prompts]),
            target=torch.tensor([emotions.index(p.emotion) for p in prompts], device=codec.device),
            phones=[p.phones for p in prompts],
        )

    @staticmethod
    def load(path: Path, models: Models) -> Prompts:
        """Load all prompts of a ``prompts`` stage."""
        return Prompts.prepare(load_prompts(path), models.policy, models.codec, models.reward_model.emotions)

    def select(self, rows: Tensor) -> Prompts:
        """Return the prompts of the given row numbers, with prefixes padded to their own longest."""
        prefix = self.prefix[rows]
        padding, *indices = torch.cat([(prefix == 0).all(0).sum()[None], rows]).tolist()
        return Prompts(prefix[:, padding:], self.speaker[rows], self.target[rows], [self.phones[i] for i in indices])


def micro_batches(lengths: Tensor, micro: int | None = None) -> list[Tensor]:
    """Split ``lengths [B]`` into row numbers of small batches of similar length, which reduces padding and fits the CPU's caches.

    Each has ``micro`` rows; None uses `MICRO`.
    """
    return list(lengths.argsort(stable=True).split(micro or MICRO.get(lengths.device.type, len(lengths))))


def merge(parts: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Merge per-sample values ``[b, ...]`` of micro-batches, given with their row numbers, to ``[B, ...]`` in the batch's
    order."""
    order = torch.cat([rows for rows, _ in parts]).argsort()
    return {name: torch.cat([values[name] for _, values in parts])[order] for name in parts[0][1]}


@torch.no_grad()
def judge_frames(models: Models, F: Tensor, frames: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return the outputs of proxy (with `probe`), ``val`` judge and artefact detectors for frames; each ``[B]`` (or ``[B,
    K]``)."""
    outputs = probe(models.reward_model, F, frames, target) | {"val": models.val.log_probs(F, frames)}
    return outputs | {f"artefact_{kind}": flags for kind, flags in detect(F, frames, models.codec.audio).items()}


@torch.no_grad()
def rollout_sums(logits: Tensor, reference: Tensor, rollout: Rollout) -> dict[str, Tensor]:
    """Return sums ``[B]`` over each sample: KL to the reference and entropy (nats, full vocabulary), positions, repetitions,
    pairs."""
    scored = rollout.scored
    return {
        "kl": token_kl(logits, reference).masked_fill(~scored, 0.0).sum(1),
        "entropy": token_entropy(logits).masked_fill(~scored, 0.0).sum(1),
    } | rollout_counts(rollout)


def rollout_counts(rollout: Rollout) -> dict[str, Tensor]:
    """Return counts ``[B]`` for each sample: scored positions, length, repetitions, pairs of tokens, whether it was truncated."""
    inside = valid_mask(rollout.lengths, rollout.tokens.shape[1])[:, 1:]
    return {
        "scored": rollout.counts,
        "length": rollout.lengths,
        "repeated": ((rollout.tokens[:, 1:] == rollout.tokens[:, :-1]) & inside).sum(1),
        "pairs": inside.sum(1),
        "cut": ~rollout.ended,
    }


def rollout_statistics(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Return, from `rollout_sums`: KL per token and per utterance, entropy per token, length, repetition, share of truncated
    samples."""
    total = {name: float(values.sum()) for name, values in sums.items()}
    samples = len(sums["kl"])
    return {
        "kl_token": total["kl"] / total["scored"],
        "kl_utterance": total["kl"] / samples,
        "entropy": total["entropy"] / total["scored"],
        "length": total["length"] / samples,
        "repetition": total["repeated"] / max(1.0, total["pairs"]),
        "cut": total["cut"] / samples,
    }
