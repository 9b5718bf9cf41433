"""Equations 2 to 5 by hand, their corners, and a contract that every regulariser keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rrpo.config import OFF, RegularizerConfig, RewardModelConfig
from rrpo.masking import sample_norm, valid_mask
from rrpo.models.reward_model import RewardModel
from rrpo.regularizers import (
    adversarial_delta,
    cross_entropy,
    energy_adaptive_mixup,
    mixup_draws,
    robust_loss,
    smooth_labels,
)

FLOOR = 1e-5
SILENT = math.log(FLOOR)
EMOTIONS = ("a", "b", "c")


def draws(
    *, apply: float = 0.5, length: float = 0.5, ratio: float = 0.5, host: float = 0.5, other: float = 0.5
) -> Tensor:
    """Uniforms for two utterances, each the other's partner."""
    return torch.tensor([[apply, 0.5, length, ratio, host, other]]).expand(2, 6)


def mixup_config(decibels: float = 0.0, probability: float = 1.0) -> RegularizerConfig:
    """Mixup alone, always at one ratio."""
    return replace(OFF, mix_probability=probability, mix_db_low=decibels, mix_db_high=decibels)


def powers(*rows: list[float]) -> tuple[Tensor, Tensor]:
    """``F [B, T, 1]`` and lengths from rows of linear power."""
    F = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=FLOOR)
    return F.log()[..., None], torch.tensor([len(row) for row in rows])


