"""Contract tests of a regularizer. Subclass `RegularizerContract` with an instance as its attribute; needs pytest.

>>> class TestFocalLoss(RegularizerContract):
...     regularizer = FocalLoss()
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rrpo.config import RewardModelConfig
from rrpo.masking import valid_mask
from rrpo.models.reward_model import RewardModel
from rrpo.regularizers import REGULARIZERS, Regularizer, cross_entropy, objective, scalars_of

FLOOR = 1e-5
"""Smallest mel power."""
B, T, M, K = 8, 24, 6, 3
"""Samples, frames, mels and emotions of the batch."""


def reward_model(seed: int = 0) -> RewardModel:
    """Return a small model without dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = RewardModelConfig(dim=16, layers=1, heads=2, dropout=0.0)
        return RewardModel(config, tuple("abc"[:K]), M, FLOOR)


def speech_like(batch: int = B, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return random frames ``[B, T, M]`` of unequal lengths ``[B]``, padded with the floor, and one-hot labels ``[B, K]``."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, T + 1, (batch,), generator=generator)
    lengths[0] = T
    F = 2 * torch.randn(batch, T, M, generator=generator)
    F = F.masked_fill(~valid_mask(lengths, T)[..., None], math.log(FLOOR))
    return F, lengths, torch.eye(K)[torch.arange(batch) % K]


def terms(
    regularizers: Sequence[Regularizer], model: RewardModel, F: Tensor, lengths: Tensor, y: Tensor, step: int = 0
) -> dict[str, Tensor]:
    """Return the objective of regularizers, with their noise of one step."""
    return objective(model, F, lengths, y, regularizers, [r.draws(F.shape, 0, step) for r in regularizers])


def trained(regularizer: Regularizer | None, steps: int = 4) -> dict[str, Tensor]:
    """Return parameters after some updates of the regularized objective; without a regularizer, of the mean cross-entropy."""
    model, (F, lengths, y) = reward_model(), speech_like()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        if regularizer is None:
            cross_entropy(model(F, lengths), y).mean().backward()
        else:
            terms([regularizer], model, F, lengths, y, step)["loss"].backward()
        optimizer.step()
    return model.state_dict()


class RegularizerContract:
    """Properties that every regularizer must have."""

    regularizer: Regularizer
    """The regularizer under test, with strengths at which it has an effect."""

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Use one thread, as workers do; it is also faster for small tensors."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    @property
    def off(self) -> Regularizer:
        """Return the same regularizer at its identity values."""
        return replace(self.regularizer, **self.regularizer.off_values)

    def test_it_can_be_switched_off(self) -> None:
        assert self.off.is_off
        assert not self.regularizer.is_off

    def test_off_is_plain_fine_tuning_bit_for_bit(self) -> None:
        plain, off = trained(None), trained(self.off)
        assert all(torch.equal(plain[key], off[key]) for key in plain)

    def test_on_changes_what_is_learnt(self) -> None:
        plain, on = trained(None), trained(self.regularizer)
        assert any(not torch.equal(plain[key], on[key]) for key in plain)

    def test_it_acts_after_the_papers_and_keeps_what_they_measure(self) -> None:
        own = [r for r in REGULARIZERS.values() if r.paper and type(r) is not type(self.regularizer)]
        combined = [*own, self.regularizer]
        result = terms(combined, reward_model(), *speech_like())
        assert set(scalars_of(combined)) <= result.keys()
        assert torch.isfinite(result["loss"])

    def test_noise_depends_on_seed_and_step_alone(self) -> None:
        shape = torch.Size((B, T, M))
        draws, off = self.regularizer.draws(shape, 3, 5), self.off.draws(shape, 3, 5)
        assert len(draws) == B, "the first axis is the sample"
        assert torch.equal(draws, off)
        assert torch.equal(draws, self.regularizer.draws(shape, 3, 5))
        if draws.numel():
            assert not torch.equal(draws, self.regularizer.draws(shape, 3, 6))
            assert not torch.equal(draws, self.regularizer.draws(shape, 4, 5))

    def test_global_random_numbers_are_left_alone(self) -> None:
        model, state = reward_model(), torch.get_rng_state()
        terms([self.regularizer], model, *speech_like())
        assert torch.equal(state, torch.get_rng_state())

    def test_gradient_reaches_every_parameter(self) -> None:
        model = reward_model()
        terms([self.regularizer], model, *speech_like())["loss"].backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    @pytest.mark.parametrize("level", [math.log(FLOOR), 0.0, 80.0, -80.0])
    def test_finite_on_extreme_input(self, level: float) -> None:
        """Constant frames, very short utterances, and logits so far apart that probabilities are 0 and 1."""
        model, (F, _, y) = reward_model(), speech_like()
        with torch.no_grad():
            model.head.weight *= 1e4
        scalars = terms([self.regularizer], model, F * 0 + level, torch.tensor([1, 1, 2, 3, T, T, T, 1]), y)
        scalars["loss"].backward()
        assert all(value.isfinite() for value in scalars.values())
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)

    def test_padding_changes_nothing(self) -> None:
        model, (F, lengths, y) = reward_model(), speech_like()
        wide = torch.cat([F, torch.full((B, 7, M), 5.0)], dim=1)
        narrow, padded = (terms([self.regularizer], model, x, lengths, y) for x in (F, wide))
        for name in narrow:
            torch.testing.assert_close(narrow[name], padded[name], rtol=1e-5, atol=1e-6)

    def test_shifting_batch_and_noise_together_changes_nothing(self) -> None:
        model, batch = reward_model(), speech_like()
        draws = self.regularizer.draws(batch[0].shape, 0, 0)
        F, lengths, y = (part.roll(3, 0) for part in batch)
        first = objective(model, *batch, [self.regularizer], [draws])
        shifted = objective(model, F, lengths, y, [self.regularizer], [draws.roll(3, 0)])
        for name in first:
            torch.testing.assert_close(first[name], shifted[name], rtol=1e-5, atol=1e-6)

    def test_it_returns_the_declared_scalars(self) -> None:
        scalars = terms([self.regularizer], reward_model(), *speech_like())
        assert sorted(scalars) == sorted(scalars_of([self.regularizer]))
        assert all(value.shape == () for value in scalars.values())
        assert not any(value.requires_grad for name, value in scalars.items() if name != "loss")

    def test_measures_are_declared_exactly_if_measure_is_overridden(self) -> None:
        assert bool(self.regularizer.measures) == (type(self.regularizer).measure is not Regularizer.measure)

    def test_strengths_out_of_range_are_rejected(self) -> None:
        for knob in self.regularizer.own_knobs():
            outside = [math.nan, math.inf, *(limit + sign for limit, sign in zip(knob.limits, (-1, 1), strict=True))]
            for value in outside:
                with pytest.raises(ValueError, match=knob.name):
                    replace(self.regularizer, **{knob.name: value})

    def test_search_ranges_contain_the_strengths(self) -> None:
        knobs = self.regularizer.knobs()
        strengths = self.regularizer.at({knob.name: knob.on for knob in knobs})
        assert replace(self.off, **strengths) == self.regularizer
        for knob in knobs:
            assert knob.low <= knob.on <= knob.high
            assert knob.off is None or knob.low <= knob.off <= knob.high
            assert knob.limits[0] <= knob.low < knob.high <= knob.limits[1]
