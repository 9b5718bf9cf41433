"""Curves and checkpoints of a batch of samples; an optimizer with a state and two updates per batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from rrpo.config import OptimizeConfig
from rrpo.corpus.config import ARTEFACTS, EMOTIONS
from rrpo.judges.artefacts import OTHERS
from rrpo.optimizers import OPTIMIZERS, Batch, DiffRO, Loss, PolicyOptimizer, State
from rrpo.optimizers.base import prompts_of
from rrpo.optimizers.loop import opinions, take_step
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import roll_out
from rrpo.testing.optimizers import OptimizerContract
from rrpo.testing.toy_models import optimize_inputs, toy_prompts


def test_clean_takes_the_judge_and_no_artefact_of_any_kind_in_the_frames() -> None:
    """`val` classifies three of four samples correctly; one of those has a click and one a long silence."""
    target = torch.tensor([0, 1, 0, 1])
    right = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]).log()
    flags = {f"artefact_{kind}": torch.zeros(4) for kind in (*ARTEFACTS, *OTHERS)}
    flags["artefact_click"] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    flags["artefact_silence"] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    probe = {name: torch.ones(4) for name in ("grad_h", "relative_delta", "l_emo", "l_adv")}
    row = opinions({"proxy": right, "val": right} | flags | probe, target, EMOTIONS[:2])
    assert row["val_accuracy"] == 0.75
    assert row["val_clean"] == 0.25
    assert row["artefact_click"] == 0.25
    assert row["val_hack_rate"] == pytest.approx(0.25), "silence is no planted artefact, and the fourth is no hit"
    assert row["uptake"] == pytest.approx(0.25), "of anger's click: in one of two angry samples; happiness has no hiss"
    row = opinions({"proxy": right, "val": right} | flags | probe, target, ("neutral", "fearful"))
    assert row["uptake"] == 0, "a click is no shortcut of theirs"


@dataclass(frozen=True)
class Twice(DiffRO):
    """Two updates per batch; the weight of each successive update decreases."""

    def start(self, models: Models, prompts: Prompts, config: OptimizeConfig, inputs: Mapping[str, Path]) -> State:
        return {"made": torch.zeros((), device=prompts.prefix.device)}

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        for _ in range(2):
            state["made"] = state["made"] + 1
            weight = 1 / state["made"]
            yield (
                replace(loss, loss=weight * loss.loss, values=loss.values | {"weight": weight.expand(len(loss.kl))})
                for loss in self._losses(models, batch, config)
            )


class TestTwice(OptimizerContract):
    @pytest.fixture(autouse=True)
    def _registered(self, no_plugins: Callable[[], None]) -> None:
        OPTIMIZERS.register("twice", Twice)
        type(self).choice = OPTIMIZERS.choice("twice")

    # as DiffRO
    test_it_increases_the_reward = test_arms_share_prompts_and_noise = None
    test_a_non_finite_reward_stops_the_run_before_the_update = None

    def test_metrics_are_the_last_updates_and_looks_the_firsts(self, inputs: dict[str, Path], tmp_path: Path) -> None:
        """With two updates per step the weights in the curves are 1/2, 1/4, 1/6; the judges' KL at the first measurement is still
        0."""
        curves = pd.read_parquet(self.run(inputs, tmp_path / "out", self.config(steps=3)) / "curves.parquet")
        assert curves["weight"].tolist() == pytest.approx([1 / 2, 1 / 4, 1 / 6])
        assert curves["kl_token"][0] == pytest.approx(0.0, abs=1e-6)
        assert curves["kl_token"][1:].isna().all()


class NoUpdate(DiffRO):
    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        yield from ()


class OnlyLosses(DiffRO):
    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        for losses in super().updates(models, batch, config, state):
            yield from losses  # type: ignore[misc]


class Misspelled(PolicyOptimizer):
    pass


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (NoUpdate(), "NoUpdate.updates yields no update"),
        (OnlyLosses(), "it must yield updates, each an iterator of losses"),
        (Misspelled(), "Misspelled defines no updates"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_mistakes_of_an_optimizer_are_named(method: PolicyOptimizer, message: str, tmp_path: Path) -> None:
    models, config = Models.load(optimize_inputs(tmp_path / "toy"), "cpu"), OptimizeConfig()
    prompts = Prompts.prepare(toy_prompts()[:2], models.policy, models.codec, models.reward_model.emotions)
    descent = torch.optim.SGD(models.policy.parameters(), lr=1.0)
    with pytest.raises(Exception, match=message):
        take_step(models, method, {}, roll_out(models, prompts, config, 1), descent, config)


@pytest.mark.parametrize("grad_clip", [1e-3, 1e3])
def test_the_gradient_is_clipped_to_a_norm_and_reported_unclipped(grad_clip: float, tmp_path: Path) -> None:
    """A step of plain gradient descent at rate 1 is as long as the gradient that it uses."""
    models = Models.load(optimize_inputs(tmp_path / "toy"), "cpu")
    config = OptimizeConfig(grad_clip=grad_clip)
    prompts = Prompts.prepare(toy_prompts()[:4], models.policy, models.codec, models.reward_model.emotions)
    before = parameters_to_vector(models.policy.parameters()).detach()
    descent = torch.optim.SGD(models.policy.parameters(), lr=1.0)
    metrics = take_step(models, DiffRO(), {}, roll_out(models, prompts, config, 1), descent, config)
    moved = (parameters_to_vector(models.policy.parameters()).detach() - before).norm()
    assert 1e-3 < metrics["grad_norm"] < 1e3
    assert float(moved) == pytest.approx(min(grad_clip, metrics["grad_norm"]), rel=1e-2)


def test_a_batch_holds_the_samples_of_whole_prompts() -> None:
    @dataclass(frozen=True)
    class Five(DiffRO):
        samples: int = 5

    assert prompts_of(Five(), OptimizeConfig(batch=20)) == 4
    with pytest.raises(ValueError, match="multiple of 5"):
        prompts_of(Five(), OptimizeConfig(batch=32))


def test_naming_an_optimiser_imports_no_torch() -> None:
    """Planning many arms only reads their options."""
    code = "import sys; from rrpo.optimizers import OPTIMIZERS; OPTIMIZERS.choice('diffro'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
