"""The example optimiser: its contract, its gradient written out, and an arm that it trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import rrpo.optimizers
from rrpo import plugins
from rrpo.config import OFF, ArmConfig
from rrpo.optimizers import OPTIMIZERS, loop
from rrpo.optimizers.base import PolicyOptimizer
from rrpo.optimizers.rollout import Models
from rrpo.pipeline import dataflow
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.stages import Context
from rrpo.plugins import OptionRegistry, PluginError
from rrpo.profiles import SMOKE
from rrpo.testing.optimizers import OptimizerContract
from rrpo.testing.toy_models import optimize_inputs

FILE = Path(__file__).parents[2] / "examples" / "reinforce.py"
plugins.load(FILE)
torch.set_num_threads(1)  # as a worker does; tiny tensors are slower on more


class TestReinforce(OptimizerContract):
    choice = OPTIMIZERS.choice("reinforce", samples=4)

    def test_the_gradient_is_the_written_formula(self, models: Models, inputs: dict[str, Path]) -> None:
        """Sample by sample: minus its reward above the mean of the prompt's three others, times the gradient of log p."""
        config = self.config(content_weight=0.3, beta=0.1)
        batch = self.batch(models, inputs, config)
        asked, said = batch.prompts, batch.rollout
        costs, log_p, kl = [], [], []
        for i, n in enumerate(said.lengths.tolist()):
            tokens, scored = said.tokens[i : i + 1, :n], n + int(said.ended[i])
            F, frames = models.codec.decode(tokens, said.lengths[i : i + 1], asked.speaker[i : i + 1])
            reward = -models.reward_model(F, frames).log_softmax(1)[0, asked.target[i]]
            costs.append((reward + 0.3 * models.recogniser.ctc_loss(F, frames, [asked.phones[i]])[0]).item())
            both = (m.logits(asked.prefix[i : i + 1], tokens)[0, :scored] for m in (models.policy, models.reference))
            p, q = (logits.log_softmax(1) for logits in both)
            drawn = [*tokens[0].tolist(), models.policy.codes][:scored]
            log_p.append(sum(p[t, code] for t, code in enumerate(drawn)))
            kl.append((p.exp() * (p - q)).sum())
        prompts = len(costs) // 4
        total = torch.zeros(())
        for i, cost in enumerate(costs):
            others = [costs[j] for j in range(len(costs)) if j != i and j % prompts == i % prompts]
            total = total + (0.1 * kl[i] - (sum(others) / 3 - cost) * log_p[i]) / len(costs)
        written = torch.autograd.grad(total, list(models.policy.parameters()), allow_unused=True)  # type: ignore[arg-type]
        ours = self.gradient(models, inputs, config)
        wanted = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(models.policy.parameters(), written, strict=True)
            ]
        )
        assert torch.allclose(ours, wanted, rtol=1e-3, atol=1e-5)


def test_options_are_checked_when_the_arm_is_made() -> None:
    assert OPTIMIZERS.choice("reinforce") == OPTIMIZERS.choice("reinforce", samples=4), "defaults are told"
    assert len(OPTIMIZERS.choice("reinforce").source) == 16
    with pytest.raises(PluginError, match=r"no such option\n  got: sample\n  fix: its options are samples"):
        OPTIMIZERS.choice("reinforce", sample=3)
    with pytest.raises(PluginError, match=r"another type\n  got: samples = 2.5\n  fix: give a value of type int"):
        OPTIMIZERS.choice("reinforce", samples=2.5)
    with pytest.raises(PluginError, match="samples must be 2 or more, got 1"):
        OPTIMIZERS.choice("reinforce", samples=1)
    with pytest.raises(PluginError, match="no optimizer named 'grpo'; there are diffro"):
        OPTIMIZERS.choice("grpo")


def test_an_arm_trains(tmp_path: Path) -> None:
    """Three updates by the config that the data flow makes of the arm, on tiny models."""
    arm = ArmConfig(regularizers=OFF, steps=3, optimizer=OPTIMIZERS.choice("reinforce", samples=2))
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
        plugins.load(path)
        made = {"diffro": None, "reinforce": registry.choice("reinforce")}
        choices.append(made["reinforce"])
        cells = {
            arm: Cell(label=arm, arm=ArmConfig(regularizers=OFF, optimizer=choice), seed=1, profile=SMOKE)
            for arm, choice in made.items()
        }
        registries.append(registry)
        return {f"{arm} {role}": stage.key for arm, cell in cells.items() for role, stage in cell.stages.items()}

    registries: list[OptionRegistry[PolicyOptimizer]] = []
    choices: list[plugins.Choice | None] = []
    text = FILE.read_text()
    before, again, after = keys(text, "one"), keys(text, "copy"), keys(f"{text}# edited\n", "edited")
    assert before == again
    assert {name for name in before if before[name] != after[name]} == {"reinforce optimized", "reinforce scored"}
    assert choices[2] is not None
    with pytest.raises(PluginError, match="not the one that was chosen"):
        registries[0].create(choices[2])