def speech_like(batch: int, seed: int = 0, mels: int = 6, longest: int = 24) -> tuple[Tensor, Tensor]:
    """Random frames of unequal lengths, padded with the floor."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, longest + 1, (batch,), generator=generator)
    lengths[0] = longest
    F = torch.randn(batch, longest, mels, generator=generator) * 2
    return F.masked_fill(~valid_mask(lengths, longest)[..., None], SILENT), lengths


class TestLabelSmoothing:
    def test_by_hand(self) -> None:
        smoothed = smooth_labels(torch.eye(5)[:1], 0.1)
        torch.testing.assert_close(smoothed, torch.tensor([[0.92, 0.02, 0.02, 0.02, 0.02]]))

    def test_stays_a_distribution_for_vote_shares(self) -> None:
        smoothed = smooth_labels(torch.tensor([[2 / 3, 1 / 3, 0.0]]), 0.3)
        torch.testing.assert_close(smoothed, torch.tensor([[0.7 * 2 / 3 + 0.1, 0.7 / 3 + 0.1, 0.1]]))

    def test_cross_entropy_by_hand(self) -> None:
        logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
        expected = -(0.2 * math.log(0.25) + 0.8 * math.log(0.75))
        assert cross_entropy(logits, torch.tensor([[0.2, 0.8]])).item() == pytest.approx(expected)


class TestMixup:
    def test_overlap_add_energies_and_lambda_by_hand(self) -> None:
        F, lengths = powers([1.0, 2.0, 3.0, 4.0], [10.0, 20.0])
        mixture = energy_adaptive_mixup(F, lengths, draws(length=0.9), mixup_config(10 * math.log10(2)), FLOOR)
        # Host 0: l_mix = 2 of min(4/2, 2); frames 1 and 2, E_0 = 2 + 3; partner frames 0 and 1, E_1 = 30 -> 2 x 5 = 10.
        torch.testing.assert_close(mixture.F[0].exp()[:, 0], torch.tensor([1.0, 2 + 10 / 3, 3 + 20 / 3, 4.0]))
        assert mixture.weight[0].item() == pytest.approx(2 / 4 * 10 / (5 + 10))
        # Host 1: l_mix = 1 of min(2/2, 4); frame 1, E_1 = 20; partner frame 2 (power 3) -> 40.
        torch.testing.assert_close(mixture.F[1].exp()[:2, 0], torch.tensor([10.0, 60.0]))
        assert mixture.weight[1].item() == pytest.approx(1 / 2 * 40 / (20 + 40))
        assert mixture.partner.tolist() == [1, 0]

    def test_segment_energy_sums_over_mels(self) -> None:
        F = torch.tensor([[[1.0, 3.0], [1.0, 3.0]], [[8.0, 8.0], [8.0, 8.0]]]).log()
        mixture = energy_adaptive_mixup(F, torch.tensor([2, 2]), draws(host=0.1), mixup_config(0.0), FLOOR)
        torch.testing.assert_close(mixture.F[0].exp(), torch.tensor([[3.0, 5.0], [1.0, 3.0]]))

    def test_partner_louder_than_host_means_more_of_its_label(self) -> None:
        F, lengths = speech_like(8)
        weights = [
            energy_adaptive_mixup(F, lengths, mixup_draws(8, 0, 0), mixup_config(decibels), FLOOR).weight
            for decibels in (-30.0, -5.0, 0.0, 5.0, 30.0)
        ]
        assert all((quiet < loud).all() for quiet, loud in pairwise(weights))

    def test_lambda_is_share_of_time_times_sigmoid_of_ratio_and_below_half(self) -> None:
        F, lengths = speech_like(64)
        config = RegularizerConfig()
        u = mixup_draws(64, 3, 7)
        mixture = energy_adaptive_mixup(F, lengths, u, config, FLOOR)
        longest = torch.minimum(lengths // 2, lengths[mixture.partner])
        l_mix = 1 + (u[:, 2] * longest).long()
        expected = l_mix / lengths * torch.sigmoid(0.230259 * (-5 + 15 * u[:, 3]))
        torch.testing.assert_close(mixture.weight, expected)
        assert (mixture.weight < 0.5).all()
        assert (l_mix <= lengths[mixture.partner]).all()

    def test_partner_is_never_the_host_and_can_be_any_other(self) -> None:
        F, lengths = speech_like(4)
        partners = torch.stack(
            [energy_adaptive_mixup(F, lengths, mixup_draws(4, 0, step), OFF, FLOOR).partner for step in range(100)]
        )
        assert (partners != torch.arange(4)).all()
        assert all(len(partners[:, host].unique()) == 3 for host in range(4))

    @pytest.mark.parametrize(
        "rows",
        [([FLOOR] * 4, [1.0] * 4), ([1.0] * 4, [FLOOR] * 4), ([1.0], [1.0]), ([1e-30] * 4, [1e-30] * 4)],
        ids=["silent host", "silent partner", "one frame", "below the floor"],
    )
    def test_what_cannot_be_mixed_is_left_alone(self, rows: tuple[list[float], list[float]]) -> None:
        F, lengths = powers(*rows)
        mixture = energy_adaptive_mixup(F, lengths, draws(), mixup_config(), FLOOR)
        assert torch.equal(mixture.F[0], F[0])
        assert mixture.weight[0].item() == 0.0

    def test_one_silent_pair_does_not_stop_the_others(self) -> None:
        F, lengths = speech_like(6)
        quiet = F.clone()
        quiet[2] = SILENT
        u = mixup_draws(6, 0, 0)
        loud, hushed = (energy_adaptive_mixup(x, lengths, u, mixup_config(), FLOOR) for x in (F, quiet))
        untouched = (torch.arange(6) != 2) & (loud.partner != 2)
        assert untouched.any()
        assert torch.equal(loud.F[untouched], hushed.F[untouched])
        assert (hushed.weight[~untouched] == 0).all()

    def test_padding_changes_neither_energy_nor_lambda_nor_frames(self) -> None:
        F, lengths = speech_like(8)
        wide = torch.cat([F, torch.full((8, 9, 6), 40.0)], dim=1)
        u = mixup_draws(8, 0, 0)
        narrow_mix, wide_mix = (energy_adaptive_mixup(x, lengths, u, mixup_config(), FLOOR) for x in (F, wide))
        assert torch.equal(narrow_mix.weight, wide_mix.weight)
        assert torch.equal(narrow_mix.F, wide_mix.F[:, :24])
        assert torch.equal(wide_mix.F[:, 24:], wide[:, 24:])

    def test_probability_is_the_share_of_mixed_utterances(self) -> None:
        F, lengths = speech_like(2000, longest=8)
        mixture = energy_adaptive_mixup(F, lengths, mixup_draws(2000, 0, 0), mixup_config(probability=0.3), FLOOR)
        assert (mixture.weight > 0).float().mean().item() == pytest.approx(0.3, abs=0.04)

    def test_a_batch_of_one_is_mixed_with_itself(self) -> None:
        F, lengths = speech_like(1)
        mixture = energy_adaptive_mixup(F, lengths, mixup_draws(1, 0, 0), mixup_config(), FLOOR)
        assert mixture.partner.tolist() == [0]
        assert mixture.F.isfinite().all()


class TestAdversarial:
    def test_by_hand_on_a_linear_loss(self) -> None:
        h = torch.zeros(2, 2, 2)
        slope = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 2.0], [5.0, 5.0]]])
        mask = valid_mask(torch.tensor([2, 1]), 2)
        delta = adversarial_delta(lambda x: (x * slope).sum((1, 2)), h, mask, RegularizerConfig(epsilon_adv=0.5))
        torch.testing.assert_close(delta, torch.tensor([[[0.3, 0.0], [0.0, 0.4]], [[0.0, 0.5], [0.0, 0.0]]]))

    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    def test_norm_is_epsilon_adv_for_each_sample_whatever_the_gradient(self, scale: float) -> None:
        h, lengths = speech_like(5)
        mask = valid_mask(lengths, 24)
        delta = adversarial_delta(lambda x: scale * x.tanh().sum((1, 2)), h, mask, RegularizerConfig(epsilon_adv=0.7))
        torch.testing.assert_close(sample_norm(delta, mask), torch.full((5,), 0.7))
        assert (delta[~mask] == 0).all()

    def test_relative_norm_is_a_share_of_h(self) -> None:
        h, lengths = speech_like(5)
        mask = valid_mask(lengths, 24)
        config = RegularizerConfig(epsilon_adv=0.1, adv_norm="relative")
        delta = adversarial_delta(lambda x: x.tanh().sum((1, 2)), h, mask, config)
        torch.testing.assert_close(sample_norm(delta, mask), 0.1 * sample_norm(h, mask))

    def test_no_gradient_no_push(self) -> None:
        h = torch.randn(2, 3, 4)
        delta = adversarial_delta(
            lambda x: 0.0 * x.sum((1, 2)), h, torch.ones(2, 3, dtype=torch.bool), RegularizerConfig()
        )
        assert (delta == 0).all()

    def test_padding_changes_no_delta(self) -> None:
        model, F, lengths, y, _ = scene()
        deltas = []
        for x in (F, torch.cat([F, torch.full((len(F), 8, 6), 7.0)], dim=1)):
            h, mask = model.encode(x, lengths)
            loss = lambda h, mask=mask: cross_entropy(model.classify(h, mask), y)  # noqa: E731
            deltas.append(adversarial_delta(loss, h, mask, RegularizerConfig())[:, :6])
        torch.testing.assert_close(deltas[0], deltas[1], rtol=1e-4, atol=1e-6)


class LinearModel:
    """A model whose every number can be worked out: h' = F, logits = sum over valid frames."""

    floor = FLOOR

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return F, valid_mask(lengths, F.shape[1])

    def classify(self, h: Tensor, mask: Tensor) -> Tensor:
        return h.masked_fill(~mask[..., None], 0.0).sum(1)


