"""Contract tests of a policy optimizer, on tiny models: `OptimizerContract`."""

from __future__ import annotations

import dataclasses
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.optimizers import OPTIMIZERS, Batch, PolicyOptimizer, loop
from rrpo.optimizers.base import prompts_of
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import roll_out
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context
from rrpo.plugins import Choice, PluginError
from rrpo.testing.toy_models import optimize_inputs


class Killed(BaseException):
    """Simulates a kill during a build. Not an Exception, so that no handler catches it."""


class OptimizerContract:
    """Subclass it as ``Test...`` and set the optimizer: ``choice = OPTIMIZERS.choice("mine")``."""

    choice: ClassVar[Choice]
    """The optimizer under test."""
    lr: ClassVar[float] = 0.02
    """Learning rate with which it solves the toy problem within the steps below."""
    steps: ClassVar[int] = 60
    device: ClassVar[str] = "cpu"

    @pytest.fixture(autouse=True)
    def one_thread(self) -> Iterator[None]:
        """Limit torch to one thread, which is faster for tiny tensors."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    @pytest.fixture(scope="class")
    @classmethod
    def inputs(cls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
        """Return folders of tiny, untrained models by role."""
        return optimize_inputs(tmp_path_factory.mktemp("toy"))

    @pytest.fixture
    def models(self, inputs: dict[str, Path]) -> Models:
        """Return the loaded models."""
        return Models.load(inputs, self.device)

    @pytest.fixture
    def method(self) -> PolicyOptimizer:
        """Return the optimizer."""
        return OPTIMIZERS.create(self.choice)

    def config(self, **changes: Any) -> OptimizeConfig:
        """Return a config with six short steps and only the emotion reward."""
        samples = OPTIMIZERS.create(self.choice).samples
        settings: dict[str, Any] = {"steps": 6, "batch": samples * max(1, 8 // samples), "lr": self.lr, "warmup": 0}
        settings |= {"beta": 0.0, "content_weight": 0.0, "checkpoints": (), "eval_prompts": 6, "final_prompts": 6}
        return OptimizeConfig(**({"optimizer": self.choice} | settings | changes))

    def batch(self, models: Models, inputs: dict[str, Path], config: OptimizeConfig) -> Batch:
        """Return the roll-outs of step 1."""
        method = OPTIMIZERS.create(config.optimizer)
        rows = torch.arange(prompts_of(method, config)).repeat(method.samples)
        return roll_out(models, Prompts.load(inputs["rl_prompts"], models).select(rows.to(self.device)), config, 1)

    def gradient(self, models: Models, inputs: dict[str, Path], config: OptimizeConfig) -> Tensor:
        """Return the gradient of the first update on that batch, all parameters concatenated."""
        method, batch = OPTIMIZERS.create(config.optimizer), self.batch(models, inputs, config)
        state = method.start(models, Prompts.load(inputs["rl_prompts"], models), config, inputs)
        models.policy.zero_grad()  # type: ignore[attr-defined]
        for part in next(iter(method.updates(models, batch, config, state))):
            torch.autograd.backward(part.loss)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in models.policy.parameters()]
        return torch.cat([gradient.flatten() for gradient in gradients])

    def run(self, inputs: dict[str, Path], out: Path, config: OptimizeConfig, **context: Any) -> Path:
        """Run a whole stage ``optimize`` that writes into the new folder ``out``."""
        out.mkdir()
        loop.build(config, inputs, out, Context(device=self.device, **context))
        return out

    def test_it_is_a_frozen_dataclass_and_its_options_are_checked(self, method: PolicyOptimizer) -> None:
        assert dataclasses.is_dataclass(method), "its options must be the fields of a dataclass"
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, "samples", 1)  # noqa: B010 - mypy knows that it is frozen
        assert method.samples >= 1
        with pytest.raises(PluginError, match="no such option"):
            OPTIMIZERS.choice(self.choice.name, no_such_option=1)

    def test_a_constant_reward_gives_no_gradient(self, models: Models, inputs: dict[str, Path]) -> None:
        """Without KL or content terms the gradient vanishes: neither the length nor anything else may change."""
        config = self.config()
        varying = self.gradient(models, inputs, config).norm()
        torch.nn.init.zeros_(models.reward_model.head.weight)
        constant = self.gradient(models, inputs, config).norm()
        assert float(varying) > 0, "the reward gives no gradient at all"
        assert float(constant) <= 1e-4 * float(varying), "a reward that is equal for all samples changes the policy"

    def test_beta_adds_a_gradient_away_from_the_reference(self, models: Models, inputs: dict[str, Path]) -> None:
        """Away from the reference, β adds its own gradient."""
        with torch.no_grad():
            for parameter in models.policy.parameters():
                parameter.mul_(1.1)
        plain, penalized = (self.gradient(models, inputs, self.config(beta=beta)) for beta in (0.0, 10.0))
        assert float((penalized - plain).norm()) > 1e-3 * float(plain.norm()), "β has no effect"

    def test_its_noise_is_keyed(self, models: Models, inputs: dict[str, Path]) -> None:
        """It neither reads nor changes the global generators."""
        gradients = []
        for seed in (1, 2):
            for generator in (torch.manual_seed, np.random.seed, random.seed):
                generator(seed)
            before = _global_states()
            gradients.append(self.gradient(models, inputs, self.config()))
            assert _global_states() == before, "it draws from a global generator"
        assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-7), (
            "it depends on a global generator's state"
        )

    def test_arms_share_prompts_and_noise(self, inputs: dict[str, Path], tmp_path: Path) -> None:
        """The first roll-outs and the evaluation before the first update do not depend on β or the weights."""
        folders = [
            self.run(inputs, tmp_path / name, self.config(steps=1, beta=beta, content_weight=content))
            for name, beta, content in (("one", 0.0, 0.0), ("other", 0.1, 0.5))
        ]
        first, second = (pd.read_parquet(folder / "curves.parquet").iloc[0] for folder in folders)
        for name in ("reward_loss", "length", "entropy", "repetition", "proxy_logprob", "val_logprob"):
            assert first[name] == pytest.approx(second[name], rel=1e-6), name
        first, second = (pd.read_parquet(folder / "points.parquet").iloc[0] for folder in folders)
        pd.testing.assert_series_equal(first, second)

    def test_the_micro_batch_size_changes_nothing_beyond_rounding(
        self, models: Models, inputs: dict[str, Path]
    ) -> None:
        config = self.config(beta=0.1, content_weight=0.5)
        full, accumulated = (self.gradient(replace(models, micro=micro), inputs, config) for micro in (1000, 1))
        assert float((full - accumulated).norm()) <= 1e-3 * float(full.norm())

    def test_a_resumed_run_equals_an_uninterrupted_one(self, inputs: dict[str, Path], tmp_path: Path) -> None:
        """After kills at the second and the fourth step, the results have the same bytes."""
        config = self.config(beta=0.01, content_weight=0.5)
        uninterrupted = self.run(inputs, tmp_path / "whole", config)
        saves = {"checkpoints": tmp_path / "checkpoints", "checkpoint_seconds": 0.0}
        for step in (2, 4):
            torch.manual_seed(step)  # a new process has an arbitrary state of the generator
            with pytest.raises(Killed):
                self.run(inputs, tmp_path / "killed", config, report=_kill_at(step), **saves)
            shutil.rmtree(tmp_path / "killed")
        resumed = self.run(inputs, tmp_path / "resumed", config, **saves)
        for path in sorted(uninterrupted.iterdir()):
            assert path.read_bytes() == (resumed / path.name).read_bytes(), path.name

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_a_non_finite_reward_stops_the_run_before_the_update(
        self, value: float, models: Models, method: PolicyOptimizer, inputs: dict[str, Path]
    ) -> None:
        config = self.config()
        batch = self.batch(models, inputs, config)
        state = method.start(models, Prompts.load(inputs["rl_prompts"], models), config, inputs)
        with torch.no_grad():
            models.reward_model.head.bias.fill_(value)
        before = [parameter.detach().clone() for parameter in models.policy.parameters()]
        optimizer = torch.optim.Adam(models.policy.parameters(), lr=self.lr)
        with pytest.raises(DivergedError, match="not finite"):
            loop.take_step(models, method, state, batch, optimizer, config)
        for after, initial in zip(models.policy.parameters(), before, strict=True):
            assert torch.equal(after, initial), "the policy was updated"

    def test_it_increases_the_reward(self, inputs: dict[str, Path], tmp_path: Path) -> None:
        """On a bandit problem: a reward model that prefers some of the 25 tokens, independent of context."""
        samples = OPTIMIZERS.create(self.choice).samples
        config = self.config(steps=self.steps, batch=samples * max(1, 32 // samples))
        losses = pd.read_parquet(self.run(inputs, tmp_path / "out", config) / "curves.parquet")["reward_loss"]
        first, last = losses.iloc[:5].mean(), losses.iloc[-10:].mean()
        assert last < 0.75 * first, f"the mean reward loss went from {first:.3f} to {last:.3f}"


def _global_states() -> list[bytes]:
    return [pickle.dumps(state) for state in (torch.get_rng_state().numpy(), np.random.get_state(), random.getstate())]


def _kill_at(step: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return report
