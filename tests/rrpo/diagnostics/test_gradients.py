"""Stage ``gradients``: the measures by hand, on random gradients with known truth, and as a stage on tiny models."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from rrpo.config import GradientsConfig, OptimizeConfig
from rrpo.diagnostics import gradients
from rrpo.diagnostics.gradients import METHODS, Moments, against
from rrpo.optimizers import loop
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.pipeline.errors import Interrupted
from rrpo.pipeline.stages import Context
from rrpo.seeding import uniform
from rrpo.testing.toy_models import optimize_inputs

OPTIMIZE = OptimizeConfig(
    steps=6, batch=8, lr=0.02, warmup=0, beta=0.01, eval_prompts=6, final_prompts=6, checkpoints=()
)
CONFIG = GradientsConfig(optimize=OPTIMIZE, batches=3, reference_batches=4, batch=8, prompts=6, kl=0.02)


def of(*rows: list[float]) -> Moments:
    moments = Moments()
    for row in rows:
        moments.add(torch.tensor(row))
    return moments


def test_moments_by_hand() -> None:
    """(3, 0) and (0, 4) are orthogonal, so the signal is 0; the mean is (1.5, 2), the variance 2 x 6.25."""
    moments = of([3.0, 0.0], [0.0, 4.0])
    assert moments.signal == pytest.approx(0.0)
    assert moments.cosine == pytest.approx(0.0, abs=1e-6)
    assert moments.mean.tolist() == [1.5, 2.0]
    assert moments.variance == pytest.approx(12.5)
    alike = of([1.0, 2.0], [2.0, 4.0])
    assert alike.cosine == pytest.approx(1.0)
    assert alike.signal == pytest.approx(1 * 2 + 2 * 4)


def test_noise_is_taken_out_of_signal_bias_and_alignment() -> None:
    """Truth (1, 0, ...), noise of variance 4 in each of 50 dimensions; the biased method has twice its length and is tilted."""
    generator = torch.Generator().manual_seed(0)
    truth, tilted = torch.zeros(50), torch.zeros(50)
    truth[0], tilted[0], tilted[1] = 1.0, 2.0, 2.0

    def drawn(mean: torch.Tensor, n: int) -> Moments:
        return of(*(mean + 2 * torch.randn(n, 50, generator=generator)).tolist())

    reference = drawn(truth, 4000)
    exact, biased = against(drawn(truth, 4000), reference), against(drawn(tilted, 4000), reference)
    assert exact["variance"] == pytest.approx(200, rel=0.05)
    assert exact["signal"] == pytest.approx(1, abs=0.2)
    assert exact["bias"] == pytest.approx(0, abs=0.1)
    assert exact["alignment"] == pytest.approx(1, abs=0.15)
    assert exact["reference_noise"] == pytest.approx(200 / 4000 / reference.signal, rel=0.05)
    assert biased["bias"] == pytest.approx(1 + 4, rel=0.15)
    assert biased["alignment"] == pytest.approx(2 / math.sqrt(8), abs=0.1)


def test_the_gain_is_that_of_a_step_against_the_mean_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probability 3 a and KL 2 (a^2 + b^2) of parameters (a, b): at a KL of 0.5, the step from 0 against the loss's gradient
    (-3, 0) ends at (0.5, 0), where the gain is 1.5. The gradients are of 24 roll-outs and took 3 seconds."""
    point = torch.nn.Parameter(torch.zeros(2))
    models = SimpleNamespace(policy=SimpleNamespace(max_tokens=1, parameters=lambda: [point]))
    prompts = SimpleNamespace(phones=[0], prefix=torch.zeros(1))
    monkeypatch.setattr(gradients, "RELAXED", None)
    monkeypatch.setattr(gradients, "measured", lambda *args: (of(*3 * [[-3.0, 0.0]]), 3.0))
    monkeypatch.setattr(
        gradients, "measure_policy", lambda *args: (3 * point[0].item(), 2 * point.square().sum().item())
    )
    for row in gradients.compared(models, prompts, prompts, replace(CONFIG, kl=0.5)):  # type: ignore[arg-type]
        assert row["gain"] == pytest.approx(1.5)
        assert row["gain_per_nat"] == pytest.approx(3)
        assert row["gain_per_1000_rollouts"] == pytest.approx(62.5)
        assert row["gain_per_minute"] == pytest.approx(30)


def test_the_stage_on_tiny_models(tmp_path: Path) -> None:
    """All methods at SFT and after two updates, which are reproduced."""
    inputs = optimize_inputs(tmp_path / "toy")
    tables = []
    for name, updates in (("sft", 0), ("later", 2), ("again", 2)):
        (tmp_path / name).mkdir()
        gradients.build(replace(CONFIG, updates=updates), inputs, tmp_path / name, Context())
        table = pd.read_parquet(tmp_path / name / gradients.TABLE)
        tables.append(table.drop(columns=[c for c in table if "minute" in c or "seconds" in c]))
    at_sft, later, again = tables
    swaps = later.set_index("method").filter(like="swap_")
    assert swaps.loc["diffro"].notna().any(axis=None)
    assert swaps.drop("diffro").isna().all(axis=None)
    pd.testing.assert_frame_equal(later, again)
    assert (at_sft["variance"] != later["variance"]).all(), "another policy"
    for table in (at_sft, later):
        assert table["method"].tolist() == [*METHODS]
        assert (table["variance"] > 0).all()
        assert table["kl"].between(0.01, 0.04).all()


def test_measuring_restores_the_policy(tmp_path: Path) -> None:
    """Each method's gradients are taken at the same policy, although a step is tried after each."""
    inputs = optimize_inputs(tmp_path / "toy")
    models = Models.load(inputs, "cpu")
    prompts = (Prompts.load(inputs[name], models) for name in ("rl_prompts", "eval_prompts"))
    current = replace(models, reference=gradients.frozen(models.policy))
    before = parameters_to_vector(models.policy.parameters()).detach().clone()
    assert len(list(gradients.compared(current, *prompts, CONFIG))) == len(METHODS)
    assert torch.equal(parameters_to_vector(models.policy.parameters()), before)


def test_the_policies_are_those_of_the_optimisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After half the updates, which are resumed after the first, the evaluation samples and their measures equal those that a
    whole optimization stores."""
    measured: list[Models] = []
    monkeypatch.setattr(gradients, "compared", lambda current, *rest: measured.append(current) or ())
    inputs = optimize_inputs(tmp_path / "toy")
    (tmp_path / "out").mkdir()
    loop.build(replace(OPTIMIZE, checkpoints=(3,)), inputs, tmp_path / "out", Context())
    asked: list[int] = []
    for stop_after, updates in ((1, 1), (9, 2)):
        asked.clear()
        context = Context(
            checkpoints=tmp_path / "checkpoints", stop=lambda last=stop_after: asked.append(0) or len(asked) == last
        )
        with pytest.raises(Interrupted) if stop_after == 1 else nullcontext():
            gradients.build(replace(CONFIG, updates=3), inputs, tmp_path / "out", context)
        assert len(asked) == updates, "asked once after each update"
    (current,) = measured
    models = replace(current, reference=Models.load(inputs, "cpu").reference)
    evaluation = Prompts.load(inputs["eval_prompts"], models).select(torch.arange(6))
    noise = uniform((models.policy.max_tokens, 6), OPTIMIZE.seed, "evaluation noise")
    stored = pd.read_parquet(tmp_path / "out" / "points.parquet").set_index("step").loc[3]
    expected = stored[["proxy_logprob", "kl_token"]].tolist()
    assert gradients.measure_policy(models, evaluation, noise) == pytest.approx(expected, rel=1e-4)
