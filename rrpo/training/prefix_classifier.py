"""Stage ``prefix_classifier``: an emotion classifier of token prefixes, for soft-label guidance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.config import PrefixClassifierConfig
from rrpo.corpus.features import SpeechSet
from rrpo.masking import valid_mask, with_eos
from rrpo.models.codec import Codec
from rrpo.models.prefix_classifier import PrefixClassifier, code_levels
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches, seed_everything
from rrpo.training.sft import TokenSet
from rrpo.training.trainer import fit

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of an utterance's positions after which accuracy is measured."""


def build(config: PrefixClassifierConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Train the classifier, and write its accuracy on held-out utterances after each of `SHARES`.

    Raises:
        ValueError: The data have no neutral class.
    """
    seed_everything(config.seed, "prefix classifier")
    codec = Codec.load(inputs["codec"], context.device)
    speech, heldout = SpeechSet.load(inputs["speech"]), SpeechSet.load(inputs["heldout"])
    model = PrefixClassifier(config, speech.emotions, code_levels(codec.codebook)).to(context.device)
    train, held = (TokenSet(data, codec, context.device) for data in (speech, heldout))
    batches = permutation_batches(len(speech), config.batch, config.steps, config.seed, "prefix classifier batches")
    fit(model.parameters(), lambda step: _loss(model, train, batches[step]), config.steps, config.lr, context)
    model.eval().save(out)
    (out / "scalars.json").write_text(json.dumps(_accuracies(model, held)))


def _utterances(data: TokenSet, indices: np.ndarray, eos: int) -> tuple[Tensor, Tensor]:
    """Return tokens ``[B, N + 1]`` of the chosen utterances with eos appended, and their lengths ``[B]``, eos included."""
    rows = torch.from_numpy(indices).to(data.tokens.device)
    lengths = data.lengths[rows]
    return with_eos(data.tokens[rows][:, : int(lengths.max())], lengths, eos), lengths + 1


def _labels(model: PrefixClassifier, data: TokenSet, indices: np.ndarray) -> Tensor:
    names = [data.utterances[int(i)].emotion for i in indices]
    return torch.tensor([model.emotions.index(name) for name in names], device=data.tokens.device)


def _loss(model: PrefixClassifier, data: TokenSet, indices: np.ndarray) -> Tensor:
    """Return the mean cross-entropy over all prefixes of the chosen utterances."""
    tokens, counts = _utterances(data, indices, len(model.features) - 1)
    log_probs = model(tokens)
    labels = _labels(model, data, indices)[:, None].expand(tokens.shape)
    valid = valid_mask(counts, tokens.shape[1])
    return F_.nll_loss(log_probs[valid], labels[valid])


@torch.no_grad()
def _accuracies(model: PrefixClassifier, data: TokenSet) -> dict[str, float]:
    indices = np.arange(len(data.utterances))
    tokens, counts = _utterances(data, indices, len(model.features) - 1)
    correct = model(tokens).argmax(-1) == _labels(model, data, indices)[:, None]
    rows = torch.arange(len(indices), device=tokens.device)
    return {
        f"prefix_accuracy_{100 * share:.0f}": float(correct[rows, (share * counts).ceil().long() - 1].float().mean())
        for share in SHARES
    }
