"""Vocoder: log-mel frames F -> waveform by mel inversion, initial phases from the frames' own F0, and a few fast Griffin-Lim
iterations.

The iterations (Griffin & Lim 1984, with the momentum of Perraudin et al. 2013) start at the phases of a pulse train with the
tracked F0, or at random phases in unvoiced frames, instead of at zero: on speech through the codec, one iteration is then more
accurate than three from zero phase, and six are as accurate as twelve. The published algorithm subtracts the last spectrum from
the next; this one subtracts waves, which is equivalent because the transform is linear, and cheaper.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.audio import mel_filters
from rrpo.corpus.config import AudioConfig
from rrpo.masking import valid_mask
from rrpo.models import pitch
from rrpo.seeding import uniform

MOMENTUM = 0.5
"""Share of the last iterate that is subtracted before the phase is computed; .7 is worse, 0 slower."""
INVERSION_STEPS = 5
"""Multiplicative corrections of the linear spectrum: three reduce the error by more than sixteen Griffin-Lim iterations."""
VOICED = 0.65
"""Minimum similarity of a frame to its comb (`rrpo.models.pitch.tracked`) for harmonic initial phases; below, they are random."""
ROWS = {"cpu": 4}
"""Utterances per batch by device, all on other devices: larger batches exceed the CPU's caches."""
TINY = 1e-9
"""Lower bound of denominators."""
NOISE_FRAMES = 512
"""Increment in frames by which the table of random phases grows."""


@torch.no_grad()
def vocode(mel: Tensor, lengths: Tensor, config: AudioConfig) -> Tensor:
    """Return waves ``[B, (T - 1) * hop]`` of F ``[B, T, M]`` with ``lengths [B]`` in frames.

    Deterministic. Valid samples are (length - 1) * hop; the rest is zero. Neither padding nor neighbors change an utterance.
    """
    lengths = lengths.to(mel.device)
    waves = mel.new_zeros(len(mel), (mel.shape[1] - 1) * config.hop, dtype=torch.float32)
    for rows in lengths.argsort(stable=True).split(ROWS.get(mel.device.type, len(mel))):
        longest = max(1, int(lengths[rows].max()))
        waves[rows, : (longest - 1) * config.hop] = _griffin_lim(mel[rows, :longest].float(), lengths[rows], config)
    return waves


def magnitude(spectrum: Tensor) -> Tensor:
    """Return ``|spectrum|`` of complex numbers. On the CPU, NumPy is ten times faster than torch."""
    return torch.from_numpy(np.abs(spectrum.numpy())) if spectrum.device.type == "cpu" else spectrum.abs()


def linear_power(power: Tensor, config: AudioConfig) -> Tensor:
    """Return the power spectrum ``[N, n_fft / 2 + 1]`` whose mel power is close to ``power [N, M]``.

    Starts at the clamped pseudo-inverse and makes a few multiplicative steps (Lee & Seung 2001, KL divergence), which stay
    positive: on rendered speech the error in log-mel falls from 0.38 to 0.08 nats.
    """
    inverse, down, up, total = _mel_inversion(config, power.device)
    power = power.T  # [M, N]: sparse products need the frames last
    linear = (inverse @ power).clamp_min_(TINY)  # [n_fft / 2 + 1, N]
    for _ in range(INVERSION_STEPS):
        linear.mul_(up @ (power / (down @ linear).clamp_min_(TINY))).div_(total).clamp_min_(TINY)
    return linear.T.contiguous()


