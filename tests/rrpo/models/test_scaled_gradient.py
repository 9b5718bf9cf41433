"""A scaled gradient: the value is unchanged; a negative scale reverses the gradient, 1 changes no bit."""

import pytest
import torch

from rrpo.models.scaled_gradient import scale_gradient


@pytest.mark.parametrize(("scale", "expected"), [(0.0, [0.0, 0.0]), (0.5, [1.5, 1.5]), (-2.0, [-6.0, -6.0])])
def test_the_value_is_kept_and_the_gradient_scaled(scale: float, expected: list[float]) -> None:
    x = torch.tensor([0.1, -3.0], requires_grad=True)
    y = scale_gradient(x, scale)
    assert torch.equal(y, x)
    (3 * y).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == expected


def test_a_scale_of_one_changes_no_bit() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.equal(scale_gradient(x, 1.0), x)
    slopes = [torch.autograd.grad(y.sin().sum(), x)[0] for y in (x, scale_gradient(x, 1.0))]
    assert torch.equal(*slopes)
