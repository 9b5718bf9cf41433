"""What a regulariser of the reward model is: where it enters Eq. 5, what it must move, and how strongly it acts.

Imports no torch, so that planning and reporting can read names, strengths and checks; a regulariser's methods may.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rrpo.config import RegularizerConfig
from rrpo.models.signals import LOG_MEL, Signal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rrpo.corpus.features import SpeechSet
    from rrpo.models.reward_model import RewardModel

SampleLoss = Callable[["Tensor", "Tensor"], "Tensor"]
"""``logits [B, K], y [B, K]`` -> losses ``[B]``."""
HiddenLoss = Callable[["Tensor"], "Tensor"]
"""``h' [B, T', D]`` -> losses ``[B]``: what the reward model's head and the mixed targets make of encoder outputs; or of frames
``F [B, T, M]``, for a term of the level ``input``."""
LEVELS = ("hidden", "input")
"""Where a further term is taken: at the encoder's output h', or at the mixed frames F."""

PAPER = RegularizerConfig()
"""The paper's values, which stand in the config alone."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One strength, as arms set it and studies search it."""

    name: str
    """A field of the regulariser, unless `Regularizer.at` says otherwise."""
    on: float
    """Value in arms that have the regulariser: the paper's value for RRPO's own."""
    off: float | None = None
    """Identity value; None for a strength that does nothing while the others are off, such as the size of a perturbation."""
    low: float
    """Lower end of the range searched."""
    high: float
    """Upper end."""
    log: bool = False
    """Whether the range is searched on a logarithmic scale."""
    limits: tuple[float, float] = (-inf, inf)
    """What the strength can mean at all; other values are refused."""
    surface: bool = False
    """Whether it is an axis of the response surface."""


def strength(on: float, *, search: tuple[float, float], **knob: Any) -> float:
    """A field of a regulariser that is a strength: its value in arms that have it, the range searched, the rest of its `Knob`."""
    low, high = search
    found: float = dataclasses.field(default=on, metadata={"knob": {"low": low, "high": high} | knob})
    return found


@dataclass(frozen=True, kw_only=True)
class ManipulationCheck:
    """What a regulariser must move in the reward model; one that did not move it has not been tested."""

    scalar: str
    """Name of the scalar: one of the stage ``examine``, or one that `Regularizer.measure` gives."""
    direction: int
    """+1 where the regulariser must raise it, -1 where it must lower it."""
    text: str
    """The measure in words; the heading of its column in the table of reward models."""
    asked: str = ""
    """Scalar that is 1 for a reward model of which the regulariser's training asked anything, else 0; empty: no such rule."""
    weak: str = ""
    """What is said where most of its reward models have a 0 there."""


@dataclass(frozen=True)
class Batch:
    """What one step of fine-tuning works on."""

    F: Tensor
    """Log-mel frames ``[B, T, M]``; padding holds any finite number."""
    lengths: Tensor
    """Frames of each utterance ``[B]``."""
    targets: tuple[tuple[Tensor, Tensor], ...]
    """Weights ``[B]`` and label distributions ``[B, K]``; a sample's loss is the weighted sum of its losses by each."""
    floor: float
    """Smallest mel power before the logarithm, or power of a silent sample."""
    scalars: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """What was noted on the way, by name; without gradient."""
    signal: Signal = LOG_MEL
    """What F holds."""


@dataclass(frozen=True)
class Term:
    """A further term of the objective: ``weight`` times the mean of ``losses``."""

    weight: float
    """Its factor; 0 adds exact zeros."""
    losses: Tensor
    """Losses ``[B]``."""
    scalars: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """What was noted on the way, by name; without gradient."""


