"""Stages ``pretrain`` and ``finetune``: what arms share, and that all-off equals vanilla fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from rrpo import seeding
from rrpo.config import OFF, FinetuneConfig, PretrainConfig, RegularizerConfig, RewardModelConfig
from rrpo.corpus.draws import key
from rrpo.corpus.features import SpeechSet
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.regularizers import CONTROLS, REGULARIZERS
from rrpo.training import finetune, pretrain
from rrpo.training.data import TrainingFrames, vote_shares

NETWORK = RewardModelConfig(dim=16, layers=1, heads=2)
PRETRAIN = PretrainConfig(steps=40, batch=16, lr=5e-3, model=NETWORK, seed=3)
FINETUNE = FinetuneConfig(steps=6, batch=8, lr=1e-3, seed=3)
Speech = Callable[..., Path]


def run_pretrain(config: PretrainConfig, speech: Path, codec: Path, out: Path) -> RewardModel:
    out.mkdir()
    pretrain.build(config, {"speech": speech, "codec": codec}, out, Context())
    return RewardModel.load(out)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, toy_speech: Speech, toy_codec: Path) -> Path:
    """Folder of a pre-trained model."""
    out = tmp_path_factory.mktemp("models") / "base"
    run_pretrain(PRETRAIN, toy_speech(60), toy_codec, out)
    return out


@pytest.fixture
def tune(base: Path, tmp_path: Path, toy_speech: Speech, toy_codec: Path) -> Callable[..., tuple[RewardModel, Path]]:
    """``tune(regularizers, **config)`` -> the fine-tuned model and its folder."""

    def run(regularizers: RegularizerConfig, **config: int) -> tuple[RewardModel, Path]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        out.mkdir()
        inputs = {"model": base, "speech": toy_speech(20, seed=1, raters=3), "codec": toy_codec}
        finetune.build(replace(FINETUNE, regularizers=regularizers, **config), inputs, out, Context())
        return RewardModel.load(out), out

    return run


Tune = Callable[..., tuple[RewardModel, Path]]


def same(a: RewardModel, b: RewardModel) -> bool:
    """Return whether two models are equal bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def toy_accuracy(model: RewardModel, folder: Path) -> float:
    speech = SpeechSet.load(folder)
    prediction = model(*speech.batch(np.arange(len(speech)))).argmax(1)
    return (prediction == torch.as_tensor(speech.labels(model.emotions))).float().mean().item()


class TestPretrain:
    def test_learns_the_label_and_the_placebo_does_not(
        self, base: Path, tmp_path: Path, toy_speech: Speech, toy_codec: Path
    ) -> None:
        test = toy_speech(60, seed=5)
        assert toy_accuracy(RewardModel.load(base), test) > 0.9
        placebo = run_pretrain(replace(PRETRAIN, shuffle_labels=True), toy_speech(60), toy_codec, tmp_path / "placebo")
        assert toy_accuracy(placebo, test) < 0.7

    def test_is_a_function_of_its_seed(self, base: Path, tmp_path: Path, toy_speech: Speech, toy_codec: Path) -> None:
        torch.manual_seed(12345)
        again = run_pretrain(PRETRAIN, toy_speech(60), toy_codec, tmp_path / "again")
        other = run_pretrain(replace(PRETRAIN, seed=4), toy_speech(60), toy_codec, tmp_path / "other")
        assert same(RewardModel.load(base), again)
        assert not same(again, other)

    def test_normalises_by_the_originals(self, base: Path, toy_speech: Speech) -> None:
        speech = SpeechSet.load(toy_speech(60))
        frames = torch.cat([speech.mel(i) for i in range(60)])
        torch.testing.assert_close(RewardModel.load(base).mean, frames.mean(0))
        assert RewardModel.load(base).regularizers == OFF


class TestData:
    def test_half_of_a_batch_is_resynthesised_by_coins_that_no_one_else_draws(
        self, toy_speech: Speech, toy_codec: Path
    ) -> None:
        speech = SpeechSet.load(toy_speech(60))
        frames = TrainingFrames.load(speech, toy_codec, "cpu")
        indices = np.arange(60)
        originals, n = speech.batch(indices)
        share = []
        for step in range(20):
            F, lengths = frames.batch(indices, 0, "coins", step)
            unchanged = [torch.equal(F[i, : n[i]], originals[i, : n[i]]) for i in indices]
            share.append(1 - np.mean(unchanged))
            assert all(length in (n[i], n[i] + n[i] % 2) for i, length in enumerate(lengths))
            torch.manual_seed(step)
            assert torch.equal(F, frames.batch(indices, 0, "coins", step)[0])
        assert np.mean(share) == pytest.approx(0.5, abs=0.06)

    def test_vote_shares_by_hand(self, toy_speech: Speech) -> None:
        speech = SpeechSet.load(toy_speech(20, seed=1, raters=3))
        assert speech.utterances[0].votes == ("angry", "angry", "happy")
        expected = torch.tensor([[2 / 3, 1 / 3, 0.0], [0.0, 2 / 3, 1 / 3], [1 / 3, 0.0, 2 / 3], [1.0, 0.0, 0.0]])
        torch.testing.assert_close(vote_shares(speech, speech.emotions)[:4], expected)
        torch.testing.assert_close(finetune.targets(speech, speech.emotions, True)[:4], expected)
        hard = finetune.targets(speech, speech.emotions, False)
        assert torch.equal(hard, torch.eye(3)[torch.arange(20) % 3])

    def test_without_raters_the_label_is_the_vote(self, toy_speech: Speech) -> None:
        speech = SpeechSet.load(toy_speech(60))
        assert torch.equal(vote_shares(speech, speech.emotions)[:3], torch.eye(3))


