"""Equation 3 by hand, and its edge cases."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rrpo.regularizers import EnergyMixup
from rrpo.regularizers.energy_mixup import Mixture
from rrpo.testing.regularizers import FLOOR, RegularizerContract, speech_like

SILENT = math.log(FLOOR)


def draws(
    *, apply: float = 0.5, length: float = 0.5, ratio: float = 0.5, host: float = 0.5, other: float = 0.5
) -> Tensor:
    """Return uniforms for two utterances that are each other's partner."""
    return torch.tensor([[apply, 0.5, length, ratio, host, other]]).expand(2, 6)


def noise(batch: int, seed: int, step: int) -> Tensor:
    """Return the draws of one step."""
    return EnergyMixup().draws(torch.Size((batch, 1, 1)), seed, step)


def mixture(
    F: Tensor, lengths: Tensor, draws: Tensor, floor: float, *, decibels: float = 0.0, probability: float = 1.0
) -> Mixture:
    """Mix at a single ratio."""
    mixup = EnergyMixup(mix_probability=probability, mix_db_low=decibels, mix_db_high=decibels)
    return mixup.mixture(F, lengths, draws, floor)


def powers(*rows: list[float]) -> tuple[Tensor, Tensor]:
    """Return ``F [B, T, 1]`` and lengths from rows of linear power."""
    F = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=FLOOR)
    return F.log()[..., None], torch.tensor([len(row) for row in rows])


class TestContract(RegularizerContract):
    regularizer = EnergyMixup()


class TestMixup:
    def test_overlap_add_energies_and_lambda_by_hand(self) -> None:
        F, lengths = powers([1.0, 2.0, 3.0, 4.0], [10.0, 20.0])
        mixed = mixture(F, lengths, draws(length=0.9), FLOOR, decibels=10 * math.log10(2))
        # Host 0: l_mix = 2 of min(4/2, 2); frames 1 and 2, E_0 = 2 + 3; partner frames 0 and 1, E_1 = 30 -> 2 x 5 = 10.
        torch.testing.assert_close(mixed.F[0].exp()[:, 0], torch.tensor([1.0, 2 + 10 / 3, 3 + 20 / 3, 4.0]))
        assert mixed.weight[0].item() == pytest.approx(2 / 4 * 10 / (5 + 10))
        # Host 1: l_mix = 1 of min(2/2, 4); frame 1, E_1 = 20; partner frame 2 (power 3) -> 40.
        torch.testing.assert_close(mixed.F[1].exp()[:2, 0], torch.tensor([10.0, 60.0]))
        assert mixed.weight[1].item() == pytest.approx(1 / 2 * 40 / (20 + 40))
        assert mixed.partner.tolist() == [1, 0]

    def test_segment_energy_sums_over_mels(self) -> None:
        F = torch.tensor([[[1.0, 3.0], [1.0, 3.0]], [[8.0, 8.0], [8.0, 8.0]]]).log()
        mixed = mixture(F, torch.tensor([2, 2]), draws(host=0.1), FLOOR)
        torch.testing.assert_close(mixed.F[0].exp(), torch.tensor([[3.0, 5.0], [1.0, 3.0]]))

    def test_partner_louder_than_host_means_more_of_its_label(self) -> None:
        F, lengths, _ = speech_like(8)
        weights = [
            mixture(F, lengths, noise(8, 0, 0), FLOOR, decibels=decibels).weight
            for decibels in (-30.0, -5.0, 0.0, 5.0, 30.0)
        ]
        assert all((quiet < loud).all() for quiet, loud in pairwise(weights))

    def test_lambda_is_share_of_time_times_sigmoid_of_ratio_and_below_half(self) -> None:
        F, lengths, _ = speech_like(64)
        u = noise(64, 3, 7)
        mixed = EnergyMixup().mixture(F, lengths, u, FLOOR)
        longest = torch.minimum(lengths // 2, lengths[mixed.partner])
        l_mix = 1 + (u[:, 2] * longest).long()
        expected = l_mix / lengths * torch.sigmoid(0.230259 * (-5 + 15 * u[:, 3]))
        torch.testing.assert_close(mixed.weight, expected)
        assert (mixed.weight < 0.5).all()
        assert (l_mix <= lengths[mixed.partner]).all()

    def test_partner_is_never_the_host_and_can_be_any_other(self) -> None:
        F, lengths, _ = speech_like(4)
        partners = torch.stack(
            [mixture(F, lengths, noise(4, 0, step), FLOOR, probability=0.0).partner for step in range(100)]
        )
        assert (partners != torch.arange(4)).all()
        assert all(len(partners[:, host].unique()) == 3 for host in range(4))

    @pytest.mark.parametrize(
        "rows",
        [([FLOOR] * 4, [1.0] * 4), ([1.0] * 4, [FLOOR] * 4), ([1.0], [1.0]), ([1e-30] * 4, [1e-30] * 4)],
        ids=["silent host", "silent partner", "one frame", "below the floor"],
    )
    def test_unmixable_samples_are_unchanged(self, rows: tuple[list[float], list[float]]) -> None:
        F, lengths = powers(*rows)
        mixed = mixture(F, lengths, draws(), FLOOR)
        assert torch.equal(mixed.F[0], F[0])
        assert mixed.weight[0].item() == 0.0

    def test_one_silent_pair_does_not_stop_the_others(self) -> None:
        F, lengths, _ = speech_like(6)
        quiet = F.clone()
        quiet[2] = SILENT
        u = noise(6, 0, 0)
        loud, hushed = (mixture(x, lengths, u, FLOOR) for x in (F, quiet))
        untouched = (torch.arange(6) != 2) & (loud.partner != 2)
        assert untouched.any()
        assert torch.equal(loud.F[untouched], hushed.F[untouched])
        assert (hushed.weight[~untouched] == 0).all()

    def test_padding_changes_neither_energy_nor_lambda_nor_frames(self) -> None:
        F, lengths, _ = speech_like(8)
        wide = torch.cat([F, torch.full((8, 9, 6), 40.0)], dim=1)
        u = noise(8, 0, 0)
        narrow_mix, wide_mix = (mixture(x, lengths, u, FLOOR) for x in (F, wide))
        assert torch.equal(narrow_mix.weight, wide_mix.weight)
        assert torch.equal(narrow_mix.F, wide_mix.F[:, :24])
        assert torch.equal(wide_mix.F[:, 24:], wide[:, 24:])

    def test_probability_is_the_share_of_mixed_utterances(self) -> None:
        F, lengths, _ = speech_like(2000)
        mixed = mixture(F, lengths, noise(2000, 0, 0), FLOOR, probability=0.3)
        assert (mixed.weight > 0).float().mean().item() == pytest.approx(0.3, abs=0.04)

    def test_a_batch_of_one_is_mixed_with_itself(self) -> None:
        F, lengths, _ = speech_like(1)
        mixed = mixture(F, lengths, noise(1, 0, 0), FLOOR)
        assert mixed.partner.tolist() == [0]
        assert mixed.F.isfinite().all()
