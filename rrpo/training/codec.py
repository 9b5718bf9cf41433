"""Stage ``codec``: training of the codec on random crops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rrpo.config import CodecConfig
from rrpo.corpus.draws import generator
from rrpo.corpus.features import SpeechSet
from rrpo.masking import masked_mean, valid_mask
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, seed_everything
from rrpo.training.trainer import fit


def build(config: CodecConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Stage ``codec``: train on random crops of the split; hold out 5 % of it for the reported error."""
    speech = SpeechSet.load(inputs["speech"])
    names = [utterance.speaker for utterance in speech.utterances]
    seed_everything(config.seed, "codec")
    codec = Codec(config, speech.audio, tuple(sorted(set(names)))).to(context.device)
    speakers = codec.speaker_index(names)
    order = generator(config.seed, "codec split").permutation(len(names))
    held, train = order[: max(1, len(order) // 20)], order[max(1, len(order) // 20) :]
    frames = torch.cat([speech.mel(int(i)) for i in train[:500]])
    codec.mean.copy_(frames.mean(0))
    codec.std.copy_(frames.std(0).clamp(min=0.1))
    batches = permutation_batches(len(train), config.batch, config.steps, config.seed, "codec batches")

    def loss(step: int) -> Tensor:
        indices = train[batches[step]]
        F, lengths = speech.batch(indices, context.device)
        start = generator(config.seed, "codec crop", step).random(len(indices))
        offset = (torch.from_numpy(start).to(F.device) * (lengths - config.crop).clamp(min=0)).long()
        frames = (offset[:, None] + torch.arange(min(config.crop, F.shape[1]), device=F.device)).clamp(
            max=F.shape[1] - 1
        )
        crop = F.gather(1, frames[..., None].expand(-1, -1, F.shape[2]))
        return codec.loss(crop, (lengths - offset).clamp(max=frames.shape[1]), speakers[indices])

    fit(codec.parameters(), loss, config.steps, config.lr, context)
    codec.eval()
    scalars = _measure(codec, speech, held, speakers, context.device)
    codec.save(out)
    (out / "scalars.json").write_text(json.dumps(scalars))


@torch.no_grad()
def _measure(codec: Codec, speech: SpeechSet, indices: np.ndarray, speakers: Tensor, device: str) -> dict[str, float]:
    """Return the held-out error in normalized units and in dB, the F0 error in semitones, and the perplexity of the codebook
    usage."""
    F, lengths = speech.batch(indices, device)
    difference, semitones = codec.errors(F, lengths, speakers[indices])
    error = masked_mean(difference.abs().mean(2), valid_mask(lengths, F.shape[1])).mean().item()
    tokens, steps = codec.encode(F, lengths)
    used = tokens[valid_mask(steps, tokens.shape[1])]
    share = torch.bincount(used, minlength=codec.vocabulary).double() / used.numel()
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    decibels = 10 / torch.log(torch.tensor(10.0)).item()
    return {
        "codec_l1": error,
        "codec_l1_db": error * codec.std.mean().item() * decibels,
        "codec_f0_semitones": semitones.item(),
        "codec_perplexity": entropy.exp().item(),
    }