class TestFinetune:
    def test_all_off_is_a_plain_fine_tune_bit_for_bit(
        self, tune: Tune, base: Path, toy_speech: Speech, toy_codec: Path
    ) -> None:
        """Against a loop without regularizers."""
        model = RewardModel.load(base).requires_grad_(True).train()
        speech = SpeechSet.load(toy_speech(20, seed=1, raters=3))
        frames = TrainingFrames.load(speech, toy_codec, "cpu")
        labels = torch.tensor([model.emotions.index(utterance.emotion) for utterance in speech.utterances])
        optimizer = torch.optim.Adam(model.parameters(), lr=FINETUNE.lr, fused=True)
        for step, batch in enumerate(seeding.permutation_batches(20, 8, 6, 3, "finetune.order")):
            F, lengths = frames.batch(batch, 3, "finetune.rendition", step)
            torch.manual_seed(key(3, "finetune.dropout", step))
            optimizer.zero_grad()
            functional.cross_entropy(model(F, lengths), labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        tuned, _ = tune(OFF)
        assert same(model, tuned)
        assert not same(RewardModel.load(base), tuned)

    @pytest.mark.parametrize(
        "change",
        [{"epsilon": 0.1}, {"mix_probability": 1.0}, {"alpha": 0.5}, {"soft_votes": True}],
        ids=lambda change: next(iter(change)),
    )
    def test_each_component_changes_the_model(self, tune: Tune, change: dict[str, float]) -> None:
        assert not same(tune(OFF)[0], tune(replace(OFF, **change))[0])

    @pytest.mark.parametrize("name", CONTROLS)
    def test_controls_change_the_model_and_are_off_at_their_identity_under_dropout(self, tune: Tune, name: str) -> None:
        control = REGULARIZERS[name]
        off = {knob.name: knob.off for knob in control.own_knobs() if knob.off is not None}
        arms = [asdict(control), asdict(control) | off]
        on, idle = (replace(OFF, added=(REGULARIZERS.choice(name, **options),)) for options in arms)
        plain = tune(OFF)[0]
        assert same(plain, tune(idle)[0])
        assert not same(plain, tune(on)[0])

    def test_off_values_ignore_the_other_settings_of_the_component(self, tune: Tune) -> None:
        idle = replace(OFF, epsilon_adv=7.0, adv_norm="relative", mix_db_low=1.0, mix_db_high=2.0)
        assert same(tune(OFF)[0], tune(idle)[0])

    def test_toggling_one_component_leaves_the_others_draws(self, tune: Tune) -> None:
        """λ depends only on mixup's draws and the batch's lengths; the first loss of an arm shows dropout's draws."""
        full = RegularizerConfig()
        curves = [
            pd.read_parquet(tune(config)[1] / finetune.CURVES)
            for config in (full, replace(full, epsilon=0.0), replace(full, alpha=0.0))
        ]
        for other in curves[1:]:
            assert curves[0]["lambda"].equals(other["lambda"])
        assert curves[0]["l_emo"][0] == curves[2]["l_emo"][0]
        assert (curves[0]["lambda"] > 0).all()

    def test_is_a_function_of_its_seed(self, tune: Tune) -> None:
        assert same(tune(RegularizerConfig())[0], tune(RegularizerConfig())[0])
        assert not same(tune(RegularizerConfig())[0], tune(RegularizerConfig(), seed=4)[0])

    def test_longer_begins_like_shorter(self, tune: Tune) -> None:
        short, long = (pd.read_parquet(tune(RegularizerConfig(), steps=steps)[1] / finetune.CURVES) for steps in (3, 6))
        pd.testing.assert_frame_equal(short, long.head(3), check_exact=True)

    def test_records(self, tune: Tune) -> None:
        config = RegularizerConfig(alpha=0.5)
        model, out = tune(config)
        curves = pd.read_parquet(out / finetune.CURVES)
        assert list(curves) == ["step", "loss", "l_emo", "l_adv", "lambda", "relative_delta"]
        np.testing.assert_allclose(curves["loss"], curves["l_emo"] + 0.5 * curves["l_adv"], rtol=1e-5)
        scalars = json.loads((out / "scalars.json").read_text())
        assert scalars["finetune_loss"] == pytest.approx(curves["loss"].mean())
        assert scalars["finetune_l_adv_over_l_emo"] == pytest.approx(curves["l_adv"].sum() / curves["l_emo"].sum())
        assert scalars["finetune_l_adv_over_l_emo"] > 1
        assert model.regularizers == config

    def test_zero_steps_keep_the_pre_trained_model(self, tune: Tune, base: Path) -> None:
        model, out = tune(RegularizerConfig(), steps=0)
        assert same(model, RewardModel.load(base))
        assert json.loads((out / "scalars.json").read_text()) == {}
        assert len(pd.read_parquet(out / finetune.CURVES)) == 0