def _griffin_lim(mel: Tensor, lengths: Tensor, config: AudioConfig) -> Tensor:
    """Return waves ``[B, (T - 1) * hop]`` of F ``[B, T, M]``, ``lengths [B]`` in frames, zero beyond their ends."""
    B, T, M = mel.shape
    hop, size = config.hop, config.n_fft
    blocks = -(-size // hop)
    valid = valid_mask(lengths, T)
    power = (mel.exp() - config.floor).clamp_min_(0) * valid[..., None]
    target = linear_power(power.reshape(B * T, M), config).sqrt_().reshape(B, T, -1)  # magnitudes [B, T, Z]
    spectrum = _phases(mel, config).mul_(target)
    window = torch.hann_window(size, device=mel.device)
    frames = mel.new_empty(B, T, size)
    padded = mel.new_zeros(B, T, blocks * hop)  # windowed frames, filled up to whole hops

    def overlap_add(frames: Tensor) -> Tensor:
        """Sum windowed ``frames [B, T, n_fft]``, one hop apart: ``[B, (T - 1 + blocks) * hop]``."""
        torch.mul(frames, window, out=padded[..., :size])
        wave = mel.new_zeros(B, T - 1 + blocks, hop)
        for block, part in enumerate(padded.view(B, T, blocks, hop).unbind(2)):
            wave[:, block : block + T] += part
        return wave.flatten(1)

    # sample weight: the inverse of the sum of squared windows of the valid frames, zero outside the utterance
    time = torch.arange((T - 1 + blocks) * hop, device=mel.device) - size // 2
    inside = (time >= 0) & (time < (lengths[:, None] - 1) * hop)
    weight = inside / overlap_add(window * valid[..., None]).clamp_min(TINY)

    previous = torch.zeros_like(weight)
    for _ in range(config.griffin_lim_steps):
        wave = overlap_add(torch.fft.irfft(spectrum, size, out=frames)).mul_(weight)
        extrapolated = wave - MOMENTUM * previous
        torch.mul(extrapolated.unfold(1, size, hop)[:, :T], window, out=frames)
        torch.fft.rfft(frames, out=spectrum)
        spectrum.mul_(target / magnitude(spectrum).add_(TINY))
        previous = wave
    wave = overlap_add(torch.fft.irfft(spectrum, size, out=frames)).mul_(weight)
    return wave[:, size // 2 : size // 2 + (T - 1) * hop]


def _phases(mel: Tensor, config: AudioConfig) -> Tensor:
    """Return complex numbers of unit modulus ``[B, T, n_fft / 2 + 1]``: phases of a pulse train with the F0 of F ``[B, T, M]``.

    Each bin has the phase of its nearest harmonic at the frame's center: the number of cycles of F0 until then times the
    harmonic's number. Unvoiced frames get random phases, the same for each utterance.
    """
    T, bins = mel.shape[1], config.n_fft // 2 + 1
    rows, similarity = pitch.tracked(mel, config)
    f0 = pitch.LOWEST * 2 ** (rows / (12 * pitch.ROWS))  # [B, T] Hz
    seconds = config.hop / config.sample_rate
    cycles = F_.pad((f0[:, 1:] + f0[:, :-1]).double().cumsum(1) * (seconds / 2), (1, 0)).remainder(1).float()
    hertz = torch.linspace(0, config.sample_rate / 2, bins, device=mel.device)
    nearest = (hertz / f0[..., None]).round_().long()  # [B, T, bins]
    harmonics = 2 * math.pi * cycles[..., None] * torch.arange(int(nearest.max()) + 1, device=mel.device)
    voice = torch.polar(torch.ones_like(harmonics), harmonics).gather(2, nearest)
    phases = torch.where((similarity > VOICED)[..., None], voice, _noise(-(-T // NOISE_FRAMES), bins, mel.device)[:T])
    phases[..., 1::2] *= -1  # half a cycle per bin: a frame begins half a window before its center
    return phases


@lru_cache(maxsize=4)
def _noise(blocks: int, bins: int, device: torch.device) -> Tensor:
    """Return complex numbers of unit modulus and random phase ``[blocks * NOISE_FRAMES, bins]``; a longer table begins with the
    shorter."""
    phase = 2 * math.pi * uniform((blocks * NOISE_FRAMES, bins), 0, "vocoder phases")
    return torch.polar(torch.ones_like(phase), phase).to(device)


@lru_cache(maxsize=8)
def _mel_inversion(config: AudioConfig, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, for the mel filter bank ``[Z, M]``: its transposed pseudo-inverse ``[Z, M]``, its transpose ``[M, Z]`` and itself,
    both sparse (a bin is in two filters), and each bin's sum ``[Z, 1]``."""
    filters = mel_filters(config)
    inverse = torch.linalg.pinv(filters.T.double()).float()
    total = filters.sum(1, keepdim=True) + TINY
    return inverse.to(device), _sparse(filters.T, device), _sparse(filters, device), total.to(device)


def _sparse(matrix: Tensor, device: torch.device) -> Tensor:
    """Return ``matrix`` in CSR format with 32-bit indices, because MKL converts other indices at every product."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        rows = matrix.to_sparse_csr()
        parts = (rows.crow_indices().int(), rows.col_indices().int(), rows.values())
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, device=device, check_invariants=False)
