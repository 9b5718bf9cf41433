"""Masks, masked reductions and the training loop that all models share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rrpo.failures import DivergedError
from rrpo.masking import masked_mean, neighbours, sample_norm, valid_mask
from rrpo.stages import Context
from rrpo.training import constant, cosine, fit, warmed


def test_valid_mask_by_hand() -> None:
    expected = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    assert torch.equal(valid_mask(torch.tensor([2, 0, 3]), 3), expected)


def test_masked_mean_ignores_padding() -> None:
    values = torch.tensor([[1.0, 3.0, math.nan], [math.inf, 7.0, 7.0]])
    assert torch.equal(masked_mean(values, valid_mask(torch.tensor([2, 0]), 3)), torch.tensor([2.0, 0.0]))


def test_sample_norm_ignores_padding() -> None:
    values = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [1e9, 1e9]]])
    assert sample_norm(values, valid_mask(torch.tensor([2]), 3)).tolist() == [5.0]


def test_neighbours_by_hand() -> None:
    x = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert neighbours(x, 3).tolist() == [[[0, 1, 2], [1, 2, 3], [2, 3, 0]]]
    assert neighbours(x, 3, dilation=2).tolist() == [[[0, 1, 3], [0, 2, 0], [1, 3, 0]]]
    assert neighbours(x, 3, stride=2).tolist() == [[[0, 1, 2], [2, 3, 0]]]


@pytest.mark.parametrize(("width", "dilation", "stride"), [(5, 1, 1), (3, 4, 1), (5, 1, 2), (1, 1, 1)])
def test_a_linear_map_of_neighbours_is_a_convolution(width: int, dilation: int, stride: int) -> None:
    x, conv = torch.randn(2, 9, 4), nn.Conv1d(4, 6, width, stride, dilation * (width // 2), dilation)
    expected = conv(x.transpose(1, 2)).transpose(1, 2)
    weight = conv.weight.permute(0, 2, 1).flatten(1)
    torch.testing.assert_close(
        nn.functional.linear(neighbours(x, width, dilation, stride), weight, conv.bias), expected
    )


def test_warmed_rises_to_one_and_stays() -> None:
    assert [warmed(step, 4) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert warmed(0, 0) == 1.0


def test_cosine_falls_from_one_to_zero_after_the_warmup() -> None:
    assert [cosine(step, 104, warmup=4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert cosine(4, 104, warmup=4) == 1.0
    assert cosine(54, 104, warmup=4) == pytest.approx(0.5)
    assert cosine(104, 104, warmup=4) == 0.0
    assert constant(54, 104) == 1.0


def test_fit_descends_and_reports() -> None:
    x = nn.Parameter(torch.tensor(3.0))
    told: list[tuple[int, int]] = []
    losses = fit([x], lambda step: x**2, 50, 0.2, Context(report=lambda done, total: told.append((done, total))))
    assert losses[0] == 9.0
    assert losses[-1] < 0.1
    assert told == [(step + 1, 50) for step in range(50)]


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_fit_stops_before_the_update_that_diverges(poison: float) -> None:
    x = nn.Parameter(torch.tensor(3.0))
    before: list[float] = []

    def loss(step: int) -> Tensor:
        before.append(x.item())
        return x * (poison if step == 2 else 1.0)

    with pytest.raises(DivergedError, match="step 3 of 5"):
        fit([x], loss, 5, 0.1, Context())
    assert x.item() == before[2]
