"""Protocol of a user's own judge: one class in one file, registered in `JUDGES`.

It becomes an additional stage of every cell with a policy and evaluates every stored sample, like the ``test`` judge. Its
columns ``<name>`` (the predicted emotion) and ``<name>_logprob`` are added to the record's table of samples, and
`ablations.judges` adds it to the judges in reports. No other stage reads its results, so registering a judge changes no stored
key. `rrpo.testing.judges.JudgeContract` tests it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from rrpo.plugins import Choice, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.corpus.config import AudioConfig
    from rrpo.training.data import Frames

RESERVED = frozenset(
    (
        *("step", "prompt", "target", "proxy", "common", "phones", "tokens", "seconds"),
        *("test", "val", "third", "phonetics", "voice", "naturalness", "intensity", "whisper", "hama", "own", "others"),
        "heldout",  # a split of judges' data, ``judge_heldout``
    )
)
"""Column names that records and their tables already use."""


class TrainedJudge(Protocol):
    """Probabilities of emotions from log-mel frames."""

    emotions: tuple[str, ...]
    """Class names, in the order of the columns of `log_probs`."""

    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [B, T, M], lengths [B]`` in frames -> log-probabilities ``[B, K]``, on any device.

        F is padded: padding and other utterances in the batch must not affect the result. A length may be 0. Use
        `rrpo.judges.spoken.waves_of` to get waves.
        """

    def save(self, folder: Path) -> None:
        """Write the files for `load` into the existing ``folder``, under any names except ``stage.json`` and ``scalars.json``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a judge written by `save`."""


class Judge(TrainedJudge, Protocol):
    """An emotion judge that can be registered."""

    label: ClassVar[str]
    """Name for display: ``centroid judge``."""
    veto: ClassVar[bool]
    """Whether an interval of this judge wholly on the other side of 0 revokes a difference's verdict; otherwise it is only
    reported."""

    @classmethod
    def train(cls, frames: Frames, labels: Tensor, emotions: tuple[str, ...], audio: AudioConfig, seed: int) -> Self:
        """Return a trained judge; a judge without training ignores the data.

        Args:
            frames: Speech that no other model uses: ``frames.batch(rows)`` returns ``F [B, T, M], lengths [B]``. The first half
                are utterances as analyzed, the second half the same utterances after the codec, in the same order.
            labels: Class ``[N]`` of each row of ``frames``.
            emotions: Names of the classes.
            audio: Analysis config of the frames; `rrpo.judges.spoken.waves_of` needs it to vocode them.
            seed: The world's seed.
        """


JUDGES: Registry[type[Judge]] = Registry("judge", reserved=RESERVED)
"""Judges of users, by name. The package's own (``test``, ``val``, third) have their own stages."""


@dataclass(frozen=True, kw_only=True)
class JudgeTrainingConfig:
    """Training of one registered judge, once per world."""

    judge: Choice
    """The judge."""
    seed: int = 0
    """The world's seed."""


@dataclass(frozen=True, kw_only=True)
class OpinionConfig:
    """Evaluation of a cell's samples by one registered judge."""

    judge: Choice
    """The judge."""
