"""The example optimiser: its contract, its gradient written out, and an arm that it trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import rrpo.optimizers
from rrpo import plugins
from rrpo.arms import ARMS
from rrpo.config import OFF, ArmConfig
from rrpo.experiment import dataflow
from rrpo.experiment.cell import Cell
from rrpo.optimizers import OPTIMIZERS, loop
from rrpo.optimizers.base import PolicyOptimizer
from rrpo.optimizers.rollout import Models
from rrpo.optimizers.scoring import compute_rewards
from rrpo.pipeline.stages import Context
from rrpo.plugins import OptionRegistry, PluginError
from rrpo.profiles import SMOKE
from rrpo.testing.optimizers import OptimizerContract
from rrpo.testing.toy_models import optimize_inputs

FILE = Path(__file__).parents[2] / "examples" / "reward_weighted.py"
torch.set_num_threads(1)  # as a worker does; tiny tensors are slower on more


@pytest.fixture(autouse=True)
def _loaded(no_plugins: Callable[[], None]) -> None:
    plugins.load(FILE)


class TestRewardWeighted(OptimizerContract):
    @pytest.fixture(autouse=True)
    def _choice(self, _loaded: None) -> None:
        type(self).choice = OPTIMIZERS.choice("reward-weighted", samples=4)

    def test_the_gradient_by_hand(self, models: Models, inputs: dict[str, Path]) -> None:
        """At a temperature near 0 only a prompt's best sample has weight: 3 (k - 1) for it and -1 for each of the others."""
        config = self.config(optimizer=OPTIMIZERS.choice("reward-weighted", samples=4, temperature=1e-6))
        batch = self.batch(models, inputs, config)
        cost = compute_rewards(models, batch, config).cost(config).view(4, -1)
        weights = torch.full_like(cost, -1.0).scatter(0, cost.argmin(0, keepdim=True), 3.0).flatten()
        rollout = batch.rollout
        total = torch.zeros(())
        for i, n in enumerate(rollout.lengths.tolist()):
            (logits,) = models.policy.logits(batch.prompts.prefix[i : i + 1], rollout.tokens[i : i + 1, :n])
            log_p = logits.log_softmax(1)
            tokens = [*rollout.tokens[i, :n].tolist(), models.policy.codes][: n + int(rollout.ended[i])]
            total = total - weights[i] * sum(log_p[t, code] for t, code in enumerate(tokens)) / len(rollout.lengths)
        parameters = list(models.policy.parameters())
        written = torch.autograd.grad(total, parameters, allow_unused=True)
        expected = [
            (torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, written, strict=True)
        ]
        assert torch.allclose(self.gradient(models, inputs, config), torch.cat(expected), rtol=1e-3, atol=1e-5)


def test_options_are_checked_when_the_arm_is_made() -> None:
    assert OPTIMIZERS.choice("reward-weighted") == OPTIMIZERS.choice("reward-weighted", samples=4, temperature=1), (
        "defaults are told"
    )
    assert len(OPTIMIZERS.choice("reward-weighted").source) == 16
    with pytest.raises(
        PluginError, match=r"no such option\n  got: sample\n  fix: its options are samples, temperature"
    ):
        OPTIMIZERS.choice("reward-weighted", sample=3)
    with pytest.raises(PluginError, match=r"wrong type\n  got: samples = 2.5\n  fix: give a value of type int"):
        OPTIMIZERS.choice("reward-weighted", samples=2.5)
    with pytest.raises(PluginError, match="samples must be 2 or more, got 1"):
        OPTIMIZERS.choice("reward-weighted", samples=1)
    with pytest.raises(PluginError, match="no optimizer named 'ppo'; there are diffro"):
        OPTIMIZERS.choice("ppo")


def test_it_registers_an_arm() -> None:
    arm = ARMS["reward-weighted"]
    assert replace(arm, optimizer=None) == ARMS["diffro"]
    assert arm.optimizer == OPTIMIZERS.choice("reward-weighted")


def test_an_arm_trains(tmp_path: Path) -> None:
    """Three updates by the config that the data flow makes of the arm, on tiny models."""
    arm = ArmConfig(regularizers=OFF, steps=3, optimizer=OPTIMIZERS.choice("reward-weighted", samples=2))
    config = dataflow.optimized(SMOKE, arm, 1).config
    assert config == replace(dataflow.optimized(SMOKE, replace(arm, optimizer=None), 1).config, optimizer=arm.optimizer)
    out = tmp_path / "out"
    out.mkdir()
    loop.build(config, optimize_inputs(tmp_path / "toy"), out, Context())
    curves, points = (pd.read_parquet(out / f"{name}.parquet") for name in ("curves", "points"))
    assert curves["step"].tolist() == [0, 1, 2]
    assert {"reward_loss", "content_loss", "loss", "grad_norm", "kl_token", "val_clean"} <= set(curves.columns)
    assert points["step"].tolist() == [0, 3]
    assert points["kl_token"].iloc[-1] > 0
    assert json.loads((out / "scalars.json").read_text())["end_kl_token"] == points["kl_token"].iloc[-1]


def test_editing_the_file_changes_the_keys_of_its_arms_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(text: str, name: str) -> dict[str, str]:
        """Of the stages of an arm of the plugin's and of DiffRO's, where the plugin's file has this text."""
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        registry: OptionRegistry[PolicyOptimizer] = OptionRegistry("optimizer")
        monkeypatch.setattr(rrpo.optimizers, "OPTIMIZERS", registry)
        monkeypatch.setattr(ARMS, "_items", {"diffro": ARMS["diffro"]})
        plugins.load(path)
        optimizers = {"diffro": None, "reward-weighted": registry.choice("reward-weighted")}
        choices.append(optimizers["reward-weighted"])
        cells = {
            arm: Cell(label=arm, arm=ArmConfig(regularizers=OFF, optimizer=choice), seed=1, profile=SMOKE)
            for arm, choice in optimizers.items()
        }
        registries.append(registry)
        return {f"{arm} {role}": stage.key for arm, cell in cells.items() for role, stage in cell.stages.items()}

    registries: list[OptionRegistry[PolicyOptimizer]] = []
    choices: list[plugins.Choice | None] = []
    text = FILE.read_text()
    before, copied, after = keys(text, "one"), keys(text, "copy"), keys(f"{text}# edited\n", "edited")
    assert before == copied
    assert {name for name in before if before[name] != after[name]} == {
        "reward-weighted optimized",
        "reward-weighted scored",
    }
    assert choices[2] is not None
    with pytest.raises(PluginError, match="has changed since the run was planned"):
        registries[0].create(choices[2])
