"""Base class of the reward model's regularizers: where one enters Eq. 5, what it must change, and how strongly it acts.

Imports no torch, so that planning and reporting can read names, strengths and checks; a regularizer's methods may import it.
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
"""``h' [B, T', D]`` -> losses ``[B]`` by the reward model's head and the mixed targets; for a term at the level ``input``, of
frames ``F [B, T, M]``."""
PAPER = RegularizerConfig()
"""The paper's values, which are defined only in the config."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One strength, as set by arms and searched by studies."""

    name: str
    """A field of the regularizer, unless `Regularizer.at` maps it to other fields."""
    on: float
    """Value in arms with the regularizer; the paper's value for RRPO's own."""
    off: float | None = None
    """Identity value; None for a strength without effect while the others are off, such as the size of a perturbation."""
    low: float
    """Lower end of the search range."""
    high: float
    """Upper end of the search range."""
    log: bool = False
    """Whether the search scale is logarithmic."""
    limits: tuple[float, float] = (-inf, inf)
    """Valid range; other values are rejected."""
    surface: bool = False
    """Whether it is an axis of the response surface."""


def strength(on: float, *, search: tuple[float, float], **knob: Any) -> float:
    """Declare a field of a regularizer as a strength: its value in arms, the search range, and the rest of its `Knob`."""
    low, high = search
    field: float = dataclasses.field(default=on, metadata={"knob": {"low": low, "high": high} | knob})
    return field


@dataclass(frozen=True, kw_only=True)
class ManipulationCheck:
    """Effect that a regularizer must have on the reward model. Without it, the absence of other effects says nothing."""

    scalar: str
    """Name of the scalar, from the stage ``examine`` or from `Regularizer.measure`."""
    direction: int
    """+1 if the regularizer must increase it, -1 if it must decrease it."""
    text: str
    """Description of the measure; the heading of its column in the table of reward models."""
    activity: str = ""
    """Scalar that shows whether the regularizer acted on a reward model at all; empty: no such rule."""
    at_least: float = 0.0
    """Value of that scalar from which it did."""
    weak: str = ""
    """Message if the scalar is smaller in most of its reward models."""


CONFIDENCE = ManipulationCheck(scalar="rm_confidence", direction=-1, text="confidence")
SMOOTHNESS = ManipulationCheck(scalar="rm_smoothness", direction=+1, text="smoothness along interpolations")
PGD_ACCURACY = ManipulationCheck(
    scalar="rm_pgd_accuracy_0.1", direction=+1, text="accuracy under PGD at a relative radius of 0.1"
)
"""Checks of several regularizers."""


LEVELS = ("hidden", "input")


@dataclass(frozen=True)
class Batch:
    """Input of one step of fine-tuning."""

    F: Tensor
    """Log-mel frames ``[B, T, M]``; padding may hold any finite number."""
    lengths: Tensor
    """Frames of each utterance ``[B]``."""
    targets: tuple[tuple[Tensor, Tensor], ...]
    """Weights ``[B]`` and label distributions ``[B, K]``; a sample's loss is the weighted sum of its losses for each."""
    floor: float
    """Smallest mel power before the logarithm, or power of a silent sample."""
    scalars: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """Recorded values by name; without gradient."""
    signal: Signal = LOG_MEL
    """What F holds."""


@dataclass(frozen=True)
class Term:
    """An additional term of the objective: ``weight`` times the mean of ``losses``."""

    weight: float
    """Factor of the term; 0 adds exact zeros."""
    losses: Tensor
    """Losses ``[B]``."""
    scalars: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """Recorded values by name; without gradient."""


