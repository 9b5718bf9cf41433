"""Supervised training of the policy by next-token cross-entropy: the world's base policy, and from it each seed's SFT policy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F_
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence, unpad_sequence

from rrpo.config import SftConfig
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.tags import NO_EMOTION, NO_SPEAKER
from rrpo.masking import valid_mask, with_eos
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy
from rrpo.models.protocols import TokenCodec
from rrpo.pipeline.stages import Context
from rrpo.seeding import bucketed, permutation_batches, seed_everything, uniform
from rrpo.training.style import StyleLoss
from rrpo.training.trainer import fit, multiplier

NEAR = 0.5
"""Length scale of the initial similarity of two codes' rows, as a distance between coordinate levels, which lie in [-1, 1]."""


class TokenSet:
    """A split as prefixes and codec tokens: ``tokens [U, N]``, ``lengths [U]``, encoded once."""

    def __init__(self, speech: SpeechSet, codec: TokenCodec, device: str) -> None:
        self.utterances = speech.utterances
        rows: list[Tensor] = []
        for start in range(0, len(self.utterances), 256):
            F, lengths = speech.batch(np.arange(start, min(start + 256, len(self.utterances))), device)
            rows += unpad_sequence(*codec.encode(F, lengths), batch_first=True)
        self.lengths = torch.tensor([len(row) for row in rows], device=device)
        self.tokens = pad_sequence(rows, batch_first=True)

    def loss(
        self,
        policy: Policy,
        indices: np.ndarray,
        restyle: Callable[[Tensor], Tensor] = lambda prefix: prefix,
        style: StyleLoss | None = None,
    ) -> Tensor:
        """Return the mean cross-entropy in nats per token (eos included) of the chosen utterances, plus the style loss if given.

        Args:
            policy: Policy to train.
            indices: ``[B]`` indices of utterances.
            restyle: Transformation of their prefixes ``[B, L]``.
            style: Style loss between the predicted and the true tokens.
        """
        batch = [self.utterances[int(i)] for i in indices]
        prefix = policy.prefix_ids([u.phones for u in batch], [u.speaker for u in batch], [u.emotion for u in batch])
        prefix = restyle(prefix)
        rows = torch.from_numpy(indices).to(self.tokens.device)
        lengths = self.lengths[rows]
        tokens = self.tokens[rows][:, : int(lengths.max())]
        logits = policy.packed_logits(prefix, tokens, lengths + 1)
        targets = with_eos(tokens, lengths, policy.eos)
        loss = F_.cross_entropy(logits, targets[valid_mask(lengths + 1, targets.shape[1])])
        return loss if style is None else loss + style(logits, tokens, lengths, [u.speaker for u in batch])


