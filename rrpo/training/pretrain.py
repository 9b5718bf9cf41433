"""Stage ``pretrain``: train the reward model on the biased set, before its robust fine-tuning.

On the large unbiased set, the same build gives the *oracle*; with permuted labels, the *placebo*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from rrpo import seeding
from rrpo.config import PretrainConfig
from rrpo.corpus.draws import generator, key
from rrpo.corpus.features import SpeechSet
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.training.data import TrainingFrames
from rrpo.training.trainer import fit


def build(config: PretrainConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Train on ``inputs["speech"]`` and its re-synthesis by ``inputs["codec"]``. Writes the model and ``scalars.json``."""
    seed, device = config.seed, context.device
    speech = SpeechSet.load(inputs["speech"])
    labels = speech.labels(speech.emotions)
    if config.shuffle_labels:
        labels = labels[generator(seed, "pretrain.placebo").permutation(len(labels))]
    labels = labels.to(device)

    seeding.seed_everything(seed, "pretrain.init")
    model = RewardModel.make(config.model, speech.emotions, speech.audio).to(device)
    frames = TrainingFrames.load(model.as_input(speech), inputs["codec"], device)
    model.set_statistics(frames.originals.flat)
    model = context.join(model)
    order = seeding.permutation_batches(len(labels), config.batch, config.steps, seed, "pretrain.order")
    order = seeding.bucketed(order, frames.originals.lengths.cpu().numpy(), seed, "pretrain.bucketed")

    def loss(step: int) -> Tensor:
        F, lengths = frames.batch(order[step], seed, "pretrain.rendition", step)
        torch.manual_seed(key(seed, "pretrain.dropout", step))
        logits = model(F, lengths)
        return functional.cross_entropy(logits, labels[torch.from_numpy(order[step]).to(device)])

    losses = fit(model.parameters(), loss, config.steps, config.lr, context)
    model.save(out)
    tail = losses[-max(1, len(losses) // 10) :]
    scalars = {"pretrain_loss": sum(tail) / len(tail)} if tail else {}
    (out / "scalars.json").write_text(json.dumps(scalars))
