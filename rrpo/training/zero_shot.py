"""The stage ``zero_shot``: a policy and a codec that represent speakers by a reference utterance instead of a table (ZET-Speech).

The base policy is fine-tuned on utterances of many speakers, each serving as its own reference. An encoder computes a speaker
vector s from the reference; U s is the speaker's embedding in the policy's prefix, W s the speaker's row in the codec's table.
The loss is

    cross-entropy of the tokens + the codec's own loss + cross-entropy of the emotion

where the last term is that of a classifier of s behind a gradient reversal: the classifier learns to predict the emotion of the
reference, and the encoder learns to prevent it. The base codec and its encoder are not trained. An unseen speaker is then
represented by the mean s of their neutral references. Policy and codec are saved with U s and W s as the entries of these
speakers, so that sampling and judging need no references.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor, nn
from torch.func import functional_call

from rrpo.config import ZeroShotConfig
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.tags import NEUTRAL, NO_EMOTION, NO_SPEAKER
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy
from rrpo.models.scaled_gradient import scale_gradient
from rrpo.pipeline.stages import Context
from rrpo.seeding import bucketed, permutation_batches, seed_everything
from rrpo.training.sft import TokenSet, drop_tags
from rrpo.training.trainer import fit

VECTORS = "references.npz"
"""File with ``vectors [U, size]`` of the utterances of unseen speakers, and their ``speakers [U]`` and ``emotions [U]``."""


class ZeroShot(nn.Module):
    """The trained modules and the frozen codec."""

    def __init__(self, policy: Policy, codec: Codec, emotions: int, config: ZeroShotConfig) -> None:
        super().__init__()
        self.policy, self.codec, self.config = policy, codec, config
        self.encoder = nn.Sequential(
            nn.Linear(2 * codec.audio.n_mels, config.dim), nn.SiLU(), nn.Linear(config.dim, config.size)
        )
        self.embedding = nn.Linear(config.size, policy.config.dim)
        self.voice = nn.Linear(config.size, codec.speaker.embedding_dim)
        self.emotion = nn.Sequential(nn.Linear(config.size, config.dim), nn.ReLU(), nn.Linear(config.dim, emotions))

    def vectors(self, statistics: Tensor) -> Tensor:
        """Return s ``[U, size]``, with mean 0 and variance 1, from `statistics` of references."""
        s = self.encoder(statistics)
        return F_.layer_norm(s, s.shape[-1:])

    def speech_loss(self, s: Tensor, tokens: TokenSet, speech: SpeechSet, indices: np.ndarray, step: int) -> Tensor:
        """Return the cross-entropy of tokens plus the codec's loss of frames of utterances by the speakers ``s [B, size]``.

        The entries of these speakers are appended to the policy's tables, with the mean pace.
        """
        entries = {
            "policy.llm.embed_tokens.weight": torch.cat([self.policy.llm.embed_tokens.weight, self.embedding(s)]),
            "policy.pace": torch.cat([self.policy.pace, torch.ones_like(s[:, 0])]),
            "codec.speaker.weight": self.voice(s),
        }
        loss: Tensor = functional_call(self, entries, (tokens, speech, indices, step))
        return loss

    def forward(self, tokens: TokenSet, speech: SpeechSet, indices: np.ndarray, step: int) -> Tensor:
        """See `speech_loss`, which calls this with the entries appended."""
        rows = torch.arange(len(indices), device=tokens.tokens.device)

        def restyle(prefix: Tensor) -> Tensor:
            restyled = prefix.clone()
            restyled[rows, (prefix == 0).sum(1) + 1] = len(self.policy.symbols) + rows
            return drop_tags(self.policy, restyled, self.config, step)

        token_loss = tokens.loss(self.policy, indices, restyle)
        return token_loss + self.codec.loss(*speech.batch(indices, rows.device), rows)

    def emotion_loss(self, s: Tensor, emotions: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy of the ``emotions [U]`` predicted from ``s [U, size]``, with the reversal schedule of its
        paper."""
        scale = self.config.reversal * (2 / (1 + math.exp(-10 * progress)) - 1)
        return F_.cross_entropy(self.emotion(scale_gradient(s, -scale)), emotions)


