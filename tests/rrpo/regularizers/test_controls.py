"""The controls of RRPO's regularizers: each equation by hand, and the contract."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ablations.components import COMPONENTS
from rrpo.masking import sample_norm, valid_mask
from rrpo.regularizers import (
    CONTROLS,
    REGULARIZERS,
    Batch,
    EnergyMixup,
    HiddenLoss,
    Regularizer,
    SampleLoss,
    Term,
    cross_entropy,
    objective,
    strength,
)
from rrpo.regularizers.focal_loss import FocalLoss
from rrpo.regularizers.hidden_noise import HiddenNoise
from rrpo.regularizers.input_gradient import InputGradient
from rrpo.regularizers.length_mixup import LengthMixup
from rrpo.regularizers.mixup import Mixup
from rrpo.regularizers.projected_gradient import ProjectedGradient
from rrpo.regularizers.temperature import Temperature
from rrpo.testing.regularizers import FLOOR, RegularizerContract, reward_model, speech_like, trained

LOGITS = torch.tensor([[math.log(1.0), math.log(3.0)]])
"""p = (1/4, 3/4)."""


@pytest.mark.parametrize("name", CONTROLS)
class TestContracts(RegularizerContract):
    """Every control, with its strengths in arms."""

    @pytest.fixture(autouse=True)
    def _chosen(self, name: str) -> None:
        self.regularizer = REGULARIZERS[name]

    def test_it_names_its_component_and_source(self) -> None:
        regularizer = self.regularizer
        assert regularizer.control_of in {component.name for component in COMPONENTS if component.paper}
        assert all((regularizer.source, regularizer.equation, regularizer.version >= 1, not regularizer.paper))


def test_controls_double_no_factorial():
    assert [component.name for component in COMPONENTS] == ["ls", "eam", "adv"]


def test_a_controls_version_is_in_its_key_and_in_no_others(monkeypatch: pytest.MonkeyPatch):
    before = REGULARIZERS.choice("mixup"), REGULARIZERS.choice("pgd")
    monkeypatch.setattr(Mixup, "version", 2)
    assert REGULARIZERS.choice("mixup") != before[0]
    assert (REGULARIZERS.choice("pgd"), REGULARIZERS.choice("ls").source) == (before[1], "")


@dataclass(frozen=True, kw_only=True)
class Idle(Regularizer):
    """Draws noise and computes in every hook, but changes nothing at any strength."""

    label = "Idle"
    term = "l_idle"
    scalars = ("idle",)
    size: float = strength(1.0, off=0.0, search=(0.0, 1.0))

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        return REGULARIZERS["mixup"].draws(shape, seed, step)

    def targets(self, y: Tensor) -> Tensor:
        return y.roll(1, 0).roll(-1, 0)

    def mix(self, batch: Batch, draws: Tensor) -> Batch:
        mixed = Mixup().mix(batch, draws)
        return replace(batch, scalars={"idle": mixed.F.mean()})

    def loss(self, inner: SampleLoss) -> SampleLoss:
        return lambda logits, y: inner(logits, y) + 0.0 * inner(-logits, y)

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        return Term(0.0, losses(h + ProjectedGradient().delta(losses, h, mask)))


def test_an_additional_regularizer_without_effect_changes_no_bit():
    plain, idle = trained(None), trained(Idle())
    assert all(torch.equal(plain[name], idle[name]) for name in plain)


def test_focal_loss_by_hand():
    loss = FocalLoss(gamma=2.0).loss(cross_entropy)
    mixed = -0.2 * 0.75**2 * math.log(0.25) - 0.8 * 0.25**2 * math.log(0.75)
    assert loss(LOGITS, torch.tensor([[0.2, 0.8]])).item() == pytest.approx(mixed)


def test_temperature_by_hand():
    loss = Temperature(excess=1.0).loss(cross_entropy)
    assert loss(LOGITS, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(-math.log(9 / 10))


class TestLengthMixup:
    def test_frames_are_those_of_energy_adaptive_mixup_and_the_label_goes_by_length(self) -> None:
        F, lengths, _ = speech_like()
        theirs, ours = EnergyMixup(mix_db_low=0.0, mix_db_high=0.0), LengthMixup(mix_db_low=0.0, mix_db_high=0.0)
        draws = ours.draws(F.shape, 3, 1)
        with_energy, without = (regularizer.mixture(F, lengths, draws, FLOOR) for regularizer in (theirs, ours))
        assert torch.equal(with_energy.F, without.F)
        assert torch.equal(with_energy.partner, without.partner)
        torch.testing.assert_close(without.weight, 2 * with_energy.weight)  # at 0 dB the energies are equal
        share = without.weight * lengths
        torch.testing.assert_close(share, share.round())


class TestMixup:
    def test_two_utterances_by_hand(self) -> None:
        F = torch.tensor([[[1.0], [2.0], [7.0]], [[5.0], [6.0], [9.0]]])  # 7 and 9 are padding and last frame
        batch = Batch(F, torch.tensor([2, 3]), ((torch.ones(2), torch.eye(2)),), FLOOR)
        mixup = Mixup(share=0.5, shape=1.0)  # λ is uniform: w is half of what was drawn
        mixture = mixup.mix(batch, torch.tensor([[0.4, 0.1, 0.5], [0.6, 0.1, 0.5]]))
        silent = 0.75 * math.log(FLOOR) + 0.25 * 9.0
        torch.testing.assert_close(mixture.F[0, :, 0], torch.tensor([2.0, 3.0, silent]))
        assert torch.equal(mixture.F[1], F[1])
        assert mixture.lengths.tolist() == [3, 3]
        (kept, y), (added, other) = mixture.targets
        assert [kept.tolist(), added.tolist()] == [[0.75, 1.0], [0.25, 0.0]]
        assert torch.equal(other, y[[1, 0]])
        assert mixture.scalars["mixup_weight"] == 0.125

    def test_weights_follow_the_beta_distribution(self) -> None:
        weight = Mixup(shape=0.4).weight((torch.arange(20000) + 0.5) / 20000)
        torch.manual_seed(0)
        samples = torch.distributions.Beta(0.4, 0.4).sample((200000,))
        assert weight.max() <= 0.5
        assert weight.mean().item() == pytest.approx(torch.minimum(samples, 1 - samples).mean().item(), abs=2e-3)


def sizes(delta: Tensor, mask: Tensor) -> Tensor:
    """Return ||δ|| ``[B]``, with δ 0 on padding."""
    assert (delta[~mask] == 0).all()
    return sample_norm(delta, mask)


class TestPerturbations:
    h, lengths, _ = speech_like(5)
    mask = valid_mask(lengths, 24)

    def test_noise_has_its_size_in_any_direction(self) -> None:
        noise = HiddenNoise(epsilon=0.7)
        delta = noise.delta(self.h, self.mask, noise.draws(self.h.shape, 0, 0))
        torch.testing.assert_close(sizes(delta, self.mask), torch.full((5,), 0.7))
        assert sample_norm(delta[:1] - delta[1:2], self.mask[:1]) > 0.5

    def test_pgd_stays_in_the_ball_and_finds_more_than_one_step_there(self) -> None:
        def losses(h: Tensor) -> Tensor:  # a curved ridge: the gradient at the start is not where the ball is highest
            return (h[..., 0] * h[..., 1] + 3 * h[..., 1].square().sin()).masked_fill(~self.mask, 0.0).sum(1)

        pgd = ProjectedGradient(epsilon=2.0)
        delta = pgd.delta(losses, self.h, self.mask)
        assert (sizes(delta, self.mask) <= 2.0 + 1e-5).all()
        one = ProjectedGradient(epsilon=2.0 * 2.5 / 3).delta(losses, self.h, self.mask)
        assert not torch.equal(delta, one)

    def test_pgd_by_hand_about_a_maximum_within_the_ball(self) -> None:
        """From 0 past the maximum at 0.1 to 2.5/3, back to 0, and there again."""
        h, mask = torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
        delta = ProjectedGradient(epsilon=1.0).delta(lambda x: -((x - 0.1) ** 2).sum((1, 2)), h, mask)
        assert delta.item() == pytest.approx(2.5 / 3)

    def test_pgd_on_a_linear_loss_is_the_fast_gradient(self) -> None:
        h, mask = torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.bool)
        slope = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
        delta = ProjectedGradient(epsilon=0.5).delta(lambda x: (x * slope).sum((1, 2)), h, mask)
        torch.testing.assert_close(delta, torch.tensor([[[0.3, 0.0], [0.0, 0.4]]]))

    def test_input_perturbation_is_of_the_frames_that_the_model_encodes(self) -> None:
        model, (F, lengths, y) = reward_model(), speech_like()
        target, leaf = y.argmax(1), F.clone().requires_grad_()
        (g,) = torch.autograd.grad(functional.cross_entropy(model(leaf, lengths), target, reduction="sum"), leaf)
        size = 0.2 * (lengths * F.shape[2]).sqrt()
        pushed = F + size[:, None, None] * g / g.flatten(1).norm(dim=1)[:, None, None]
        terms = objective(model, F, lengths, y, [InputGradient(epsilon=0.2)], [torch.empty(len(y), 0)])
        torch.testing.assert_close(terms["l_input"], functional.cross_entropy(model(pushed, lengths), target).detach())

    def test_input_perturbation_has_its_root_mean_square(self) -> None:
        inputs: list[Tensor] = []

        def losses(F: Tensor) -> Tensor:
            inputs.append(F)
            return F.tanh().masked_fill(~self.mask[..., None], 0.0).sum((1, 2))

        InputGradient(epsilon=0.2).extra(losses, self.h, self.mask, torch.empty(5, 0))
        rms = sizes(inputs[-1] - self.h, self.mask) / (self.lengths * self.h.shape[2]).sqrt()
        torch.testing.assert_close(rms, torch.full((5,), 0.2), rtol=1e-4, atol=1e-4)
