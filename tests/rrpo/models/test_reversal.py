"""Gradient reversal: the value is unchanged, the gradient is reversed and scaled."""

import pytest
import torch

from rrpo.models.reversal import reversed_gradient


@pytest.mark.parametrize(("scale", "expected"), [(0.0, [0.0, 0.0]), (0.5, [-1.5, -1.5]), (2.0, [-6.0, -6.0])])
def test_the_value_stays_and_the_gradient_is_reversed(scale: float, expected: list[float]) -> None:
    x = torch.tensor([0.1, -3.0], requires_grad=True)
    y = reversed_gradient(x, scale)
    assert torch.equal(y, x)
    (3 * y).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == expected
