"""GPU results equal CPU results up to rounding: optimizers, stacks of policies, regularizers, judges.

``RRPO_TEST_DEVICE=cpu`` runs these tests without a GPU; that shows only that they run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rrpo.judges.artefacts import detect
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.optimizers import OPTIMIZERS
from rrpo.optimizers.rollout import Models
from rrpo.pipeline.executor import Executor
from rrpo.regularizers import REGULARIZERS, objective
from rrpo.stacking.policies import StackedPolicy
from rrpo.testing.judges import AUDIO, EMOTIONS, toy_speech
from rrpo.testing.optimizers import OptimizerContract
from rrpo.testing.regularizers import reward_model, speech_like
from rrpo.testing.toy_models import optimize_inputs, toy_policy

DEVICE = os.environ.get("RRPO_TEST_DEVICE", "cuda")

pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(),
    reason="no GPU: CPU/CUDA agreement of optimisers, stacks, regularisers and judges",
)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Within a thousandth of the norm of the whole tensor."""
    assert float((actual.cpu() - expected).norm()) <= 1e-3 * float(expected.norm()) + 1e-6


def contract(name: str, device: str = DEVICE) -> OptimizerContract:
    options: dict[str, Any] = {"pairs": "samples", "texts": 8} if name == "emo-dpo" else {}  # toy models have no speech
    choice = OPTIMIZERS.choice(name, **options)
    instance: OptimizerContract = type("OnDevice", (OptimizerContract,), {"choice": choice, "device": device})()
    return instance


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimisers_gradient(name: str, tmp_path: Path) -> None:
    inputs = optimize_inputs(tmp_path)

    def gradient(device: str) -> Tensor:
        on_device = contract(name, device)
        config = on_device.config(beta=0.1, content_weight=0.5)
        return on_device.gradient(Models.load(inputs, device), inputs, config).cpu()

    assert_near(gradient(DEVICE), gradient("cpu"))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_deterministic_gradient_has_the_same_bits_again(name: str, tmp_path: Path) -> None:
    inputs = optimize_inputs(tmp_path)
    instance = contract(name)
    config = instance.config(beta=0.1, content_weight=0.5)
    with Executor(deterministic=True).applied():
        once, again = (instance.gradient(Models.load(inputs, DEVICE), inputs, config) for _ in range(2))
    assert torch.equal(once, again)


def test_a_stacks_samples_and_scores() -> None:
    """The token step is replayed from a CUDA graph."""
    prefix = torch.tensor([[0, 3, 6, 2, 7], [3, 5, 2, 8, 7]])
    noise = torch.rand((8, 2), generator=torch.Generator().manual_seed(0))
    alone = toy_policy()
    stack = StackedPolicy([toy_policy().to(DEVICE) for _ in range(2)])
    expected = alone.sample(prefix, noise)
    samples = stack.sample([0, 1], [prefix.to(DEVICE)] * 2, [noise.to(DEVICE)] * 2)
    scores = alone.packed_logits(prefix, expected.tokens, expected.counts).detach()
    on_device = [[value.to(DEVICE)] * 2 for value in (prefix, expected.tokens, expected.counts)]
    for rollout, logits in zip(samples, stack.packed_logits([0, 1], *on_device), strict=True):
        assert torch.equal(rollout.tokens.cpu(), expected.tokens)
        assert torch.equal(rollout.lengths.cpu(), expected.lengths)
        assert_near(logits.detach(), scores)


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_a_regularisers_objective_and_gradient(name: str) -> None:
    regularizer = REGULARIZERS[name]
    F, lengths, y = speech_like()
    draws = regularizer.draws(F.shape, 0, 0)

    def terms(device: str) -> dict[str, Tensor]:
        model = reward_model().to(device)
        arguments = [value.to(device) for value in (F, lengths, y)]
        values = objective(model, *arguments, [regularizer], [draws.to(device)])  # type: ignore[arg-type]
        values["loss"].backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        return values | {"gradient": gradient}

    expected = terms("cpu")
    for term, values in terms(DEVICE).items():
        assert_near(values.detach(), expected[term].detach())


def _judge(architecture: str) -> Callable[[str], Callable[[Tensor, Tensor], Any]]:
    def make(device: str) -> Callable[[Tensor, Tensor], Any]:
        torch.manual_seed(0)
        return Judge(JudgeConfig(architecture=architecture, dim=16), EMOTIONS, AUDIO).to(device).eval().log_probs

    return make


def _recogniser(device: str) -> Callable[[Tensor, Tensor], Any]:
    torch.manual_seed(0)
    recogniser = Recogniser(RecogniserConfig(dim=16), ("a", "b"), AUDIO.n_mels).to(device).eval()
    return lambda F, lengths: recogniser.ctc_loss(F, lengths, [("a", "b", "b")] * len(F)).detach()


def _artefacts(device: str) -> Callable[[Tensor, Tensor], Any]:
    return lambda F, lengths: torch.stack(list(detect(F, lengths, AUDIO).values())).float()


HEARING = {
    "val": _judge("conv_gru"),
    "test": _judge("stats_tdnn"),
    "recogniser": _recogniser,
    "artefacts": _artefacts,
}


@pytest.mark.parametrize("name", HEARING)
def test_what_a_judge_hears(name: str) -> None:
    make = HEARING[name]
    F, lengths = toy_speech()[0].batch(torch.arange(8))
    with torch.no_grad():
        assert_near(make(DEVICE)(F.to(DEVICE), lengths.to(DEVICE)), make("cpu")(F, lengths))