class TestRobustLoss:
    def test_equation_5_by_hand(self) -> None:
        F, lengths = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), torch.tensor([1, 1])
        config = RegularizerConfig(epsilon=0.2, mix_probability=0.0, alpha=0.5, epsilon_adv=0.5)
        terms = robust_loss(LinearModel(), F, lengths, torch.eye(2), config, draws())  # type: ignore[arg-type]

        def loss(margin: float) -> float:  # two classes: log-odds of the right one, target (.9, .1)
            return 0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin))

        push = 0.5 * math.sqrt(2)  # delta lies along (1, -1)/sqrt 2: the margin moves by eps_adv sqrt 2
        l_emo = (loss(1.0) + loss(2.0)) / 2
        l_adv = (loss(1.0 - push) + loss(2.0 - push)) / 2
        assert terms["l_emo"].item() == pytest.approx(l_emo)
        assert terms["l_adv"].item() == pytest.approx(l_adv)
        assert terms["loss"].item() == pytest.approx(l_emo + 0.5 * l_adv)
        assert terms["relative_delta"].item() == pytest.approx((0.5 / 1 + 0.5 / 2) / 2)

    def test_equation_3_weighs_both_labels(self) -> None:
        model, F, lengths, y, u = scene()
        config = mixup_config(3.0)
        mixture = energy_adaptive_mixup(F, lengths, u, config, FLOOR)
        logits = model(mixture.F, lengths)
        own, other = (functional.cross_entropy(logits, k.argmax(1), reduction="none") for k in (y, y[mixture.partner]))
        expected = ((1 - mixture.weight) * own + mixture.weight * other).mean()
        terms = robust_loss(model, F, lengths, y, config, u)
        torch.testing.assert_close(terms["l_emo"], expected.detach())
        assert (other - own).abs().max() > 0.01  # the partner's label does count

    def test_adversarial_term_is_the_harder_one(self) -> None:
        model, F, lengths, y, u = scene()
        terms = robust_loss(model, F, lengths, y, RegularizerConfig(), u)
        assert terms["l_adv"] > terms["l_emo"]


