"""Stage ``examine``: accuracies and the three manipulation checks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rrpo.config import FinetuneConfig, PretrainConfig, RegularizerConfig, RewardModelConfig
from rrpo.corpus.features import SpeechSet
from rrpo.diagnostics import examine
from rrpo.judges.config import ExamineConfig
from rrpo.masking import sample_norm, valid_mask
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.training import finetune, pretrain

CONFIG = ExamineConfig(interpolation_pairs=20)
PRETRAIN = PretrainConfig(steps=40, batch=16, lr=5e-3, model=RewardModelConfig(dim=16, layers=1, heads=2))
Speech = Callable[..., Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, toy_speech: Speech, toy_codec: Path) -> dict[str, Path]:
    """A pre-trained and a fine-tuned model."""
    root = tmp_path_factory.mktemp("models")
    folders = {name: root / name for name in ("pretrain", "finetune")}
    for folder in folders.values():
        folder.mkdir()
    inputs = {"speech": toy_speech(60), "codec": toy_codec}
    pretrain.build(PRETRAIN, inputs, folders["pretrain"], Context())
    config = FinetuneConfig(steps=5, batch=8, regularizers=RegularizerConfig(epsilon_adv=2.0))
    finetune.build(config, {**inputs, "model": folders["pretrain"]}, folders["finetune"], Context())
    return folders


def examined(model: Path, out: Path, toy_speech: Speech, config: ExamineConfig = CONFIG) -> dict[str, float]:
    out.mkdir()
    inputs = {"model": model, "rm_valid": toy_speech(30, seed=7), "rm_test_en": toy_speech(30, seed=8)}
    examine.build(config, inputs, out, Context())
    scalars: dict[str, float] = json.loads((out / "scalars.json").read_text())
    return scalars


def test_calibration_error_by_hand() -> None:
    p = torch.tensor([[0.92, 0.08], [0.94, 0.06], [0.4, 0.6], [0.3, 0.7]])
    # Bins .9: one hit of two at mean .93; .6: a hit; .7: a miss.
    labels = torch.tensor([0, 1, 1, 0])
    expected = (2 * abs(0.5 - 0.93) + abs(1 - 0.6) + abs(0 - 0.7)) / 4
    assert examine.calibration_error(p, labels) == pytest.approx(expected)
    assert examine.accuracy(p, labels) == 0.5


def test_certain_and_right_is_calibrated() -> None:
    assert examine.calibration_error(torch.eye(3), torch.arange(3)) == 0.0


@pytest.mark.parametrize("steps", [1, 5])
def test_attack_stays_in_its_ball_and_raises_the_loss(steps: int) -> None:
    torch.manual_seed(0)
    h, mask = torch.randn(4, 6, 3), valid_mask(torch.tensor([1, 3, 6, 6]), 6)
    target = torch.randn(4, 6, 3)

    def losses(x: Tensor) -> Tensor:
        return ((x - target).masked_fill(~mask[..., None], 0.0) ** 2).sum((1, 2))

    delta = examine.attack(losses, h, mask, 0.2, steps)
    assert (sample_norm(delta, mask) <= 0.2 * sample_norm(h, mask) * (1 + 1e-5)).all()
    assert (losses(h + delta) > losses(h)).all()
    assert (delta[~mask] == 0).all()
    if steps == 1:
        torch.testing.assert_close(sample_norm(delta, mask), 0.2 * sample_norm(h, mask))


class Above1:
    """A model and its three utterances: h' is one number, and the probability of ``high`` is the sigmoid of h' - 1."""

    emotions = ("high", "low")
    regularizers = RegularizerConfig(epsilon_adv=0.1)

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return F, valid_mask(lengths, 1)

    def classify(self, h: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([h[:, 0] - 1, torch.zeros(len(h), 1)], 1)

    def __len__(self) -> int:
        return 3

    def labels(self, emotions: tuple[str, ...]) -> Tensor:
        return torch.tensor([0, 0, 1])

    def batch(self, indices: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
        return torch.tensor([1.2, 3.0, 0.5])[indices, None, None], torch.ones(3, dtype=torch.long)


def test_robustness_by_hand() -> None:
    """Attacks lower 1.2 and 3 to (1 - eps) of it and raise 0.5 to (1 + eps) of it: 0.6, 1.5 and 0.75, then 0.24, 0.6 and 0.9."""
    toy: Any = Above1()
    scalars = examine.robustness(toy, toy, ExamineConfig(relative_eps=(0.5, 0.8)), "cpu")

    def loss(*margins: float) -> float:
        return sum(math.log1p(math.exp(-margin)) for margin in margins) / 3

    clean, attacked = loss(0.2, 2.0, 0.5), loss(0.1, 1.9, 0.4)
    assert scalars == pytest.approx(
        {
            "rm_fgm_accuracy_0.5": 2 / 3,
            "rm_pgd_accuracy_0.5": 2 / 3,
            "rm_fgm_accuracy_0.8": 1 / 3,
            "rm_pgd_accuracy_0.8": 1 / 3,
            "rm_loss": clean,
            "log10_relative_delta": sum(math.log10(0.1 / h) for h in (1.2, 3.0, 0.5)) / 3,
            "l_adv_over_l_emo": attacked / clean,
        }
    )


def test_attack_of_several_steps_is_no_weaker(models: dict[str, Path], tmp_path: Path, toy_speech: Speech) -> None:
    scalars = examined(models["pretrain"], tmp_path / "out", toy_speech)
    for eps in CONFIG.relative_eps:
        assert scalars[f"rm_pgd_accuracy_{eps:g}"] <= scalars[f"rm_fgm_accuracy_{eps:g}"] + 0.05
    weak, *_, strong = (scalars[f"rm_pgd_accuracy_{eps:g}"] for eps in CONFIG.relative_eps)
    assert strong <= weak <= scalars["rm_accuracy_valid"] + 1e-6


def test_attacks_of_no_size_leave_the_accuracy(models: dict[str, Path], tmp_path: Path, toy_speech: Speech) -> None:
    scalars = examined(models["pretrain"], tmp_path / "out", toy_speech, ExamineConfig(relative_eps=(0.0,)))
    assert scalars["rm_fgm_accuracy_0"] == scalars["rm_pgd_accuracy_0"] == pytest.approx(scalars["rm_accuracy_valid"])


def test_records_of_a_fine_tuned_model(models: dict[str, Path], tmp_path: Path, toy_speech: Speech) -> None:
    scalars = examined(models["finetune"], tmp_path / "out", toy_speech)
    expected = {"rm_accuracy_valid", "rm_accuracy_test_en", "rm_ece", "rm_confidence", "rm_smoothness", "rm_mix_loss"}
    expected |= {"rm_loss", "log10_relative_delta", "l_adv_over_l_emo", "adv_tested", "finetune_l_adv_over_l_emo"}
    assert expected <= set(scalars)
    assert all(math.isfinite(value) for value in scalars.values())
    assert scalars["rm_accuracy_valid"] > 0.9
    assert (tmp_path / "out" / finetune.CURVES).is_file()
    speech, model = SpeechSet.load(toy_speech(30, seed=7)), RewardModel.load(models["finetune"])
    h, mask = model.encode(*speech.batch(range(30)))
    expected_delta = (2.0 / sample_norm(h, mask)).log10().mean().item()
    assert scalars["log10_relative_delta"] == pytest.approx(expected_delta, abs=1e-4)


def test_a_pre_trained_model_is_examined_too(models: dict[str, Path], tmp_path: Path, toy_speech: Speech) -> None:
    scalars = examined(models["pretrain"], tmp_path / "out", toy_speech)
    assert "finetune_loss" not in scalars
    assert scalars["adv_tested"] == float(scalars["l_adv_over_l_emo"] >= 1.05)
    assert not (tmp_path / "out" / finetune.CURVES).exists()


@pytest.mark.parametrize(("ratio", "verdict"), [(1.04, 0.0), (1.06, 1.0)])
def test_adv_counts_as_tested_only_if_it_had_an_effect_in_training(
    models: dict[str, Path], tmp_path: Path, toy_speech: Speech, ratio: float, verdict: float
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    RewardModel.load(models["finetune"]).save(model)
    (model / "scalars.json").write_text(json.dumps({"finetune_l_adv_over_l_emo": ratio}))
    assert examined(model, tmp_path / "out", toy_speech)["adv_tested"] == verdict


def test_smoothness_of_a_constant_model_is_one_and_of_a_cliff_less(models: dict[str, Path], toy_speech: Speech) -> None:
    speech, model = SpeechSet.load(toy_speech(30, seed=7)), RewardModel.load(models["pretrain"])
    learnt = examine.smoothness(model, speech, CONFIG, "cpu")["rm_smoothness"]
    model.head.weight *= 100
    cliff = examine.smoothness(model, speech, CONFIG, "cpu")["rm_smoothness"]
    model.head.weight *= 0
    assert examine.smoothness(model, speech, CONFIG, "cpu")["rm_smoothness"] == 1.0
    assert cliff < learnt < 1.0


def test_pairs_need_two_emotions(models: dict[str, Path], toy_speech: Speech) -> None:
    speech, model = SpeechSet.load(toy_speech(1)), RewardModel.load(models["pretrain"])
    with pytest.raises(ValueError, match="rm_valid contains 1 emotion"):
        examine.smoothness(model, speech, CONFIG, "cpu")
