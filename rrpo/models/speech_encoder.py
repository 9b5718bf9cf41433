"""Reward model on a pre-trained speech encoder from a local Hugging Face folder: wav2vec 2.0, WavLM or HuBERT.

Waveform -> encoder -> h', its last hidden states -> attentive pooling -> logits. The adversarial perturbation of Eq. 4 acts on
h', energy-adaptive mixup on the waveform, as in its source. The model does not accept log-mel frames, so it cannot reward a
policy whose codec produces them. Importing this module imports torch and transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModel

from rrpo.config import OFF, RegularizerConfig, RewardModelConfig
from rrpo.corpus.features import SpeechSet, WaveSet
from rrpo.errors import InputError
from rrpo.identity import described, rebuild
from rrpo.masking import valid_mask
from rrpo.models.reward_model import RewardModel
from rrpo.models.signals import WAVEFORM

SILENT = 10**-6.5
"""Power of a silent sample, -65 dBFS."""
SHORTEST = 400
"""Minimum number of samples: one window of the encoders' convolutions."""


class SpeechEncoderModel(RewardModel):
    """Emotion classifier of waveforms ``F [B, T, hop]`` at 16 kHz; padding is masked."""

    signal = WAVEFORM

    def __init__(
        self, config: RewardModelConfig, emotions: tuple[str, ...], hop: int, regularizers: RegularizerConfig = OFF
    ) -> None:
        """Load the encoder with its weights, disable its randomness (SpecAugment, LayerDrop), and create a new head.

        Raises:
            InputError: The encoder's folder was moved.
        """
        nn.Module.__init__(self)
        assert config.encoder is not None
        self.config, self.emotions, self.n_mels, self.floor = config, tuple(emotions), hop, SILENT
        self.regularizers = regularizers
        folder = Path(config.encoder.path)
        if not folder.is_dir():
            fix = "move the folder back, or put a link there"
            raise InputError("the speech encoder of a reward model is not where it was", got=folder, fix=fix)
        self.speech: Any = AutoModel.from_pretrained(folder, local_files_only=True)
        self.speech.config.apply_spec_augment, self.speech.config.layerdrop = False, 0.0
        path = folder / "preprocessor_config.json"
        self.normalized: bool = json.loads(path.read_text()).get("do_normalize", True) if path.is_file() else True
        dim = self.speech.config.hidden_size
        self.attention = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
        self.head = nn.Linear(dim, len(self.emotions))
        self.requires_grad_(True)

    def as_input(self, speech: SpeechSet) -> SpeechSet:
        """Return the utterances as waveforms."""
        return WaveSet(**vars(speech))

    def set_statistics(self, frames: Tensor) -> None:
        """Do nothing: each utterance is normalized by its own mean and variance, if the encoder was trained this way."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Like `Module.requires_grad_`, but the convolutions, and a frozen encoder, stay frozen."""
        super().requires_grad_(requires_grad)
        self._frozen.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """Like `Module.train`, but frozen parts stay in evaluation mode."""
        super().train(mode)
        self._frozen.eval()
        return self

    @property
    def _frozen(self) -> nn.Module:
        assert self.config.encoder is not None
        module: nn.Module = self.speech.feature_extractor if self.config.encoder.tuned else self.speech
        return module

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``h' [B, T', D], mask [B, T']`` for ``F [B, T, hop], lengths [B]``."""
        samples = (lengths * self.n_mels).clamp(min=SHORTEST)
        wave = nn.functional.pad(F.float().flatten(1), (0, max(0, SHORTEST - F.shape[1] * self.n_mels)))
        mask = valid_mask(samples, wave.shape[1])
        if self.normalized:
            n = samples[:, None]
            centred = (wave - wave.masked_fill(~mask, 0.0).sum(1, keepdim=True) / n).masked_fill(~mask, 0.0)
            wave = centred / (centred.square().sum(1, keepdim=True) / n + 1e-7).sqrt()
        if self.speech.config.feat_extract_norm == "group":  # normalizes over time, so padding would change the result
            utterances = zip(wave, samples.tolist(), strict=True)
            rows = [self.speech(row[None, :n]).last_hidden_state[0] for row, n in utterances]
            h = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        else:
            h = self.speech(wave, attention_mask=mask.long()).last_hidden_state
        mask = valid_mask(self.speech._get_feat_extract_output_lengths(samples), h.shape[1])
        return h.masked_fill(~mask[..., None], 0.0), mask

    def save(self, folder: Path) -> None:
        """Like `RewardModel.save`, but the weights of a frozen encoder are referenced by folder instead of copied."""
        assert self.config.encoder is not None
        card = {
            "config": described(self.config),
            "encoder_path": self.config.encoder.path,
            "emotions": list(self.emotions),
            "hop": self.n_mels,
            "regularizers": described(self.regularizers),
        }
        (folder / "reward_model.json").write_text(json.dumps(card, indent=1))
        weights = {
            name: value.cpu()
            for name, value in self.state_dict().items()
            if self.config.encoder.tuned or not name.startswith("speech.")
        }
        torch.save(weights, folder / "reward_model.pt")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> SpeechEncoderModel:
        """Load the frozen model in ``folder``; requires the encoder's folder."""
        card = json.loads((folder / "reward_model.json").read_text())
        card["config"]["encoder"]["path"] = card["encoder_path"]
        regularizers = rebuild(RegularizerConfig, card["regularizers"])
        model = cls(rebuild(RewardModelConfig, card["config"]), tuple(card["emotions"]), card["hop"], regularizers)
        model.load_state_dict(
            torch.load(folder / "reward_model.pt", map_location="cpu", weights_only=True), strict=False
        )
        return model.to(device).eval().requires_grad_(False)