def scene(seed: int = 0) -> tuple[RewardModel, Tensor, Tensor, Tensor, Tensor]:
    """A small model without dropout, and a batch of it."""
    torch.manual_seed(seed)
    model = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2, dropout=0.0), EMOTIONS, 6, FLOOR)
    F, lengths = speech_like(8, seed)
    return model, F, lengths, torch.eye(3)[torch.arange(8) % 3], mixup_draws(8, seed, 0)


def train(config: RegularizerConfig | None, steps: int = 4) -> dict[str, Tensor]:
    """Parameters after some updates of the robust loss; of plain cross-entropy where there is no config."""
    model, F, lengths, y, _ = scene()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        if config is None:
            functional.cross_entropy(model(F, lengths), y.argmax(1)).backward()
        else:
            robust_loss(model, F, lengths, y, config, mixup_draws(8, 0, step))["loss"].backward()
        optimizer.step()
    return model.state_dict()


REGULARIZERS = {
    "label smoothing": (replace(OFF, epsilon=0.1), {"epsilon": 0.0}),
    "mixup": (replace(OFF, mix_probability=1.0), {"mix_probability": 0.0}),
    "adversarial": (replace(OFF, alpha=0.5), {"alpha": 0.0}),
    "relative adversarial": (replace(OFF, alpha=0.5, adv_norm="relative", epsilon_adv=0.1), {"alpha": 0.0}),
}


@pytest.mark.parametrize("name", REGULARIZERS)
class TestContract:
    """What every regulariser keeps; a new one joins by a row in ``REGULARIZERS``: (it alone, its identity value)."""

    def test_identity_value_is_the_plain_loss_bit_for_bit(self, name: str) -> None:
        config, identity = REGULARIZERS[name]
        plain, off = train(None), train(replace(config, **identity))
        assert all(torch.equal(plain[key], off[key]) for key in plain)

    def test_it_changes_what_is_learnt(self, name: str) -> None:
        plain, on = train(None), train(REGULARIZERS[name][0])
        assert any(not torch.equal(plain[key], on[key]) for key in plain)

    def test_it_leaves_the_other_terms_draws_alone(self, name: str) -> None:
        """The mixture does not move when another component is toggled, nor does torch's generator."""
        model, F, lengths, y, u = scene()
        config, identity = REGULARIZERS[name]
        mixing = replace(config, mix_probability=1.0)
        seen = []
        for toggled in (mixing, replace(mixing, **({} if "mix_probability" in identity else identity))):
            state = torch.get_rng_state()
            seen.append(robust_loss(model, F, lengths, y, toggled, u)["lambda"])
            assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(seen[0], seen[1])

    def test_gradient_reaches_every_parameter(self, name: str) -> None:
        model, F, lengths, y, u = scene()
        robust_loss(model, F, lengths, y, REGULARIZERS[name][0], u)["loss"].backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())

    @pytest.mark.parametrize("level", [SILENT, 0.0, 80.0, -80.0])
    def test_finite_on_extreme_input(self, name: str, level: float) -> None:
        model, F, lengths, y, u = scene()
        with torch.no_grad():
            model.head.weight *= 1e4
        lengths = torch.tensor([1, 1, 2, 3, 24, 24, 24, 1])
        terms = robust_loss(model, F * 0 + level, lengths, y, REGULARIZERS[name][0], u)
        terms["loss"].backward()
        assert all(value.isfinite() for value in terms.values())
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)

    def test_does_not_depend_on_padding(self, name: str) -> None:
        model, F, lengths, y, u = scene()
        wide = torch.cat([F, torch.full((8, 7, 6), 5.0)], dim=1)
        config = REGULARIZERS[name][0]
        narrow, padded = (robust_loss(model, x, lengths, y, config, u) for x in (F, wide))
        for key in narrow:
            torch.testing.assert_close(narrow[key], padded[key], rtol=1e-5, atol=1e-6)
