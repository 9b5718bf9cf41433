"""The probes at h' against finite differences and Eq. 4, and their invariances."""

import dataclasses

import pytest
import torch

from rrpo.config import OFF, RewardModelConfig
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.probe import probe, probe_statistics

TARGET = torch.tensor([0, 1, 2, 1])
LENGTHS = torch.tensor([3, 8, 12, 12])


@pytest.fixture
def model() -> RewardModel:
    torch.manual_seed(0)
    config = RewardModelConfig(dim=16, layers=1, heads=2)
    return RewardModel(config, ("a", "b", "c"), 6, 1e-5, OFF).eval().requires_grad_(False)


@pytest.fixture(name="F")
def frames() -> torch.Tensor:
    return torch.randn(4, 12, 6, generator=torch.Generator().manual_seed(1))


def test_the_gradient_norm_is_the_steepest_slope(model: RewardModel, F: torch.Tensor) -> None:
    """A small absolute δ raises the loss by ||δ|| ||g||, to first order; no other direction of that size raises it more."""
    tiny = 1e-2
    model.regularizers = dataclasses.replace(OFF, epsilon_adv=tiny)
    values = probe(model, F, LENGTHS, TARGET)
    assert torch.allclose((values["l_adv"] - values["l_emo"]) / tiny, values["grad_h"], rtol=0.05, atol=1e-3)
    h, mask = model.encode(F, LENGTHS)
    for seed in range(5):
        push = torch.randn(h.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(~mask[..., None], 0.0)
        push = tiny * push / push.flatten(1).norm(dim=1)[:, None, None]
        loss = torch.nn.functional.cross_entropy(model.classify(h + push, mask), TARGET, reduction="none")
        assert bool((loss <= values["l_adv"]).all())


def test_relative_delta_is_the_share_of_h_that_is_pushed(model: RewardModel, F: torch.Tensor) -> None:
    model.regularizers = dataclasses.replace(OFF, adv_norm="relative", epsilon_adv=0.03)
    assert torch.allclose(probe(model, F, LENGTHS, TARGET)["relative_delta"], torch.full((4,), 0.03), rtol=1e-3)


def test_padding_and_neighbours_change_nothing_and_the_proxy_is_the_models_own(
    model: RewardModel, F: torch.Tensor
) -> None:
    values = probe(model, F, LENGTHS, TARGET)
    alone = probe(model, F[:1, :3], LENGTHS[:1], TARGET[:1])
    for name in values:
        assert torch.allclose(values[name][:1], alone[name], atol=1e-5), name
    assert torch.allclose(values["proxy"], model(F, LENGTHS).log_softmax(1), atol=1e-6)
    row = probe_statistics(values)
    assert row["proxy_l_adv_over_l_emo"] == pytest.approx(float(values["l_adv"].sum() / values["l_emo"].sum()))
    assert row["proxy_grad_h"] == pytest.approx(float(values["grad_h"].mean()))
