"""The emotion reward model: F -> subsampling convolution -> Transformer encoder -> h' -> attentive pooling -> logits.

The adversarial perturbation of Eq. 4 acts on h', the encoder's final, layer-normalized output, so the network is split there:
`RewardModel.encode` returns h' and its mask, `RewardModel.classify` the logits. Only the encoder has dropout: the passes
through `classify` in Eq. 4 and 5 use the same network and draw no random numbers.

Nothing depends on padding: frames beyond an utterance are zeroed before every convolution, normalization is per frame, and
attention and pooling are masked. An empty utterance (a roll-out that ends at once) is treated as one frame of padding.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from rrpo.config import OFF, RegularizerConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.identity import canonical, described, rebuild
from rrpo.masking import neighbours, valid_mask
from rrpo.models.signals import LOG_MEL, Signal

if TYPE_CHECKING:
    from rrpo.corpus.features import SpeechSet

CHUNK = 64
"""Samples per batch in `RewardModel.log_probs`."""


class RewardModel(nn.Module):
    """Emotion classifier of log-mel frames ``F [B, T, M]``; padding may hold any finite number."""

    mean: Tensor
    std: Tensor
    signal: Signal = LOG_MEL
    """What its frames hold."""

    def __init__(
        self,
        config: RewardModelConfig,
        emotions: tuple[str, ...],
        n_mels: int,
        floor: float,
        regularizers: RegularizerConfig = OFF,
    ) -> None:
        """Create an untrained reward model.

        Args:
            config: The network.
            emotions: Class names in the order of the index; K is their number.
            n_mels: M.
            floor: Smallest mel power before the logarithm.
            regularizers: Config of the model's fine-tuning; used by the rewards ``smoothed_ce`` and ``full_l_ser``, and
                where Adv's perturbation is measured.
        """
        super().__init__()
        halvings = config.subsample.bit_length() - 1
        self.config, self.emotions, self.n_mels, self.floor = config, tuple(emotions), n_mels, floor
        self.regularizers = regularizers
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))
        self.inlet = nn.Linear(n_mels, config.dim)
        self.subsampling = nn.ModuleList(_Halve(config.dim) for _ in range(halvings))
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(_EncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.attention = nn.Sequential(
            nn.Linear(config.dim, config.dim), nn.Tanh(), nn.Linear(config.dim, 1, bias=False)
        )
        self.head = nn.Linear(config.dim, len(self.emotions))

    @staticmethod
    def make(config: RewardModelConfig, emotions: tuple[str, ...], audio: AudioConfig) -> RewardModel:
        """Return an untrained model of frames by ``audio``, or of waveforms if the config names an encoder."""
        if config.encoder is None:
            return RewardModel(config, emotions, audio.n_mels, audio.floor)
        from rrpo.models.speech_encoder import SpeechEncoderModel

        return SpeechEncoderModel(config, emotions, audio.hop)

    def as_input(self, speech: SpeechSet) -> SpeechSet:
        """Return the utterances in the form that this model takes."""
        return speech

    def set_statistics(self, frames: Tensor) -> None:
        """Store the per-mel mean and spread of ``frames [N, M]``, which normalize F."""
        self.mean.copy_(frames.mean(0))
        self.std.copy_(frames.std(0).clamp(min=1e-3))

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` -> ``h' [B, T', D], mask [B, T']``."""
        lengths = lengths.clamp(min=1)
        mask = valid_mask(lengths, F.shape[1])
        x = ((F.float() - self.mean) / self.std).to(self.inlet.weight.dtype)
        x = self.inlet(x)
        for halve in self.subsampling:
            lengths = (lengths + 1) // 2
            x = halve(x.masked_fill(~mask[..., None], 0.0))
            mask = valid_mask(lengths, x.shape[1])
        x = self.dropout(x + _positions(x))
        for layer in self.encoder:
            x = layer(x, mask)
        return self.norm(x).masked_fill(~mask[..., None], 0.0), mask

    def classify(self, h: Tensor, mask: Tensor) -> Tensor:
        """Apply attentive pooling: ``h' [B, T', D], mask [B, T']`` -> ``logits [B, K]`` in float32."""
        scores = self.attention(h)[..., 0].float().masked_fill(~mask, -math.inf)
        pooled = (scores.softmax(1)[..., None] * h).sum(1)
        logits: Tensor = self.head(pooled.to(self.head.weight.dtype)).float()
        return logits

    def rewards(self, h: Tensor, mask: Tensor) -> Tensor:
        """``h' [B, T', D], mask [B, T']`` -> ``log p [B, K]``: the policy's reward for each emotion."""
        return self.classify(h, mask).log_softmax(1)

    def forward(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [B, T, M], lengths [B]`` -> ``logits [B, K]``."""
        return self.classify(*self.encode(F, lengths))

    @torch.no_grad()
    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [P, T, M], lengths [P]`` -> log-probabilities ``[P, K]``, in batches of `CHUNK` samples."""
        parts = zip(F.split(CHUNK), lengths.split(CHUNK), strict=True)
        return torch.cat([self(f, n).log_softmax(1) for f, n in parts])

    def save(self, folder: Path) -> None:
        """Write ``reward_model.json`` and ``reward_model.pt`` into ``folder``."""
        card = {
            "config": canonical(self.config),
            "emotions": list(self.emotions),
            "n_mels": self.n_mels,
            "floor": self.floor,
            "regularizers": described(self.regularizers),
        }
        (folder / "reward_model.json").write_text(json.dumps(card, indent=1))
        # The weights of a stacked model are views; torch.save would write those of all members.
        state = {name: value.clone().cpu() for name, value in self.state_dict().items()}
        torch.save(state, folder / "reward_model.pt")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> RewardModel:
        """Load the frozen model of ``folder``: no dropout, no gradient to its parameters, gradient to F."""
        path = folder / "reward_model.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} contains no reward_model.json; give a folder written by RewardModel.save"
            )
        card = json.loads(path.read_text())
        if "encoder" in card["config"]:
            from rrpo.models.speech_encoder import SpeechEncoderModel

            return SpeechEncoderModel.load(folder, device)
        model = cls(
            RewardModelConfig(**card["config"]),
            tuple(card["emotions"]),
            card["n_mels"],
            card["floor"],
            rebuild(RegularizerConfig, card["regularizers"]),
        )
        model.load_state_dict(torch.load(folder / "reward_model.pt", map_location="cpu", weights_only=True))
        return model.to(device).eval().requires_grad_(False)


class _Halve(nn.Module):
    """Strided convolution ``[B, T, D]`` -> ``[B, ceil(T/2), D]``; padding must be zero on input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Linear(3 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.norm(self.conv(neighbours(x, 3, stride=2))))


class _EncoderLayer(nn.Module):
    """Pre-norm Transformer layer on ``[B, T', D]`` with keys masked."""

    def __init__(self, config: RewardModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.queries_keys_values, self.merge = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        B, T, D = x.shape
        qkv = self.queries_keys_values(self.norm_attention(x)).view(B, T, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.dropout(self.merge(attended.transpose(1, 2).reshape(B, T, D)))
        output: Tensor = x + self.dropout(self.feed(self.norm_feed(x)))
        return output


def _positions(x: Tensor) -> Tensor:
    """Return sinusoidal positions ``[T', D]`` for ``x [B, T', D]``."""
    T, D = x.shape[1:]
    time = torch.arange(T, device=x.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, D, 2, device=x.device, dtype=torch.float32) * (-math.log(10000.0) / D))
    return torch.cat([torch.sin(time * rate), torch.cos(time * rate)], dim=1).to(x.dtype)
