"""What the policy is asked, as tensors, and everything that is measured on what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rrpo.codec import Codec
from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges.artefacts import detect
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.masking import valid_mask
from rrpo.policy import Policy, Rollout, token_entropy, token_kl
from rrpo.reward_model import RewardModel


@dataclass(frozen=True)
class Models:
    """The frozen models around the policy, and the policy itself."""

    policy: Policy
    reference: Policy
    reward_model: RewardModel
    recogniser: Recogniser
    codec: Codec
    val: Judge

    @staticmethod
    def load(inputs: dict[str, Path], device: str) -> Models:
        """Everything an ``optimize`` stage reads; the policy is trainable, with dropout off."""
        return Models(
            policy=Policy.load(inputs["policy"], device),
            reference=Policy.load(inputs["policy"], device).requires_grad_(False),
            reward_model=RewardModel.load(inputs["reward_model"], device),
            recogniser=Recogniser.load(inputs["recogniser"], device),
            codec=Codec.load(inputs["codec"], device),
            val=Judge.load(inputs["val"], device),
        )


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts as tensors."""

    prefix: Tensor
    """``[B, L]`` symbol ids."""
    speaker: Tensor
    """``[B]`` indices of the codec's table."""
    target: Tensor
    """``[B]`` class indices."""
    phones: list[tuple[str, ...]]

    @staticmethod
    def prepare(prompts: Sequence[Prompt], models: Models) -> Prompts:
        """Tensors of ``prompts`` for the given models."""
        emotions = models.reward_model.emotions
        speakers = [prompt.speaker for prompt in prompts]
        return Prompts(
            prefix=models.policy.prefix_ids([p.phones for p in prompts], speakers, [p.emotion for p in prompts]),
            speaker=models.codec.speaker_index(speakers),
            target=torch.tensor([emotions.index(p.emotion) for p in prompts], device=models.codec.mean.device),
            phones=[p.phones for p in prompts],
        )

    @staticmethod
    def load(path: Path, models: Models) -> tuple[Prompts, list[Prompt]]:
        """All prompts of a ``prompts`` stage."""
        prompts = list(load_prompts(path))
        return Prompts.prepare(prompts, models), prompts

    def select(self, rows: np.ndarray) -> Prompts:
        """The prompts of the given row numbers."""
        index = torch.from_numpy(rows).to(self.prefix.device)
        return Prompts(self.prefix[index], self.speaker[index], self.target[index], [self.phones[int(i)] for i in rows])


@torch.no_grad()
def judge_frames(models: Models, F: Tensor, frames: Tensor) -> dict[str, Tensor]:
    """What proxy, ``val`` judge and artefact detectors say of frames; each ``[B]`` (or ``[B, K]``)."""
    proxy = models.reward_model(F, frames).log_softmax(1)
    val = models.val.log_probs(F, frames)
    return {"proxy": proxy, "val": val} | {f"artefact_{k}": v for k, v in detect(F, frames, models.codec.audio).items()}


@torch.no_grad()
def rollout_statistics(logits: Tensor, reference: Tensor, rollout: Rollout) -> dict[str, float]:
    """KL to the reference per token and per utterance (nats, full vocabulary), entropy, length, repetition, cut share."""
    scored = rollout.scored
    kl = token_kl(logits, reference).masked_fill(~scored, 0.0)
    entropy = token_entropy(logits).masked_fill(~scored, 0.0)
    inside = valid_mask(rollout.lengths, rollout.tokens.shape[1])[:, 1:]
    repeated = (rollout.tokens[:, 1:] == rollout.tokens[:, :-1]) & inside
    return {
        "kl_token": float(kl.sum() / scored.sum()),
        "kl_utterance": float(kl.sum(1).mean()),
        "entropy": float(entropy.sum() / scored.sum()),
        "length": float(rollout.lengths.float().mean()),
        "repetition": float(repeated.sum() / inside.sum().clamp(min=1)),
        "cut": float((~rollout.ended).float().mean()),
    }