@dataclass(frozen=True, kw_only=True)
class Regularizer:
    """Base class in which every hook is the identity. A regularizer is a frozen dataclass that overrides the hooks it needs.

    Its fields are its strengths (`strength`). With all off values set, training equals plain fine-tuning bit for bit, on the
    same code path. It keeps no state, and all its randomness comes from `draws`.
    `rrpo.testing.regularizers.RegularizerContract` tests this.
    """

    label: ClassVar[str]
    """Name in tables and figures: ``LS``."""
    check: ClassVar[ManipulationCheck | None] = None
    """Effect that it must have on the reward model; None: it counts as tested."""
    source: ClassVar[str] = ""
    """Authors or paper."""
    equation: ClassVar[str] = ""
    """Its formula in one line."""
    control_of: ClassVar[str] = ""
    """Name of the component that it is a control of. A control is a single arm, compared with that component's arm. Empty: it
    is a component, which doubles the factorial."""
    version: ClassVar[int] = 0
    """Version of a control of this package. Raise it when its computation changes: exactly the reward models that use it become
    stale. 0 for RRPO's own, which the version of the stage guards, and for plugins, which the hash of their file guards."""
    term: ClassVar[str] = ""
    """Scalar with the mean of its `extra` losses; empty: it has none."""
    level: ClassVar[str] = "hidden"
    """One of `LEVELS`: where its `extra` losses are taken, at h' or at the frames."""
    scalars: ClassVar[tuple[str, ...]] = ()
    """Additional scalars that its hooks record at every step."""
    measures: ClassVar[tuple[str, ...]] = ()
    """Scalars of a trained reward model that `measure` returns."""
    paper: ClassVar[bool] = False
    """Whether it is one of RRPO's own three, whose strengths are fields of `RegularizerConfig`. Not inherited."""

    def __init_subclass__(cls) -> None:
        """Make a class that is derived from one of RRPO's own a regularizer beside it."""
        super().__init_subclass__()
        cls.paper = vars(cls).get("paper", False)

    def __post_init__(self) -> None:
        """Raise ValueError for a strength outside its limits. Convert integers to floats, so that equal strengths compare
        equal."""
        for knob in self.own_knobs():
            low, high = knob.limits
            if not (low <= knob.on <= high and -inf < knob.on < inf):
                raise ValueError(f"{knob.name} must be finite and within {low:g} to {high:g}, got {knob.on!r}")
            object.__setattr__(self, knob.name, float(knob.on))

    def own_knobs(self) -> tuple[Knob, ...]:
        """Return the fields declared by `strength`, with their values here as ``on``."""
        fields = [field for field in dataclasses.fields(self) if "knob" in field.metadata]
        return tuple(Knob(name=field.name, on=getattr(self, field.name), **field.metadata["knob"]) for field in fields)

    def knobs(self) -> tuple[Knob, ...]:
        """Return the knobs that studies search; by default `own_knobs`."""
        return self.own_knobs()

    @classmethod
    def at(cls, knobs: Mapping[str, float]) -> dict[str, Any]:
        """Return the fields' values for given values of `knobs`; by default knobs are fields."""
        return dict(knobs)

    @classmethod
    def of(cls, config: RegularizerConfig) -> Self:
        """Create one of RRPO's own (`paper`) with the strengths of a config."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})

    @property
    def is_off(self) -> bool:
        """Whether every strength with an off value is at that value."""
        return self.on_values == self.off_values

    @property
    def off_values(self) -> dict[str, Any]:
        """Identity values of the strengths that switch it off."""
        return {knob.name: knob.off for knob in self.own_knobs() if knob.off is not None}

    @property
    def on_values(self) -> dict[str, Any]:
        """Values of the same strengths where it is on, taken from this instance."""
        return {name: getattr(self, name) for name in self.off_values}

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        """Return the noise of one step for frames of ``shape`` ``(B, T, M)``, independent of the strengths; by default none.

        It must be keyed by seed and step (`rrpo.seeding.uniform`), never drawn in sequence; the first axis is the sample.
        """
        import torch

        return torch.empty(shape[0], 0)

    def targets(self, y: Tensor) -> Tensor:
        """Transform label distributions ``[B, K]`` -> ``[B, K]``."""
        return y

    def mix(self, batch: Batch, draws: Tensor) -> Batch:
        """Return the batch for the reward model, with its weighted targets, made by `dataclasses.replace`: it holds what earlier
        regularizers measured. ``draws`` come from the method `draws`."""
        return batch

    def loss(self, inner: SampleLoss) -> SampleLoss:
        """Wrap the loss of a sample, given the loss so far (initially `cross_entropy`), which the result must call."""
        return inner

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        """Return an additional term of the objective. Called only if `term` names it.

        Args:
            losses: ``h' [B, T', D]`` -> losses ``[B]`` of the batch's targets.
            h: Encoder output ``[B, T', D]``; if `level` is ``input``, the frames F ``[B, T, M]``.
            mask: Valid frames ``[B, T']``.
            draws: Noise from the method `draws`.
        """
        raise NotImplementedError(f"{type(self).__name__} names a term, {self.term!r}, but has no method extra")

    @staticmethod
    def measure(model: RewardModel, speech: SpeechSet, device: str) -> dict[str, float]:
        """Return the scalars `measures` of a trained reward model, of any arm, on ``rm_valid``.

        Use it for a `check` of something that the stage ``examine`` does not measure.
        """
        return {}


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``-sum_k y_k log p_k``: ``logits [B, K], y [B, K]`` -> ``[B]``."""
    return -(y * logits.log_softmax(1)).sum(1)
