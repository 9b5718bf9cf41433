"""Emotion classifier of token prefixes for soft-label guidance: a recurrent network with a prediction after every token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from rrpo.config import PrefixClassifierConfig
from rrpo.corpus.tags import NEUTRAL


class PrefixClassifier(nn.Module):
    """A gated recurrent unit over tokens, including eos (class V), and a linear layer on its state after each.

    Tokens are embedded by ``features [V + 1, C]``, one row per class. With `code_levels` as features, training one code also
    improves its neighbors.
    """

    features: Tensor

    def __init__(self, config: PrefixClassifierConfig, emotions: Sequence[str], features: Tensor) -> None:
        super().__init__()
        self.config, self.emotions = config, tuple(emotions)
        if NEUTRAL not in self.emotions:
            raise ValueError(
                f"a soft label mixes an emotion with {NEUTRAL!r}, which is not one of {self.emotions}; "
                f"use data with the class {NEUTRAL!r}, or another guidance"
            )
        self.register_buffer("features", features)
        self.gru = nn.GRU(self.features.shape[1], config.dim, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.dim, len(self.emotions))

    @property
    def neutral(self) -> int:
        """Class index of `NEUTRAL`."""
        return self.emotions.index(NEUTRAL)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return log-probabilities ``[B, N, K]`` after each of ``tokens [B, N]``."""
        return self.log_probs(self.states(tokens)[:, 1:])

    def states(self, tokens: Tensor) -> Tensor:
        """Return states ``[B, N + 1, D]`` before the first of ``tokens [B, N]`` and after each."""
        keep = self.dropout(torch.ones_like(tokens, dtype=self.features.dtype))  # drop whole tokens
        outputs, _ = self.gru(self.features[tokens] * keep[..., None])
        return F_.pad(outputs, (0, 0, 1, 0))

    def log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities: ``[..., D] -> [..., K]``."""
        return self.head(self.dropout(states)).log_softmax(-1)

    def next_states(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return states ``[R, k, D]`` after each of the alternatives ``tokens [R, k]``, given states ``[R, D]``."""
        ((weight_in, weight, bias_in, bias),) = self.gru.all_weights
        inputs = F_.linear(self.features[tokens], weight_in, bias_in)
        hidden = F_.linear(states, weight, bias)[:, None]
        (input_r, input_z, input_n), (hidden_r, hidden_z, hidden_n) = inputs.chunk(3, -1), hidden.chunk(3, -1)
        r, z = (input_r + hidden_r).sigmoid(), (input_z + hidden_z).sigmoid()
        n = (input_n + r * hidden_n).tanh()
        return n + z * (states[:, None] - n)

    def save(self, folder: Path) -> None:
        """Write ``prefix_classifier.json`` and ``prefix_classifier.pt``."""
        description = {"config": asdict(self.config), "emotions": self.emotions}
        (folder / "prefix_classifier.json").write_text(json.dumps(description))
        torch.save({name: value.cpu() for name, value in self.state_dict().items()}, folder / "prefix_classifier.pt")

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> PrefixClassifier:
        """Load a classifier written by `save`; frozen, in evaluation mode."""
        description = json.loads((folder / "prefix_classifier.json").read_text())
        state = torch.load(folder / "prefix_classifier.pt", map_location="cpu", weights_only=True)
        config = PrefixClassifierConfig(**description["config"])
        model = PrefixClassifier(config, description["emotions"], state["features"])
        model.load_state_dict(state)
        return model.to(device).eval().requires_grad_(False)


@dataclass(frozen=True)
class Evidence:
    """A prefix classifier's evidence for the target emotion and for neutral, for R utterances in progress."""

    classifier: PrefixClassifier
    states: Tensor
    """``[R, D]``, states after the tokens so far."""
    wanted: Tensor
    """``[R]`` class indices."""

    def before(self) -> tuple[Tensor, Tensor]:
        """Return log-probabilities ``[R]`` of the target emotion and of neutral given the tokens so far."""
        return self._target_and_neutral(self.classifier.log_probs(self.states))

    def after(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same ``[R, k]`` after each of the alternatives ``tokens [R, k]``."""
        return self._target_and_neutral(self.classifier.log_probs(self.classifier.next_states(self.states, tokens)))

    def advanced(self, tokens: Tensor) -> Evidence:
        """Return the evidence after the next token ``[R]`` of each utterance."""
        return replace(self, states=self.classifier.next_states(self.states, tokens[:, None])[:, 0])

    def select(self, rows: Tensor) -> Evidence:
        """Return the evidence of some rows, given as numbers or a mask ``[R]``."""
        return replace(self, states=self.states[rows], wanted=self.wanted[rows])

    def _target_and_neutral(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Select the target emotion and neutral, ``[R, ..., K] -> [R, ...]``."""
        target = self.wanted.view(-1, *(1,) * (log_probs.dim() - 1)).expand(*log_probs.shape[:-1], 1)
        return log_probs.gather(-1, target)[..., 0], log_probs[..., self.classifier.neutral]


def code_levels(codebook: Tensor) -> Tensor:
    """Return ``[V + 1, C]``: one-hot levels of each coordinate of ``codebook [V, d]``; eos has its own column."""
    columns = [F_.one_hot(column.unique(return_inverse=True)[1]) for column in codebook.cpu().T]
    return torch.block_diag(torch.cat(columns, 1).float(), torch.ones(1, 1))
