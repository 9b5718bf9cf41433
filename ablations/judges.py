"""The judges of emotion, over which outcomes, verdicts, figures and studies iterate (`judges`).

They are the built-in judges (`BUILT_IN`) and those that plugins register (`rrpo.judges.protocol.JUDGES`). A judge's name is the
prefix of its columns: ``<name>`` is the emotion that it predicts for a sample; ``<name>_accuracy`` and ``<name>_logprob`` are
measured at each checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrpo.judges.protocol import JUDGES

GOLD, VETO, LISTENER = "gold", "veto", "listener"
"""Roles. The one gold judge measures outcomes; a judge with a veto can only withdraw a verdict; a listener is only reported."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One judge."""

    name: str
    """Prefix of its columns."""
    label: str
    """Readable name."""
    role: str
    """`GOLD`, `VETO` or `LISTENER`."""
    tuning: bool = False
    """Whether it is used to monitor training and to guide searches. Such a judge must not be gold."""

    @property
    def accuracy(self) -> str:
        """Column of the points: share of samples whose predicted emotion is the target."""
        return f"{self.name}_accuracy"

    @property
    def logprob(self) -> str:
        """Column of the points: its mean log-probability of the target."""
        return f"{self.name}_logprob"

    @property
    def clean(self) -> str:
        """Column of the points and curves: share of samples that it predicts as the target and that have no artefact which frames
        show (repetition, odd length and phones are not checked)."""
        return f"{self.name}_clean"

    @property
    def hack_rate(self) -> str:
        """Column of the points and curves: share of samples that the proxy predicts as the target, and that this judge does not
        or that have a planted artefact."""
        return f"{self.name}_hack_rate"


BUILT_IN: list[Judge] = [
    Judge(name="test", label="test judge", role=GOLD),
    Judge(name="val", label="val judge", role=VETO, tuning=True),
    Judge(name="third", label="third judge", role=VETO),
]
"""The built-in judges, gold first."""


def registered() -> list[Judge]:
    """Return the judges of plugins, in order of registration."""
    return [Judge(name=name, label=kind.label, role=VETO if kind.veto else LISTENER) for name, kind in JUDGES.items()]


def judges() -> list[Judge]:
    """Return all judges, gold first."""
    return [*BUILT_IN, *registered()]


def gold() -> Judge:
    """Return the judge that measures outcomes."""
    return next(judge for judge in BUILT_IN if judge.role == GOLD)


def vetoing() -> list[Judge]:
    """Return the judges with a veto. One withdraws a difference's verdict if its own interval lies on the other side of 0."""
    return [judge for judge in judges() if judge.role == VETO]


def tuning() -> Judge:
    """Return the judge used for curves and searches."""
    return next(judge for judge in BUILT_IN if judge.tuning)
