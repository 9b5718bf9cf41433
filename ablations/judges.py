"""The judges of emotion, declared once: outcomes, verdicts, figures and studies iterate over `judges`.

They are the package's own (`BUILT_IN`) and those that plugins register (`rrpo.judges.protocol.JUDGES`). A judge's name is the
prefix of its columns: ``<name>`` is the emotion that it hears in a sample, ``<name>_accuracy`` and
``<name>_logprob`` are those of a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrpo.judges.protocol import JUDGES

GOLD, VETO, LISTENER = "gold", "veto", "listener"
"""Roles: outcomes are read by the one gold judge; one with a veto can only take a verdict away; a listener is only reported."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One judge."""

    name: str
    """Prefix of its columns."""
    label: str
    """For people."""
    role: str
    """`GOLD`, `VETO` or `LISTENER`."""
    asked: str
    """Of which samples it is asked."""
    tuning: bool = False
    """Whether training is watched and searches are led by it, which makes it unfit for gold."""

    @property
    def accuracy(self) -> str:
        """Column of the points: share of samples whose target it hears."""
        return f"{self.name}_accuracy"

    @property
    def logprob(self) -> str:
        """Column of the points: its mean log-probability of the target."""
        return f"{self.name}_logprob"

    @property
    def clean(self) -> str:
        """Column of the points and curves: this judge hears the target, and no artefact is flagged in the frames."""
        return f"{self.name}_clean"

    @property
    def hack_rate(self) -> str:
        """Column of the points and curves: proxy right where this judge is not, or an artefact is flagged."""
        return f"{self.name}_hack_rate"


BUILT_IN: list[Judge] = [
    Judge(name="test", label="`test` judge", role=GOLD, asked="every stored checkpoint"),
    Judge(name="val", label="`val` judge", role=VETO, asked="training and every stored checkpoint", tuning=True),
    Judge(name="third", label="third judge", role=VETO, asked="the first, the middle and the last checkpoint"),
]
"""The gold judge first."""


def registered() -> list[Judge]:
    """The judges of plugins, in the order in which they were registered."""
    return [
        Judge(name=name, label=kind.label, role=VETO if kind.veto else LISTENER, asked="every stored checkpoint")
        for name, kind in JUDGES.items()
    ]


def judges() -> list[Judge]:
    """All of them, the gold judge first."""
    return [*BUILT_IN, *registered()]


def gold() -> Judge:
    """The judge of outcomes."""
    return next(judge for judge in BUILT_IN if judge.role == GOLD)


def vetoing() -> list[Judge]:
    """The judges whose own interval on the other side of 0 takes a difference's verdict away."""
    return [judge for judge in judges() if judge.role == VETO]


def tuning() -> Judge:
    """The judge of curves and searches."""
    return next(judge for judge in BUILT_IN if judge.tuning)