@dataclass(frozen=True, kw_only=True)
class Regularizer:
    """Base class: every hook is the identity. A regulariser is a frozen dataclass that overrides the hooks it needs.

    Its fields are its strengths (`strength`). Where those with an off value are at it, what is learnt equals plain fine-tuning
    bit for bit, on the same code path. It keeps no state, and all its randomness comes from `draws`.
    `rrpo.testing.regularizers.RegularizerContract` tests this.
    """

    label: ClassVar[str]
    """For people, in tables and figures: ``LS``."""
    check: ClassVar[ManipulationCheck | None] = None
    """What it must move in the reward model; None: it counts as tested."""
    source: ClassVar[str] = ""
    """Who proposed it, and where."""
    equation: ClassVar[str] = ""
    """Its formula in one line."""
    control_of: ClassVar[str] = ""
    """Name of the component that it is a control of: an arm by itself, to be held against that component's. Empty: it is a
    component, whose presence doubles the factorial."""
    version: ClassVar[int] = 0
    """Of one of this package's controls: raised when what it computes changes, so that the reward models that have it become
    stale and no others. 0 for RRPO's own, which the version of the stage guards, and for plugins, which the hash of their file
    guards."""
    term: ClassVar[str] = ""
    """Scalar that holds the mean of its `extra` losses; empty: it has none."""
    level: ClassVar[str] = "hidden"
    """One of `LEVELS`: where its `extra` losses are taken."""
    scalars: ClassVar[tuple[str, ...]] = ()
    """Further scalars that its hooks note at every step."""
    measures: ClassVar[tuple[str, ...]] = ()
    """Scalars of a finished reward model that `measure` gives."""
    paper: ClassVar[bool] = False
    """Whether it is one of RRPO's own three, whose strengths are fields of `RegularizerConfig`."""

    def __post_init__(self) -> None:
        """Raises ValueError for a strength outside its limits; whole numbers become real, so that equal strengths are equal."""
        for knob in self.own_knobs():
            low, high = knob.limits
            if not (low <= knob.on <= high and -inf < knob.on < inf):
                raise ValueError(f"{knob.name} must be finite and within {low:g} to {high:g}, got {knob.on!r}")
            object.__setattr__(self, knob.name, float(knob.on))

    def own_knobs(self) -> tuple[Knob, ...]:
        """The fields declared by `strength`, on at the values that they have here."""
        found = [f for f in dataclasses.fields(self) if "knob" in f.metadata]
        return tuple(Knob(name=f.name, on=getattr(self, f.name), **f.metadata["knob"]) for f in found)

    def knobs(self) -> tuple[Knob, ...]:
        """What studies search; by default `own_knobs`."""
        return self.own_knobs()

    @classmethod
    def at(cls, knobs: Mapping[str, float]) -> dict[str, Any]:
        """The fields' values at given values of `knobs`; by default knobs are fields."""
        return dict(knobs)

    @classmethod
    def of(cls, config: RegularizerConfig) -> Self:
        """One of RRPO's own (`paper`) with the strengths of a config."""
        return cls(**{f.name: getattr(config, f.name) for f in dataclasses.fields(cls)})

    @property
    def is_off(self) -> bool:
        """Whether every strength that has an off value is at it."""
        return all(getattr(self, knob.name) == knob.off for knob in self.own_knobs() if knob.off is not None)

    @property
    def off_values(self) -> dict[str, Any]:
        """Identity values of the strengths that switch it."""
        return {knob.name: knob.off for knob in self.own_knobs() if knob.off is not None}

    @property
    def on_values(self) -> dict[str, Any]:
        """Values of the same strengths where it is on: those that it has here."""
        return {name: getattr(self, name) for name in self.off_values}

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        """The noise of one step for frames of ``shape`` ``(B, T, M)``, the same whatever the strengths; by default none.

        Keyed by seed and step (`rrpo.seeding.uniform`), never drawn in sequence; the first axis is the sample.
        """
        import torch

        return torch.empty(shape[0], 0)

    def targets(self, y: Tensor) -> Tensor:
        """Label distributions ``[B, K]`` -> ``[B, K]``."""
        return y

    def mix(self, batch: Batch, draws: Tensor) -> Batch:
        """The batch that the reward model hears, and its weighted targets. ``draws`` are those of `draws`."""
        return batch

    def loss(self, inner: SampleLoss) -> SampleLoss:
        """The form of the loss of a sample, made of the one so far (at first `cross_entropy`)."""
        return inner

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        """A further term of the objective; asked for where `term` names it.

        Args:
            losses: ``h' [B, T', D]`` -> losses ``[B]`` of the batch's targets.
            h: Encoder output ``[B, T', D]``; where `level` is ``input``, the frames F ``[B, T, M]``.
            mask: Valid frames ``[B, T']``.
            draws: Those of `draws`.
        """
        raise NotImplementedError(f"{type(self).__name__} names a term, {self.term!r}, but has no method extra")

    @staticmethod
    def measure(model: RewardModel, speech: SpeechSet, device: str) -> dict[str, float]:
        """The scalars `measures` of a finished reward model, of any arm, on ``rm_valid``.

        For a `check` by what the stage ``examine`` does not measure.
        """
        return {}


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``-sum_k y_k log p_k``: ``logits [B, K], y [B, K]`` -> ``[B]``."""
    return -(y * logits.log_softmax(1)).sum(1)
