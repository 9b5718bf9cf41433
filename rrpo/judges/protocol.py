"""What a judge of your own is: one class in one file, registered in `JUDGES`.

It becomes one more stage of every cell that has a policy, and hears every stored sample as the ``test`` judge does: its columns
``<name>`` (the emotion it hears) and ``<name>_logprob`` stand beside the others' in the record's table of samples, and
`ablations.judges` adds it to the judges that reports iterate over. No other stage reads what it finds, so registering one
changes no stored key. `rrpo.testing.judges.JudgeContract` tests it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from rrpo.plugins import Choice, PluginError, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.corpus.config import AudioConfig
    from rrpo.training.data import Frames

RESERVED = frozenset(
    (
        *("step", "prompt", "target", "proxy", "common", "phones", "tokens", "seconds"),
        *("test", "val", "third", "phonetics", "voice", "naturalness", "own", "others"),
    )
)
"""Names that columns of a record or its tables have already."""


class Judge(Protocol):
    """An emotion judge: probabilities of emotions from log-mel frames."""

    label: ClassVar[str]
    """For people: ``centroid judge``."""
    veto: ClassVar[bool]
    """Whether an interval of its own on the other side of 0 takes a difference's verdict away; else it is only reported."""
    emotions: tuple[str, ...]
    """Its classes, in the order of the columns of `log_probs`."""

    @classmethod
    def train(cls, frames: Frames, labels: Tensor, emotions: tuple[str, ...], audio: AudioConfig, seed: int) -> Judge:
        """A judge that is ready; one that has nothing to train ignores the data. Options of its `Choice` are keywords.

        Args:
            frames: The judge's own speech, no other model's: ``frames.batch(rows)`` gives ``F [B, T, M], lengths [B]``. The first
                half are utterances as analysed, the second half the same utterances after the codec, in the same order.
            labels: Class ``[N]`` of each row of ``frames``.
            emotions: Names of the classes.
            audio: Analysis of the frames; `rrpo.judges.spoken.waves_of` needs it to make waves of them.
            seed: The world's.
        """

    def log_probs(self, F: Tensor, lengths: Tensor) -> Tensor:
        """``F [B, T, M], lengths [B]`` in frames -> log-probabilities ``[B, K]``, on any device.

        F is padded: what lies past an utterance's length, and its neighbours in the batch, must not matter. A length may be 0.
        A judge of waves makes them by `rrpo.judges.spoken.waves_of`.
        """

    def save(self, folder: Path) -> None:
        """Write what `load` needs into the existing ``folder``, under any names but ``stage.json`` and ``scalars.json``."""

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """Read what `save` wrote."""


class _Judges(Registry[type[Judge]]):
    def register(self, name: str, item: type[Judge]) -> type[Judge]:
        if name in RESERVED:
            raise PluginError("a judge has the name of a record's column", got=name, fix="choose another name")
        return super().register(name, item)


JUDGES: Registry[type[Judge]] = _Judges("judge")
"""Judges of users, by name. The package's own (``test``, ``val``, third) have stages of their own."""


@dataclass(frozen=True, kw_only=True)
class JudgeTrainingConfig:
    """Training of one registered judge, once for a world."""

    judge: Choice
    """Which."""
    seed: int = 0
    """The world's."""


@dataclass(frozen=True, kw_only=True)
class OpinionConfig:
    """What one registered judge hears in a cell's samples."""

    judge: Choice
    """Which."""
