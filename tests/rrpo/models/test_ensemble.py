"""Combined reward models: combinations by hand, the interface, storage, and the stages that create them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rrpo.config import OFF, ArmConfig, CombineConfig
from rrpo.experiment import dataflow, measurements
from rrpo.models.ensemble import RewardEnsemble, averaged, load_reward_model
from rrpo.models.reward_model import RewardModel
from rrpo.models.signals import WAVEFORM
from rrpo.optimizers.probe import probe
from rrpo.optimizers.reward import reward_loss
from rrpo.pipeline.stages import Context
from rrpo.profiles import SMOKE
from rrpo.testing.regularizers import reward_model, speech_like
from rrpo.training import combine

VANILLA = ArmConfig(regularizers=OFF)


@pytest.fixture
def members() -> list[RewardModel]:
    return [reward_model(seed).eval().requires_grad_(False) for seed in range(3)]


def log_probs(members: list[RewardModel], F: Tensor, lengths: Tensor) -> Tensor:
    """Return the log-probabilities of each member ``[M, B, K]``."""
    return torch.stack([member.log_probs(F, lengths) for member in members])


def test_rewards_are_combined_by_hand(members: list[RewardModel]) -> None:
    F, lengths, y = speech_like()
    log_p = log_probs(members, F, lengths)[:, torch.arange(len(y)), y.argmax(1)]
    mean = sum(log_p) / 3
    spread = sum((value - mean) ** 2 for value in log_p) / 3
    expected = {
        ("mean", 0.0): mean,
        ("mean", 2.0): mean - 2.0 * spread,
        ("worst", 0.0): torch.minimum(torch.minimum(log_p[0], log_p[1]), log_p[2]),
    }
    for (combination, penalty), reward in expected.items():
        combined = -reward_loss(RewardEnsemble(members, combination, penalty), F, lengths, y.argmax(1))
        torch.testing.assert_close(combined, reward)


def test_the_input_is_the_members(members: list[RewardModel]) -> None:
    """Of waveforms, for example, if they use a pre-trained encoder."""
    for member in members:
        member.signal = WAVEFORM
    assert RewardEnsemble(members, "mean").signal is WAVEFORM


def test_one_member_thrice_is_that_member(members: list[RewardModel]) -> None:
    F, lengths, y = speech_like()
    for combination in ("mean", "worst"):
        ensemble = RewardEnsemble([members[0]] * 3, combination)
        torch.testing.assert_close(ensemble.log_probs(F, lengths), members[0].log_probs(F, lengths))
    ours, theirs = (probe(model, F, lengths, y.argmax(1)) for model in (ensemble, members[0]))
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(ours["proxy"], theirs["proxy"])


def test_worst_case_gradient_is_that_of_the_least_convinced_member(members: list[RewardModel]) -> None:
    F, lengths, y = speech_like()
    target = y.argmax(1)
    worst = log_probs(members, F, lengths)[:, torch.arange(len(target)), target].argmin(0)

    def gradient(model: RewardModel) -> Tensor:
        leaf = F.clone().requires_grad_()
        (g,) = torch.autograd.grad(reward_loss(model, leaf, lengths, target).sum(), leaf)
        return g

    gradients = torch.stack([gradient(member) for member in members])
    torch.testing.assert_close(gradient(RewardEnsemble(members, "worst")), gradients[worst, torch.arange(len(worst))])


def test_weights_are_averaged(members: list[RewardModel]) -> None:
    weights = [member.head.weight.clone() for member in members]
    torch.testing.assert_close(averaged(members).head.weight, sum(weights) / 3)


@pytest.mark.parametrize("combination", ["mean", "worst", "weights"])
def test_the_stage_and_its_loader_agree(members: list[RewardModel], tmp_path: Path, combination: str) -> None:
    inputs = {f"member_{index:02d}": tmp_path / str(index) for index in range(3)}
    for index, folder in enumerate(inputs.values()):
        folder.mkdir()
        members[index].save(folder)
        (folder / "scalars.json").write_text(json.dumps({"finetune_loss": float(index)}))
    out = tmp_path / "out"
    out.mkdir()
    combine.build(CombineConfig(combination=combination), inputs, out, Context())
    loaded = load_reward_model(out)
    F, lengths, _ = speech_like()
    expected = averaged(members) if combination == "weights" else RewardEnsemble(members, combination)
    torch.testing.assert_close(loaded.log_probs(F, lengths), expected.log_probs(F, lengths))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert json.loads((out / "scalars.json").read_text()) == {"finetune_loss": 1.0}


class TestStages:
    def test_the_first_member_is_the_seeds_own_reward_model(self) -> None:
        combined = dataflow.reward_model(SMOKE, replace(VANILLA, members=3, combination="worst"), 5)
        single = dataflow.reward_model(SMOKE, VANILLA, 5)
        keys = [stage.key for stage in combined.inputs.values()]
        assert keys[0] == single.key
        assert len(set(keys)) == 3
        starts = {stage.inputs["model"].key for stage in combined.inputs.values()}
        speech = {stage.inputs["speech"].key for stage in combined.inputs.values()}
        assert (len(starts), len(speech)) == (3, 1)

    def test_members_whose_weights_are_averaged_share_their_pre_training(self) -> None:
        combined = dataflow.reward_model(SMOKE, replace(VANILLA, members=3, combination="weights"), 5)
        assert len({stage.key for stage in combined.inputs.values()}) == 3
        assert len({stage.inputs["model"].key for stage in combined.inputs.values()}) == 1

    def test_the_optimisation_and_the_checks_read_the_combined_model(self) -> None:
        arm = replace(VANILLA, members=2, combination="mean")
        combined = dataflow.reward_model(SMOKE, arm, 5).key
        assert dataflow.optimized(SMOKE, arm, 5).inputs["reward_model"].key == combined
        assert measurements.examined(SMOKE, arm, 5).inputs["model"].key == combined

    def test_meaningless_combinations_are_rejected(self) -> None:
        with pytest.raises(ValueError, match="'weights' needs finetune"):
            ArmConfig(members=4, combination="weights", finetune=False)
        with pytest.raises(ValueError, match="variance_penalty needs combination='mean'"):
            ArmConfig(members=4, combination="worst", variance_penalty=1.0)
        for members, combination in ((1, "mean"), (2, None), (2, "best")):
            with pytest.raises(ValueError, match="for 2 members or more"):
                ArmConfig(members=members, combination=combination)
