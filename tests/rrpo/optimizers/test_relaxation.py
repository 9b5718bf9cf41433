"""The relaxation: the sample always wins, marginals are right, the gradient follows the formula, and its bias is known."""

import pytest
import torch
from scipy import stats

from rrpo import config
from rrpo.optimizers.relaxation import RELAXATIONS, conditional_gumbel, soft_tokens, straight_through, temperature
from rrpo.seeding import uniform


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return uniform(shape, seed, "test noise")


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 100.0])
def test_the_sampled_token_always_wins(scale: float) -> None:
    """Also for a nearly impossible sample: no ties and no NaN."""
    logits = scale * torch.randn(2000, 12, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(12, (2000,), generator=torch.Generator().manual_seed(2))
    perturbed = logits + conditional_gumbel(logits, tokens, draw(2000, 12))
    assert torch.equal(perturbed.argmax(-1), tokens)
    assert torch.isfinite(perturbed).all()


def test_noise_over_sampled_tokens_is_gumbel_noise() -> None:
    """Sampling a token and then noise given the token equals drawing Gumbel noise: check each class's marginal."""
    n, logits = 20_000, torch.tensor([1.0, 0.0, -1.0, 0.5])
    tokens = torch.multinomial(logits.softmax(0), n, replacement=True, generator=torch.Generator().manual_seed(3))
    noise = conditional_gumbel(logits.expand(n, -1), tokens, draw(n, 4, seed=4))
    for k in range(4):
        assert stats.kstest(noise[:, k].numpy(), "gumbel_r").pvalue > 1e-3


def test_forward_is_hard_and_backward_is_the_soft_gradient() -> None:
    """Through a codebook of three coordinates: rows of the sampled tokens, and the gradient of the mean row."""
    logits = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(7), requires_grad=True)
    tokens = logits.detach().argmax(-1)
    noise, weight = draw(3, 4, 6), torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(8))
    codebook = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))
    out = straight_through(soft_tokens(logits, tokens, noise, 0.9), tokens, codebook)
    assert torch.equal(out, codebook[tokens])
    (gradient,) = torch.autograd.grad((out * weight).sum(), logits)
    noise_g = conditional_gumbel(logits.detach(), tokens, noise)
    written = torch.autograd.functional.jacobian(
        lambda x: (((x + noise_g) / 0.9).softmax(-1) @ codebook * weight).sum(), logits.detach()
    )
    assert torch.allclose(gradient, written, atol=1e-6)


def test_the_gradient_of_the_probabilities_by_hand() -> None:
    """Logits (0, ln 3) at tau 1: p = (1/4, 3/4), and d p_0 / d logits = (p_0 p_1, -p_0 p_1) = (3/16, -3/16); at tau 1/2,
    p = (1/10, 9/10), twice (9/100, -9/100)."""
    logits = torch.tensor([[1.0, 3.0]]).log().requires_grad_()
    tokens, noise = torch.tensor([1]), draw(1, 2)
    for tau, probability, slope in ((1.0, 1 / 4, 3 / 16), (0.5, 1 / 10, 18 / 100)):
        soft = soft_tokens(logits, tokens, noise, tau, "probabilities")
        assert soft[0, 0].item() == pytest.approx(probability)
        (gradient,) = torch.autograd.grad(straight_through(soft, tokens, torch.eye(2))[0, 0], logits)
        assert gradient[0].tolist() == pytest.approx([slope, -slope])


def test_every_declared_relaxation_is_here() -> None:
    assert tuple(RELAXATIONS) == tuple(config.RELAXATIONS)


def enumerate_gradient(logits: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    """Exact gradient of E[reward[token_0, token_1]] for independent tokens ``logits [2, V]``."""
    logits = logits.clone().requires_grad_(True)
    p = logits.softmax(-1)
    (gradient,) = torch.autograd.grad((p[0][:, None] * p[1][None] * reward).sum(), logits)
    return gradient


def relaxed_gradient(logits: torch.Tensor, reward: torch.Tensor, tau: float, n: int = 40_000) -> torch.Tensor:
    """Mean relaxed-only (no straight-through) gradient of the bilinear reward over n samples."""
    logits = logits.clone().requires_grad_(True)
    tokens = torch.multinomial(
        logits.detach().softmax(-1), n, replacement=True, generator=torch.Generator().manual_seed(9)
    ).T
    soft = soft_tokens(logits.expand(n, -1, -1), tokens, draw(n, *logits.shape, seed=10), tau)
    value = torch.einsum("ni,nj,ij->n", soft[:, 0], soft[:, 1], reward).mean()
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient


def test_cosine_with_the_exact_gradient_rises_to_one_as_tau_falls() -> None:
    """On independent tokens. The reparameterized gradient of conditional noise is unbiased only as tau -> 0."""
    generator = torch.Generator().manual_seed(11)
    logits, reward = torch.randn(2, 4, generator=generator), torch.randn(4, 4, generator=generator)
    exact = enumerate_gradient(logits, reward).flatten()
    cosines = [
        torch.nn.functional.cosine_similarity(relaxed_gradient(logits, reward, tau).flatten(), exact, dim=0).item()
        for tau in (5.0, 1.0, 0.2)
    ]
    print("cosine with the exact gradient at tau 5, 1, .2:", [round(c, 4) for c in cosines])
    assert cosines[0] < cosines[2]
    assert cosines[2] > 0.98


def test_temperature_schedule_is_in_equal_parts() -> None:
    assert [temperature(step, 6, (2.0, 1.0, 0.8)) for step in range(6)] == [2.0, 2.0, 1.0, 1.0, 0.8, 0.8]
    assert temperature(5, 6, (1.0,)) == 1.0


def test_a_temperature_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="tau must be positive, got 0"):
        soft_tokens(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long), draw(1, 1, 2), 0.0)
