"""Speaker similarity by a published speaker encoder (GE2E, Wan et al. 2018), whose weights are in the wheel ``resemblyzer``.

Only the weights are read: the package itself needs librosa and a compiler, so it is installed without its dependencies (``pip
install --no-deps resemblyzer``). The level is normalized; silence is not trimmed. The encoder was trained on real speech;
`rrpo.judges.yardsticks` measures how well it distinguishes this world's voices.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torchaudio.transforms as tat
from torch import Tensor, nn

from rrpo.errors import InputError
from rrpo.packages import package_folder

RATE = 16000
"""Expected sample rate in Hz."""
WINDOW, HOP, MELS = 400, 160, 40
"""Window and hop in samples, and number of bands, of the mel power spectrum."""
FRAMES, STEP = 160, 77
"""Length of a partial utterance and distance between two, in frames."""
COVERAGE = 0.75
"""Minimum share of speech, as opposed to padding, in the last partial utterance."""
SIZE = 256
"""Width of the three recurrent layers and of the embedding."""
LEVEL = -30.0
"""Level in dB of full scale to which a softer wave is raised."""
CHUNK = 64
"""Partial utterances per batch."""


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, SIZE, 3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)

    def forward(self, mels: Tensor) -> Tensor:
        """``[P, FRAMES, MELS]`` -> unit vectors ``[P, SIZE]``, no component negative."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


@torch.no_grad()
def embeddings(waves: Sequence[np.ndarray]) -> np.ndarray:
    """Return unit vectors ``[n, SIZE]`` of waves ``[S]`` at `RATE`; their product is the cosine similarity."""
    partials = [_partials(np.asarray(wave, dtype=np.float32)) for wave in waves]
    batch = torch.cat(partials)
    vectors = torch.cat([_encoder()(chunk) for chunk in batch.split(CHUNK)]).split([len(p) for p in partials])
    return np.array([nn.functional.normalize(utterance.mean(0), dim=0).numpy() for utterance in vectors])


def _partials(wave: np.ndarray) -> Tensor:
    """Return overlapping mel spectrograms ``[P, FRAMES, MELS]`` that cover ``wave [S]``."""
    level = 10 * np.log10(np.mean(np.square(wave)) + 1e-12) if len(wave) else 0.0
    wave = wave * 10 ** (max(0.0, LEVEL - level) / 20) if level > -100 else wave
    frames = -(-(len(wave) + 1) // HOP)
    starts = list(range(0, max(1, frames - FRAMES + STEP + 1), STEP))
    if len(starts) > 1 and (len(wave) - starts[-1] * HOP) / (FRAMES * HOP) < COVERAGE:
        starts.pop()
    padded = np.pad(wave, (0, max(0, (starts[-1] + FRAMES) * HOP - len(wave))))
    mel = _mel()(torch.from_numpy(padded)).T  # [frames, MELS]
    return torch.stack([mel[start : start + FRAMES] for start in starts])


@lru_cache(maxsize=1)
def _mel() -> tat.MelSpectrogram:
    return tat.MelSpectrogram(
        RATE, WINDOW, hop_length=HOP, n_mels=MELS, power=2.0, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )


@lru_cache(maxsize=1)
def _encoder() -> _Encoder:
    path = package_folder("resemblyzer") / "pretrained.pt"
    if not path.is_file():
        fix = "pip install --no-deps --force-reinstall resemblyzer"
        raise InputError("the weights of the speaker encoder are missing", got=path, fix=fix)
    stored = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = _Encoder()
    encoder.load_state_dict({name: value for name, value in stored.items() if name.split(".")[0] in ("lstm", "linear")})
    return encoder.eval().requires_grad_(False)
