"""Combs: a pulse train shows its own F0, noise shows none, and a comb added to an envelope gives a voiced frame."""

import pytest
import torch

from rrpo.audio import log_mel
from rrpo.corpus.config import AudioConfig
from rrpo.models import pitch
from rrpo.models.vocoder import vocode

AUDIO = AudioConfig()
SAMPLES = AUDIO.sample_rate // 2


def pulses(hertz: float) -> torch.Tensor:
    """Half a second ``[S]`` of a band-limited pulse train."""
    time = torch.arange(SAMPLES) / AUDIO.sample_rate
    return sum(torch.cos(2 * torch.pi * k * hertz * time) for k in range(1, int(7000 / hertz))) * 0.01


def analysed(wave: torch.Tensor) -> torch.Tensor:
    """Return frames ``[1, T, M]`` without the three at each end, whose windows are incomplete."""
    F, _ = log_mel(wave[None], torch.tensor([len(wave)]), AUDIO)
    return F[:, 3:-3]


@pytest.mark.parametrize("hertz", [80.0, 127.0, 233.0, 410.0])
def test_a_pulse_train_shows_its_f0_and_its_comb(hertz: float) -> None:
    F = analysed(pulses(hertz))
    rows, similarity = pitch.tracked(F, AUDIO)
    assert ((rows - pitch.row(hertz)).abs() < 0.5 * pitch.ROWS).all()
    assert (similarity > 0.75).all()
    comb = pitch.comb(pitch.combs(AUDIO), torch.tensor([pitch.row(hertz)]))
    low = slice(0, 20)  # where the bands resolve harmonics
    pair = torch.stack([F[0, :, low].mean(0), comb[0, low].clamp(min=-3)])
    assert torch.corrcoef(pair)[0, 1] > 0.8


def test_noise_shows_no_f0() -> None:
    noise = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.05
    assert pitch.tracked(analysed(noise), AUDIO)[1].mean() < 0.55


def test_a_comb_keeps_the_power_of_noise_and_fades_where_bands_are_wide() -> None:
    table = pitch.combs(AUDIO)
    assert len(table) == round(pitch.row(pitch.HIGHEST)) + 1 == 3 * 12 * pitch.ROWS + 1
    low = table[round(pitch.row(100.0))]
    assert low[60:].abs().max() < 0.25
    assert low[:20].std() > 3 * low[60:].std()


def test_combs_are_interpolated_with_a_gradient_up_to_both_ends() -> None:
    table = pitch.combs(AUDIO)
    ends = torch.tensor([0.0, 10.0, 10.5, len(table) - 1.0], requires_grad=True)
    combs = pitch.comb(table, ends)
    for row, expected in zip(combs, (table[0], table[10], (table[10] + table[11]) / 2, table[-1]), strict=True):
        assert torch.allclose(row, expected, atol=1e-5)
    (gradient,) = torch.autograd.grad(combs.square().sum(), ends)
    assert (gradient != 0).all()


@pytest.mark.parametrize("hertz", [110.0, 240.0])
def test_a_comb_on_an_envelope_is_tracked_as_its_f0(hertz: float) -> None:
    phonetics = pytest.importorskip("rrpo.judges.phonetics")
    pytest.importorskip("parselmouth")
    envelope = (-0.1 * torch.arange(AUDIO.n_mels)).expand(1, 40, -1)  # falls, as speech does
    comb = pitch.comb(pitch.combs(AUDIO), torch.full((1, 40), pitch.row(hertz)))
    tracked = {}
    for name, F in (("voice", envelope + comb), ("noise", envelope)):
        wave = vocode(F, torch.tensor([40]), AUDIO)[0].numpy()
        tracked[name] = dict(zip(phonetics.MEASURES, phonetics.measure(wave, AUDIO.sample_rate), strict=True))
    assert tracked["voice"]["voiced"] > 0.8 > 0.3 > tracked["noise"]["voiced"]
    assert tracked["voice"]["f0_level"] == pytest.approx(
        pitch.row(hertz) / pitch.ROWS - pitch.row(100.0) / pitch.ROWS, abs=0.5
    )