def build(config: ZeroShotConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write the policy, the codec, `VECTORS`, and ``scalars.json`` with the last losses.

    Reads ``speech``, ``references``, ``codec`` and ``base``, whose policy must know at least one speaker of ``speech``.
    """
    device = context.device
    seed_everything(config.seed, "zero shot")
    codec = Codec.load(inputs["codec"], device)
    speech, references = SpeechSet.load(inputs["speech"]), SpeechSet.load(inputs["references"])
    policy = with_speakers(Policy.load(inputs["base"], device), speech, references)
    model = ZeroShot(policy, codec, len(speech.emotions), config).to(device)
    tokens = TokenSet(speech, codec, device)
    tokens.utterances = tuple(replace(utterance, speaker=NO_SPEAKER) for utterance in speech.utterances)
    reference_statistics, labels = statistics(speech, codec), speech.labels(speech.emotions).to(device)
    batches = permutation_batches(len(speech), config.batch, config.steps, config.seed, "zero shot batches")
    batches = bucketed(batches, tokens.lengths.cpu().numpy(), config.seed, "zero shot bucketed")
    parts: dict[int, Tensor] = {}

    def loss(step: int) -> Tensor:
        s = model.vectors(reference_statistics)
        speech_loss = model.speech_loss(s[batches[step]], tokens, speech, batches[step], step)
        emotion = model.emotion_loss(s, labels, step / config.steps)
        parts[step] = torch.stack([speech_loss, emotion]).detach()
        return speech_loss + emotion

    fit(model.parameters(), loss, config.steps, config.lr, context, history=parts)
    enrol(model.eval(), references, out / VECTORS)
    policy.save(out)
    codec.save(out)
    last = torch.stack([parts[step].cpu() for step in sorted(parts)[-50:]]).mean(0).tolist()
    (out / "scalars.json").write_text(json.dumps(dict(zip(("zero_shot_loss", "adversary_loss"), last, strict=True))))


def with_speakers(policy: Policy, speech: SpeechSet, references: SpeechSet) -> Policy:
    """Return the policy with symbols for the null tags, neutral and the speakers of the references, each initialized to the
    mean of the symbols of its kind."""
    emotions = sorted(f"<{name}>" for name in speech.emotions if name != NEUTRAL)
    known = sorted({f"<{utterance.speaker}>" for utterance in speech.utterances} & set(policy.symbols))
    unseen = sorted({utterance.speaker for utterance in references.utterances})
    symbols = {NEUTRAL: emotions, NO_EMOTION: emotions} | dict.fromkeys([NO_SPEAKER, *unseen], known)
    return policy.extended({f"<{name}>": sources for name, sources in symbols.items()})


def statistics(speech: SpeechSet, codec: Codec) -> Tensor:
    """Return ``[U, 2 M]``: mean and standard deviation of each band over the frames of each utterance, in the codec's units."""
    frames = [(speech.mel(i).to(codec.device) - codec.mean) / codec.std for i in range(len(speech))]
    return torch.stack([torch.cat([F.mean(0), F.std(0, correction=0)]) for F in frames])


@torch.no_grad()
def enrol(model: ZeroShot, references: SpeechSet, vectors: Path) -> None:
    """Add the speakers of ``references`` to policy and codec, from their neutral references; write the `VECTORS` of all
    references."""
    s = model.vectors(statistics(references, model.codec))
    speakers = np.array([utterance.speaker for utterance in references.utterances])
    emotions = np.array([utterance.emotion for utterance in references.utterances])
    for name in sorted(set(speakers.tolist())):
        vector = s[torch.from_numpy((speakers == name) & (emotions == NEUTRAL))].mean(0)
        model.policy.llm.embed_tokens.weight[model.policy.symbols.index(f"<{name}>")] = model.embedding(vector)
        model.codec.speaker.weight[model.codec.speaker_index([name])] = model.voice(vector)
    np.savez(vectors, vectors=s.cpu().numpy(), speakers=speakers, emotions=emotions)
