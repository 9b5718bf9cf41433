"""The regularisers there are, and what a `RegularizerConfig` says of them.

A `RegularizerConfig` has the strengths of RRPO's own three as fields of their own. Any other that is on stands in its field
``added``, with its strengths and the hash of its file; one that is off leaves no trace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rrpo.config import RegularizerConfig
from rrpo.plugins import Choice, Registry
from rrpo.regularizers.adversarial import Adversarial
from rrpo.regularizers.base import Regularizer
from rrpo.regularizers.energy_mixup import EnergyMixup
from rrpo.regularizers.label_smoothing import LabelSmoothing


class Regularizers(Registry[Regularizer]):
    """Checks that what is registered can be told from the others, and switched off."""

    def register(self, name: str, item: Regularizer) -> Regularizer:
        """Add ``item`` under ``name`` and return it.

        Raises:
            PluginError: As in `Registry.register`.
            ValueError: Another regulariser has its label, or no strength has an off value.
        """
        if item.label in {other.label for other in self.values()}:
            raise ValueError(f"there is already a regularizer labelled {item.label!r}: give {name!r} another label")
        if all(knob.off is None for knob in item.own_knobs()):
            raise ValueError(
                f"the regularizer {name!r} cannot be switched off: declare a strength with its identity value, as in "
                f"gamma: float = strength(2.0, off=0.0, search=(0.0, 5.0))"
            )
        return super().register(name, item)

    def source(self, name: str) -> str:
        """What tells this implementation from its other versions: the plugin file's hash, or `Regularizer.version`."""
        version = self[name].version
        return super().source(name) or (f"version {version}" if version else "")


REGULARIZERS = Regularizers("regularizer")
"""By name, each with the strengths that it has in arms; the order is that in which they act, and that of the arms' names.

RRPO's own are registered here, their controls in `rrpo.regularizers.controls`: a control's source is guarded by its own version.
"""
REGULARIZERS.register("ls", LabelSmoothing())
REGULARIZERS.register("eam", EnergyMixup())
REGULARIZERS.register("adv", Adversarial())


def configured(strengths: Mapping[str, Mapping[str, Any]], **fields: Any) -> RegularizerConfig:
    """The config of regularisers with these strengths, by name; ``fields`` of the config that belong to none.

    Those that are not named are as in `RegularizerConfig`: RRPO's own with the paper's strengths, all others off.

    Raises ValueError for a strength out of its range.
    """
    added = []
    for name, given in strengths.items():
        found = dataclasses.replace(REGULARIZERS[name], **given)
        if found.paper:
            fields |= given
        elif not found.is_off:
            added.append(REGULARIZERS.choice(name, **dataclasses.asdict(found)))
    return RegularizerConfig(**fields, added=tuple(added))


def chosen(choice: Choice) -> Regularizer:
    """The regulariser of a choice, with its strengths.

    Raises:
        PluginError: It is not registered.
        ValueError: Its file is not the one of the choice.
    """
    if choice.source != REGULARIZERS.source(choice.name):
        raise ValueError(
            f"the source of the regularizer {choice.name!r} is not the one that this was planned with: it was edited, or another "
            f"file registers the name. Plan again with the source as it is"
        )
    return dataclasses.replace(REGULARIZERS[choice.name], **dict(choice.options))


def active(config: RegularizerConfig) -> list[Regularizer]:
    """The regularisers that fine-tune a reward model, in the order in which they act: RRPO's own, off or not, and those added."""
    own = [type(found).of(config) for found in REGULARIZERS.values() if found.paper]
    return own + [chosen(choice) for choice in config.added]


def switched_on(config: RegularizerConfig) -> list[str]:
    """Names of the regularisers that are not off."""
    added = {choice.name for choice in config.added}
    own = {name for name, found in REGULARIZERS.items() if found.paper and not type(found).of(config).is_off}
    return [name for name in REGULARIZERS if name in own | added]
