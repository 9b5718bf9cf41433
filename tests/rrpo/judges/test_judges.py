"""One contract for every judge: normalized, deterministic, independent of padding, equal after saving; and their stage builds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.judges import emotion, metrics, recogniser
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import UNKNOWN, Recogniser
from rrpo.pipeline.stages import Context

AUDIO = AudioConfig()
EMOTIONS = ("angry", "happy", "sad")
PHONES = ("a", "b", "c")
Frames = tuple[Tensor, Tensor]


def _judge(architecture: str) -> Judge:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig(architecture=architecture, dim=16), EMOTIONS, AUDIO)
    judge.temperature.fill_(1.7)
    return judge.eval()


def _recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(RecogniserConfig(dim=16), PHONES, AUDIO.n_mels).eval()


def _log_probs(model: Judge | Recogniser, F: Tensor, lengths: Tensor) -> list[Tensor]:
    """Return one tensor per sample: ``[K]`` of a judge, ``[T'_i, P + 1]`` of a recogniser."""
    if isinstance(model, Judge):
        return list(model.log_probs(F, lengths))
    log_probs, steps = model.log_probs(F, lengths)
    return [row[:size] for row, size in zip(log_probs, steps.tolist(), strict=True)]


@pytest.mark.parametrize("name", ["conv_gru", "stats_tdnn", "recogniser"])
class TestContract:
    @pytest.fixture
    def model(self, name: str) -> Judge | Recogniser:
        return _recogniser() if name == "recogniser" else _judge(name)

    def test_probabilities_sum_to_one(self, model: Judge | Recogniser, frames: Frames) -> None:
        for row in _log_probs(model, *frames):
            assert torch.allclose(row.exp().sum(-1), torch.ones(row.shape[:-1]), atol=1e-5)

    def test_same_answer_twice(self, model: Judge | Recogniser, frames: Frames) -> None:
        for first, second in zip(_log_probs(model, *frames), _log_probs(model, *frames), strict=True):
            assert torch.equal(first, second)

    def test_padding_and_neighbours_change_nothing(self, model: Judge | Recogniser, frames: Frames) -> None:
        F, lengths = frames
        padded = torch.nn.functional.pad(F, (0, 0, 0, 37), value=2.0)
        together = _log_probs(model, padded, lengths)
        for row, size in enumerate(lengths.tolist()):
            alone = _log_probs(model, F[row : row + 1, :size], lengths[row : row + 1])[0]
            assert torch.allclose(together[row], alone, atol=1e-4)

    def test_answers_differ_between_utterances(self, model: Judge | Recogniser, frames: Frames) -> None:
        first, second = _log_probs(model, *frames)[:2]
        assert first.shape != second.shape or not torch.allclose(first, second, atol=1e-4)

    def test_a_sample_without_frames_has_an_answer(self, model: Judge | Recogniser, frames: Frames) -> None:
        F, lengths = frames
        for row in _log_probs(model, F, lengths * torch.tensor([1, 0, 1, 1])):
            assert torch.isfinite(row).all()

    def test_saved_and_loaded_is_the_same(self, model: Judge | Recogniser, frames: Frames, tmp_path: Path) -> None:
        model.save(tmp_path)
        loaded = type(model).load(tmp_path)
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        for before, after in zip(_log_probs(model, *frames), _log_probs(loaded, *frames), strict=True):
            assert torch.equal(before, after)

    def test_loading_from_an_empty_folder_is_rejected(self, model: Judge | Recogniser, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="give a folder"):
            type(model).load(tmp_path)


def test_the_test_judge_uses_the_wave_and_val_the_frames(frames: Frames) -> None:
    F, lengths = frames
    seen, _ = _judge("conv_gru").features(F, lengths)
    features, sizes = _judge("stats_tdnn").features(F, lengths)
    assert torch.equal(seen, F)
    assert features.shape[2] != F.shape[2]
    assert torch.equal(sizes, lengths)


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'svm'; use one of .*conv_gru"):
        Judge(replace(JudgeConfig(), architecture="svm"), EMOTIONS, AUDIO)


def test_blanks_are_keyed_and_leave_a_stripe_and_a_gap(frames: Frames) -> None:
    F, lengths = frames
    fill = torch.full((F.shape[2],), 99.0)
    blanked = emotion.blank(F, lengths, fill, (10, 10), seed=0, step=3)
    assert torch.equal(blanked, emotion.blank(F, lengths, fill, (10, 10), seed=0, step=3))
    hit = blanked == 99.0
    assert torch.equal(blanked[~hit], F[~hit])
    assert hit.all(1).any(), "a stripe: a band in all frames"
    assert hit.all(2).any(), "a gap: all bands of a frame"
    assert hit.float().mean() < 0.4


@pytest.mark.parametrize("architecture", ["conv_gru", "stats_tdnn"])
def test_judge_stage(architecture: str, stages: dict[str, Path], tmp_path: Path) -> None:
    config = JudgeConfig(architecture=architecture, dim=16, steps=100, batch=16, lr=5e-3)
    inputs = {"speech": stages["speech"], "heldout": stages["heldout"], "codec": stages["codec"]}
    emotion.build(config, inputs, tmp_path, Context())
    scalars = json.loads((tmp_path / "scalars.json").read_text())
    assert {
        f"{metric}_{rendition}" for metric in ("accuracy", "ece") for rendition in ("original", "resynthesised")
    } < set(scalars)
    speech = SpeechSet.load(stages["speech"])
    judge = Judge.load(tmp_path)
    targets = speech.labels(judge.emotions).numpy()
    assert metrics.accuracy(judge.log_probs(*speech.batch(range(len(speech)))).numpy(), targets) > 0.4  # chance: .2
    heldout = SpeechSet.load(stages["heldout"])
    log_probs = judge.log_probs(*heldout.batch(range(len(heldout)))).numpy()
    assert metrics.accuracy(log_probs, heldout.labels(judge.emotions).numpy()) == pytest.approx(
        scalars["accuracy_original"]
    )


def test_calibration_finds_the_temperature(stages: dict[str, Path]) -> None:
    """Logits that are ten times overconfident are scaled down: the likelihood rises."""
    heldout = SpeechSet.load(stages["heldout"])
    torch.manual_seed(1)
    judge = Judge(JudgeConfig(dim=16), heldout.emotions, heldout.audio).eval()
    with torch.no_grad():
        judge.network.head[1].weight.mul_(30.0)
    scalars = emotion.calibrate(judge, heldout, stages["codec"], "cpu")
    assert judge.temperature.item() == pytest.approx(scalars["temperature"])
    assert scalars["temperature"] > 2
    F, lengths = heldout.batch(range(len(heldout)))
    targets = heldout.labels(judge.emotions).numpy()
    calibrated = metrics.target_log_prob(judge.log_probs(F, lengths).numpy(), targets)
    judge.temperature.fill_(1.0)
    assert calibrated > metrics.target_log_prob(judge.log_probs(F, lengths).numpy(), targets)


def test_the_calibration_error_is_cross_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The even two of four utterances have logits of ln 9 and temperature 1/2, the odd ones of ln 19 / 2 and 2. With the other's
    temperature, the confidences are .75 and .95. Labels are 0, 0, 1, 0; the original logits favor class 0, the others class 1."""
    even, odd = math.log(9), math.log(19) / 2
    logits = torch.tensor([[size, 0.0] for size in (even, odd, even, odd)])
    monkeypatch.setattr(
        emotion, "analyse", lambda *_: SimpleNamespace(batches=lambda _: [(logits,), (logits.flip(1),)])
    )

    def fitted(logits: Tensor, targets: Tensor) -> float:
        sizes = logits.amax(1)
        return 2.0 if sizes.max() < 2 else 0.5 if sizes.min() > 2 else 1.0

    monkeypatch.setattr(emotion, "best_temperature", fitted)
    judge: Any = torch.nn.Identity()
    judge.emotions, judge.temperature = EMOTIONS[:2], torch.zeros(())
    utterances: Any = tuple(SimpleNamespace(emotion=EMOTIONS[k]) for k in (0, 0, 1, 0))
    heldout = SpeechSet(utterances, AUDIO, EMOTIONS[:2], np.zeros(0), np.zeros(0))
    scalars = emotion.calibrate(judge, heldout, Path(), "cpu")
    assert judge.temperature == scalars["temperature"] == 1
    assert scalars["accuracy_original"] == 0.75
    assert scalars["accuracy_resynthesised"] == 0.25
    assert scalars["ece_original"] == pytest.approx((0.75 - 0.5) / 2 + (1 - 0.95) / 2)
    assert scalars["ece_resynthesised"] == pytest.approx((0.75 - 0.5) / 2 + (0.95 - 0) / 2)
    assert scalars["ece"] == pytest.approx((0.75 - 0.5) / 2 + (0.95 - 0.5) / 2)


def test_best_temperature_undoes_a_known_one() -> None:
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.ones(5), 20000))
    labels = np.array([rng.choice(5, p=np.exp(row)) for row in log_probs])
    temperature = emotion.best_temperature(torch.from_numpy(3 * log_probs), torch.from_numpy(labels))
    assert temperature == pytest.approx(3, rel=0.03)
    assert metrics.expected_calibration_error(log_probs, labels) < 0.02
    assert metrics.expected_calibration_error(torch.from_numpy(3 * log_probs).log_softmax(1).numpy(), labels) > 0.1


class TestRecogniser:
    def test_loss_equals_the_sum_over_alignments(self) -> None:
        """One phone in two steps: the paths (a a), (a -), (- a)."""
        model = _recogniser()
        F = torch.randn(1, 4, AUDIO.n_mels)
        p = model.log_probs(F, torch.tensor([4]))[0][0].exp().detach()
        expected = -torch.log(p[0, 1] * p[1, 1] + p[0, 1] * p[1, 0] + p[0, 0] * p[1, 1])
        assert model.ctc_loss(F, torch.tensor([4]), [("a",)])[0].item() == pytest.approx(expected.item(), rel=1e-4)

    def test_loss_is_per_phone_and_a_sample_each(self, frames: Frames) -> None:
        F, lengths = frames
        texts = [("a", "b"), ("c",), ("b", "a", "c", "a"), ("a",)]
        together = _recogniser().ctc_loss(F, lengths, texts)
        for row, text in enumerate(texts):
            alone = _recogniser().ctc_loss(F[row : row + 1, : lengths[row]], lengths[row : row + 1], [text])
            assert together[row].item() == pytest.approx(alone[0].item(), rel=1e-3)

    def test_loss_is_divided_by_the_number_of_phones(self, frames: Frames) -> None:
        F, lengths = frames
        model = _recogniser()
        log_probs, steps = model.log_probs(F, lengths)
        targets, sizes = torch.tensor([[1, 2, 3]] * 4), torch.tensor([3] * 4)
        total = torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), targets, steps, sizes, reduction="none")
        assert torch.allclose(model.ctc_loss(F, lengths, [PHONES] * 4), total / 3)

    def test_transcript_stops_where_the_sample_does(self, frames: Frames) -> None:
        F, lengths = frames
        model = _recogniser()
        together = model.transcribe(torch.nn.functional.pad(F, (0, 0, 0, 40), value=2.0), lengths)
        assert any(together)
        short = model.transcribe(F, torch.full((4,), 2))  # one step
        assert all(len(phones) <= 1 for phones in short)
        for row, size in enumerate(lengths.tolist()):
            assert model.transcribe(F[row : row + 1, :size], lengths[row : row + 1]) == [together[row]]

    def test_gradient_reaches_valid_frames_only(self, frames: Frames) -> None:
        F, lengths = frames[0].clone().requires_grad_(), frames[1]
        _recogniser().requires_grad_(False).ctc_loss(F, lengths, [("a", "b")] * 4).sum().backward()
        assert F.grad is not None
        outside = torch.arange(F.shape[1])[None, :] >= lengths[:, None]
        assert (F.grad[outside] == 0).all()
        assert (F.grad[~outside].abs().sum(1) > 0).all()

    def test_gradient_descent_on_frames_makes_them_say_the_phones(self) -> None:
        model = _recogniser().requires_grad_(False)
        F = torch.randn(1, 20, AUDIO.n_mels, generator=torch.Generator().manual_seed(0)).requires_grad_()
        optimizer = torch.optim.Adam([F], lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            model.ctc_loss(F, torch.tensor([20]), [("a", "c", "c", "b")]).sum().backward()
            optimizer.step()
        assert model.transcribe(F, torch.tensor([20])) == [["a", "c", "c", "b"]]

    def test_too_short_is_as_bad_as_guessing_and_pulls_nowhere(self) -> None:
        F = torch.randn(2, 4, AUDIO.n_mels, requires_grad=True)
        loss = _recogniser().ctc_loss(F, torch.tensor([4, 4]), [("a", "a"), ("a", "b")])
        loss.sum().backward()
        assert F.grad is not None
        assert loss[0].item() == pytest.approx(np.log(len(PHONES) + 2))  # equal phones need three steps, two are there
        assert F.grad[0].abs().sum() == 0
        assert F.grad[1].abs().sum() > 0

    def test_unknown_phones_are_errors_not_crashes(self) -> None:
        model = _recogniser()
        assert model.phones == (*PHONES, UNKNOWN)
        loss = model.ctc_loss(torch.randn(1, 8, AUDIO.n_mels), torch.tensor([8]), [("ŋ", "a")])
        assert torch.isfinite(loss).all()

    def test_level_and_tilt_are_taken_out(self, frames: Frames) -> None:
        F, lengths = frames
        tilt = torch.linspace(-1, 1, F.shape[2])
        model = _recogniser()
        before, after = (model.log_probs(x, lengths)[0][0, : int(lengths[0]) // 2] for x in (F, F + tilt))
        assert torch.allclose(before, after, atol=1e-4)

    def test_stage(self, stages: dict[str, Path], tmp_path: Path) -> None:
        config = RecogniserConfig(dim=48, steps=150, batch=8, lr=4e-3)
        recogniser.build(config, {"speech": stages["words"], "codec": stages["codec"]}, tmp_path, Context())
        scalars = json.loads((tmp_path / "scalars.json").read_text())
        assert set(scalars) == {"phone_error_rate_original", "phone_error_rate_resynthesised"}
        speech = SpeechSet.load(stages["words"])
        n_heldout = 3  # a tenth of 30
        model = Recogniser.load(tmp_path)
        seen = speech.utterances[:-n_heldout]
        assert set(model.phones) == {phone for utterance in seen for phone in utterance.phones} | {UNKNOWN}
        transcripts = model.transcribe(*speech.batch(range(len(seen))))
        assert metrics.phone_error_rate(transcripts, [utterance.phones for utterance in seen]) < 0.8
        last = range(len(seen), len(speech))
        unseen = metrics.phone_error_rate(
            model.transcribe(*speech.batch(last)), [speech.utterances[i].phones for i in last]
        )
        assert unseen == pytest.approx(scalars["phone_error_rate_original"])
