"""The registry of regularizers, and their configuration by a `RegularizerConfig`.

A `RegularizerConfig` has a field for each strength of RRPO's own three. Every other active regularizer is an entry of its field
``added``, with its strengths and the hash of its file; an inactive one is omitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rrpo.config import RegularizerConfig
from rrpo.plugins import Choice, Registry
from rrpo.regularizers.adversarial import Adversarial
from rrpo.regularizers.base import LEVELS, Regularizer
from rrpo.regularizers.energy_mixup import EnergyMixup
from rrpo.regularizers.label_smoothing import LabelSmoothing


class Regularizers(Registry[Regularizer]):
    """Registry that requires distinct labels and an off value."""

    def require_valid(self, name: str, item: Regularizer) -> None:
        """Check a regularizer before it is registered.

        Raises:
            PluginError: As for `Registry.require_valid`, and if its class is no dataclass.
            ValueError: Its label has a comma, or another regularizer has the same label or records a scalar of the same name; it
                has a method ``extra``, but no term; its level is unknown; or no strength has an off value.
        """
        super().require_valid(name, item)
        self.require_dataclass(name, type(item))
        if item.label in {other.label for other in self.values()}:
            raise ValueError(f"there is already a regularizer labelled {item.label!r}: give {name!r} another label")
        if "," in item.label:
            raise ValueError(
                f"the label {item.label!r} has a comma, which separates it from the names of contrasts: leave it out"
            )
        names = [*([item.term] if item.term else []), *item.scalars]
        taken = {"step", "loss", "l_emo"} | {n for other in self.values() for n in (other.term, *other.scalars) if n}
        if clash := sorted({n for n in names if n in taken or names.count(n) > 1}):
            raise ValueError(
                f"the regularizer {name!r} records scalars whose names are taken: {', '.join(clash)}; rename its term or scalars"
            )
        if type(item).extra is not Regularizer.extra and not item.term:
            raise ValueError(
                f"the regularizer {name!r} has a method extra, which is never called: set term to the name of its scalar"
            )
        if item.level not in LEVELS:
            raise ValueError(f"the level of the regularizer {name!r} is {item.level!r}: use one of {', '.join(LEVELS)}")
        if all(knob.off is None for knob in item.own_knobs()):
            raise ValueError(
                f"the regularizer {name!r} cannot be switched off: declare a strength with its identity value, as in "
                f"gamma: float = strength(2.0, off=0.0, search=(0.0, 5.0))"
            )


REGULARIZERS = Regularizers("regularizer", of=Regularizer)
"""Regularizers by name, with their strengths in arms. Their order is the order in which they act and that of the arms' names.

RRPO's own are registered here, their controls in `rrpo.regularizers.controls`: a control's source is guarded by its own
version.
"""
REGULARIZERS.register("ls", LabelSmoothing())
REGULARIZERS.register("eam", EnergyMixup())
REGULARIZERS.register("adv", Adversarial())


def configured(strengths: Mapping[str, Mapping[str, Any]], **fields: Any) -> RegularizerConfig:
    """Return a config with these strengths by regularizer's name; ``fields`` are config fields that belong to no regularizer.

    Regularizers that are not named are as in `RegularizerConfig`: RRPO's own with the paper's strengths, all others off.

    Raises:
        ValueError: A strength is out of range.
    """
    added = []
    for name, values in strengths.items():
        regularizer = dataclasses.replace(REGULARIZERS[name], **values)
        if regularizer.paper:
            fields |= values
        elif not regularizer.is_off:
            added.append(REGULARIZERS.choice(name, **dataclasses.asdict(regularizer)))
    return RegularizerConfig(**fields, added=tuple(added))


def chosen(choice: Choice) -> Regularizer:
    """Return the regularizer of a choice, with its strengths. Raises `Registry.chosen`'s PluginError."""
    return dataclasses.replace(REGULARIZERS.chosen(choice), **dict(choice.options))


def active(config: RegularizerConfig) -> list[Regularizer]:
    """Return the regularizers of a reward model's fine-tuning, in the order in which they act: RRPO's own (even if off), then
    added ones."""
    paper = [type(regularizer).of(config) for regularizer in REGULARIZERS.values() if regularizer.paper]
    return paper + [chosen(choice) for choice in config.added]


def switched_on(config: RegularizerConfig) -> list[str]:
    """Return the names of the regularizers that are not off."""
    added = {choice.name for choice in config.added}
    paper = {name for name, r in REGULARIZERS.items() if r.paper and not type(r).of(config).is_off}
    return [name for name in REGULARIZERS if name in paper | added]
