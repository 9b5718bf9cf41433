"""Masks, masked reductions and the shared training loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rrpo import config
from rrpo.masking import masked_mean, neighbours, sample_norm, valid_mask, with_eos
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context
from rrpo.training.trainer import SCHEDULES, fit, multiplier


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


def test_the_rate_by_hand() -> None:
    """A warm-up of 4 of 104 updates, then a hundred: constant, linear to zero, or half a cosine to zero."""
    for schedule in SCHEDULES:
        assert [multiplier(step, 104, 4, schedule) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    halfway = {"constant": (1.0, 1.0, 1.0), "linear": (0.75, 0.5, 0.0), "cosine": (0.8535534, 0.5, 0.0)}
    for schedule, expected in halfway.items():
        assert [multiplier(step, 104, 4, schedule) for step in (29, 54, 104)] == pytest.approx(list(expected))
    assert multiplier(0, 104, 0, "linear") == 1.0
    assert multiplier(103, 104, 4, "linear") == pytest.approx(0.01)
    assert multiplier(7, 5, 10, "constant") == 0.8
    assert multiplier(54, 104, 4) == multiplier(54, 104, 4, "cosine")


def test_every_declared_schedule_is_here() -> None:
    assert tuple(SCHEDULES) == config.SCHEDULES


def test_fit_descends_and_reports() -> None:
    x = nn.Parameter(torch.tensor(3.0))
    reports: list[tuple[int, int]] = []
    losses = fit([x], lambda step: x**2, 50, 0.2, Context(report=lambda done, total: reports.append((done, total))))
    assert losses[0] == 9.0
    assert losses[-1] < 0.1
    assert reports == [(step + 1, 50) for step in range(50)]


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


def test_eos_follows_the_last_token_of_each_row() -> None:
    tokens = torch.tensor([[4, 5, 6], [7, 0, 0], [0, 0, 0]])
    assert with_eos(tokens, torch.tensor([3, 1, 0]), 9).tolist() == [[4, 5, 6, 9], [7, 9, 0, 0], [9, 0, 0, 0]]
