"""Contract tests of an emotion judge.

    from rrpo.testing.judges import JudgeContract

    class TestMine(JudgeContract):
        judge = MyJudge

`HearingContract` contains the tests for any trained judge; `JudgeContract` adds those for a registered one.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.judges.protocol import Judge, TrainedJudge
from rrpo.training.data import Frames

EMOTIONS = ("angry", "happy", "sad")
AUDIO = AudioConfig()
UTTERANCES = 24
"""Number of utterances, each in two renditions."""


def toy_speech(seed: int = 0) -> tuple[Frames, Tensor]:
    """Return speech whose emotion is its loud frequency band, and labels ``[N]``: originals, then slightly changed copies."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(UTTERANCES) % len(EMOTIONS)
    width = AUDIO.n_mels // len(EMOTIONS)
    originals = []
    for label in labels.tolist():
        frames = torch.randn(int(torch.randint(20, 60, (), generator=generator)), AUDIO.n_mels, generator=generator) - 4
        frames[:, label * width : (label + 1) * width] += 3
        originals.append(frames)
    changed = [frames + 0.3 * torch.randn(frames.shape, generator=generator) for frames in originals]
    return Frames([*originals, *changed], AUDIO.floor), labels.repeat(2)


class HearingContract:
    """Subclass it and implement `trained`, which returns a judge of `EMOTIONS`."""

    tolerance: ClassVar[float] = 1e-4
    """Tolerance for log-probabilities that should be equal."""

    def trained(self) -> TrainedJudge:
        """Return a trained judge; its accuracy does not matter."""
        raise NotImplementedError

    def test_it_returns_log_probabilities(self) -> None:
        judge = self.trained()
        F, lengths = toy_speech()[0].batch(torch.arange(5))
        log_probs = judge.log_probs(F, lengths)
        assert log_probs.shape == (5, len(judge.emotions))
        assert torch.isfinite(log_probs).all(), "a zero probability needs a floor"
        assert torch.allclose(log_probs.double().exp().sum(1).cpu(), torch.ones(5).double(), atol=1e-3)

    def test_padding_and_neighbours_do_not_matter(self) -> None:
        judge, (frames, _) = self.trained(), toy_speech()
        order = frames.lengths.argsort()
        together = judge.log_probs(*frames.batch(order[[0, len(order) // 2, -1]]))[0]
        alone = judge.log_probs(*frames.batch(order[:1]))[0]
        assert torch.allclose(together, alone, atol=self.tolerance)
        F, lengths = frames.batch(order[[0, -1]])
        F[0, lengths[0] :] = 7.0
        assert torch.allclose(judge.log_probs(F, lengths)[0], alone, atol=self.tolerance), (
            "frames beyond an utterance's length"
        )

    def test_an_empty_sample_has_finite_log_probabilities(self) -> None:
        F, _ = toy_speech()[0].batch(torch.arange(3))
        assert torch.isfinite(self.trained().log_probs(F, torch.tensor([0, 1, 20]))).all()

    def test_the_input_is_not_modified(self) -> None:
        F, lengths = toy_speech()[0].batch(torch.arange(3))
        before = F.clone(), lengths.clone()
        self.trained().log_probs(F, lengths)
        assert torch.equal(F, before[0])
        assert torch.equal(lengths, before[1])

    def test_a_saved_judge_loads_unchanged(self, tmp_path: Path) -> None:
        judge = self.trained()
        judge.save(tmp_path)
        assert not {"stage.json", "scalars.json"} & {path.name for path in tmp_path.iterdir()}
        loaded = type(judge).load(tmp_path)
        assert tuple(loaded.emotions) == tuple(judge.emotions)
        F, lengths = toy_speech(1)[0].batch(torch.arange(5))
        assert torch.equal(loaded.log_probs(F, lengths), judge.log_probs(F, lengths))


class JudgeContract(HearingContract):
    """Contract of a class that can be registered in `rrpo.judges.protocol.JUDGES`."""

    judge: type[Judge]
    """The class under test."""
    learns: ClassVar[bool] = True
    """Whether the judge learns from its training data; False if there is nothing to train."""

    def trained(self, seed: int = 0) -> Judge:
        """Return a judge trained on toy speech."""
        frames, labels = toy_speech()
        return self.judge.train(frames, labels, EMOTIONS, AUDIO, seed)

    def test_it_has_a_label_and_a_veto_flag(self) -> None:
        assert isinstance(self.judge.label, str)
        assert self.judge.label.strip()
        assert isinstance(self.judge.veto, bool)

    def test_training_is_repeatable(self) -> None:
        F, lengths = toy_speech(1)[0].batch(torch.arange(5))
        first, second = (self.trained().log_probs(F, lengths) for _ in range(2))
        assert torch.equal(first, second), "randomness must come only from the seed"

    def test_it_learns_the_toy_emotions(self) -> None:
        judge = self.trained()
        if not self.learns:
            return
        assert tuple(judge.emotions) == EMOTIONS
        frames, labels = toy_speech(1)
        predictions = judge.log_probs(*frames.batch(torch.arange(len(labels)))).argmax(1).cpu()
        assert (predictions == labels).float().mean() > 0.6, "the toy emotions are easy to classify; chance is a third"
