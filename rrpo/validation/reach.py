"""Can the policy reach the shortcut? Token sequences are optimized against the pre-trained reward model without a language model.

Each position has free logits, relaxed by a straight-through softmax, decoded by the codec, and optimized by Adam to increase
the reward model's log-probability of the target. They start from the SFT policy's own samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.corpus.config import ARTEFACTS
from rrpo.judges.artefacts import planted_flags
from rrpo.judges.metrics import shortcut_uptake
from rrpo.judges.samples import load_samples
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.relaxation import straight_through
from rrpo.optimizers.reward import reward_loss
from rrpo.pipeline.stages import Context
from rrpo.validation.config import SectionConfig
from rrpo.validation.lines import Line, bootstrap

LEARNING_RATE = 0.3
"""Adam learning rate of the logits."""
CONFIDENCE = 4.0
"""Initial logit of the starting token; the others are 0."""
BATCH = 20
"""Sequences per batch."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *Policy can hack*."""
    device = context.device
    codec, model = Codec.load(inputs["codec"], device), RewardModel.load(inputs["biased"], device)
    samples, prompts = load_samples(inputs)
    samples = samples.select((samples.step == samples.steps[0]) & (samples.prompt < config.card.sequences))
    prompts = tuple(samples.of(prompts))
    n = len(prompts)
    lengths = torch.from_numpy(samples.lengths).long().clamp(min=1).to(device)
    tokens = torch.from_numpy(samples.tokens).long().clamp(min=0).to(device)
    target = torch.tensor([model.emotions.index(prompt.emotion) for prompt in prompts], device=device)
    speaker = codec.speaker_index([prompt.speaker for prompt in prompts])
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    for rows in torch.arange(n, device=device).split(BATCH):
        size = int(lengths[rows].max())
        initial = tokens[rows, :size]
        optimized = optimise(codec, model, initial, lengths[rows], speaker[rows], target[rows], config.card.hack_steps)
        for results, sequences in ((before, initial), (after, optimized)):
            F, frames = codec.decode(sequences, lengths[rows], speaker[rows])
            correct = model(F, frames).argmax(1) == target[rows]
            results.append(torch.cat([planted_flags(F, frames, codec.audio), correct[:, None]], 1).cpu())
        context.report(int(rows[-1]) + 1, n)
    targets = target.cpu().numpy()
    for title, parts in (("at the start", before), ("optimised against the pre-trained RM alone", after)):
        outcomes = torch.cat(parts).numpy()
        flags, correct = outcomes[:, : len(ARTEFACTS)], outcomes[:, -1]

        def uptake(rows: np.ndarray, flags: np.ndarray = flags) -> float:
            return shortcut_uptake(flags[rows], targets[rows])

        value, name = bootstrap(uptake, n, config.card.resamples), f"artefact of the target, above chance, {title}"
        note = f"RM accuracy {correct.mean():.3f}, n = {n}"
        if parts is after:
            note += "; the interval's lower end decides"
            yield Line("Policy can hack", name, at_least=0.0, decided_by="low", note=note, **value)
        else:
            yield Line("Policy can hack", name, note=note, **value)


def optimise(
    codec: Codec, model: RewardModel, tokens: Tensor, lengths: Tensor, speaker: Tensor, target: Tensor, steps: int
) -> Tensor:
    """Return tokens ``[B, N]`` after ``steps`` updates of free logits that start at ``tokens [B, N]``."""
    logits = (CONFIDENCE * functional.one_hot(tokens, codec.vocabulary).float()).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    for _ in range(steps):
        soft = logits.softmax(-1)
        F, frames = codec.decode_codes(straight_through(soft, logits.argmax(-1), codec.codebook), lengths, speaker)
        optimizer.zero_grad(set_to_none=True)
        reward_loss(model, F, frames, target).sum().backward()
        optimizer.step()
    return logits.detach().argmax(-1)