def build(config: SftConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Train stage ``base`` (from scratch) or ``sft`` (from the input ``base``), and write training and held-out loss curves."""
    stream = "sft" if "base" in inputs else "base"
    seed_everything(config.seed, stream)
    codec = Codec.load(inputs["codec"], context.device)
    speech, heldout = SpeechSet.load(inputs["speech"]), SpeechSet.load(inputs["heldout"])
    train, held = TokenSet(speech, codec, context.device), TokenSet(heldout, codec, context.device)
    if "base" in inputs:
        policy = Policy.load(inputs["base"], context.device)
        if config.tag_dropout:
            policy = with_null_tags(policy, [*train.utterances, *held.utterances])
    else:
        policy = _untrained(config, train, held, codec).to(context.device)
    policy = context.join(policy)
    batches = permutation_batches(len(train.utterances), config.batch, config.steps, config.seed, f"{stream} batches")
    batches = bucketed(batches, train.lengths.cpu().numpy(), config.seed, f"{stream} bucketed")
    style = StyleLoss.load(inputs["emotion"], codec, config.style_weight) if config.style_weight else None
    held_losses: dict[int, float] = {}

    def loss(step: int) -> Tensor:
        if step % max(1, config.steps // 10) == 0:
            held_losses[step] = _heldout(policy, held)
        return train.loss(policy, batches[step], lambda prefix: drop_tags(policy, prefix, config, step), style)

    losses = fit(policy.parameters(), loss, config.steps, config.lr, context, schedule=_schedule, history=held_losses)
    held_losses[config.steps] = _heldout(policy, held)
    policy.save(out)
    curves = pd.DataFrame({"step": range(len(losses)), f"{stream}_loss": losses})
    curves[f"{stream}_heldout_loss"] = curves["step"].map(held_losses)
    curves.to_parquet(out / f"{stream}_curves.parquet")
    final = {f"{stream}_loss": float(np.mean(losses[-50:])), f"{stream}_heldout_loss": held_losses[config.steps]}
    (out / "scalars.json").write_text(json.dumps(final))


def _untrained(config: SftConfig, train: TokenSet, held: TokenSet, codec: Codec) -> Policy:
    """Return an untrained policy with the symbols of both sets and the pace of the training set."""
    utterances = [*train.utterances, *held.utterances]
    symbols = [
        *Policy.SPECIALS,
        *(f"<{emotion}>" for emotion in sorted({u.emotion for u in utterances})),
        *(f"<{speaker}>" for speaker in sorted({u.speaker for u in utterances})),
        *sorted({phone for u in utterances for phone in u.phones}),
    ]
    policy = Policy(config.model, symbols, codec.vocabulary)
    with torch.no_grad():
        policy.speech_embedding.weight[: codec.vocabulary] = _by_coordinates(codec.codebook, config.model.dim)
        policy.llm_decoder.weight[: codec.vocabulary] = _by_coordinates(codec.codebook, config.model.dim) / math.sqrt(
            3 * config.model.dim
        )
    phones = torch.tensor([max(1, len(u.phones)) for u in train.utterances])
    emotions, speakers = ([getattr(u, name) for u in train.utterances] for name in ("emotion", "speaker"))
    policy.measure_pace(emotions, speakers, train.lengths.cpu() / phones)
    return policy


def with_null_tags(policy: Policy, utterances: Sequence[Utterance]) -> Policy:
    """Add the null tags of `rrpo.corpus.tags`; each starts as the mean of the emotion tags or of the speaker tags."""
    emotions, speakers = (sorted({f"<{getattr(u, name)}>" for u in utterances}) for name in ("emotion", "speaker"))
    return policy.extended({f"<{NO_EMOTION}>": emotions, f"<{NO_SPEAKER}>": speakers})


def drop_tags(policy: Policy, prefix: Tensor, config: SftConfig, step: int) -> Tensor:
    """Drop the emotion tag of a share `SftConfig.tag_dropout` of the prefixes ``[B, L]``, and the speaker tag of half of
    those."""
    if not config.tag_dropout:
        return prefix
    noise = uniform((2, len(prefix), 1), config.seed, "tag dropout", step, device=prefix.device)
    emotion = noise[0] < config.tag_dropout
    prefix = torch.where(emotion, policy.restyled(prefix, emotion=NO_EMOTION), prefix)
    return torch.where(emotion & (noise[1] < 0.5), policy.restyled(prefix, speaker=NO_SPEAKER), prefix)


def _by_coordinates(codebook: Tensor, dim: int) -> Tensor:
    """Return random rows ``[V, dim]`` of unit variance, similar for codes of ``codebook [V, d]`` with similar coordinates.

    Each row is a sum over the coordinates of a random row per level, smoothed over neighboring levels. Training one code then
    also improves its neighbors.
    """
    rows = torch.zeros(len(codebook), dim)
    for column in codebook.cpu().T:
        levels, inverse = column.unique(return_inverse=True)
        similarity = torch.exp(-((levels[:, None] - levels) / NEAR).square())
        rows += (similarity @ torch.randn(len(levels), dim))[inverse]
    return rows / rows.std()


def _schedule(step: int, steps: int) -> float:
    return max(0.05, multiplier(step, steps, warmup=min(50, steps // 10)))


@torch.no_grad()
def _heldout(policy: Policy, held: TokenSet) -> float:
    return float(held.loss(policy, np.arange(min(256, len(held.utterances)))))
