"""The policy optimisers by name, and their options. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from rrpo.identity import canonical
from rrpo.optimizers.base import PolicyOptimizer
from rrpo.optimizers.diffro import DiffRO
from rrpo.plugins import Choice, PluginError, Registry, Scalar


class OptimizerRegistry(Registry[type[PolicyOptimizer]]):
    """Optimisers by name; a `Choice` holds every option of the one that it names, checked."""

    def choice(self, name: str, **options: Scalar) -> Choice:
        """The config field that selects the optimiser ``name`` with these options, the others at their defaults.

        Raises:
            PluginError: There is no such optimiser or option; a value is of another type, or out of its range.
        """
        made = canonical(self._made(name, options))
        return Choice(name=name, options=tuple(sorted(made.items())), source=self.source(name))

    def create(self, choice: Choice) -> PolicyOptimizer:
        """The optimiser that was chosen.

        Raises:
            PluginError: As `choice`; or the plugin was edited since.
        """
        made, source = self._made(choice.name, dict(choice.options)), self.source(choice.name)
        if choice.source != source:
            raise PluginError(
                f"the file of the optimizer {choice.name!r} is not the one that was chosen",
                got=f"hash {source or 'none'} instead of {choice.source or 'none'}",
                fix="plan the run again with this file, or restore the other",
            )
        return made

    def _made(self, name: str, options: Mapping[str, Any]) -> PolicyOptimizer:
        kind, values = self[name], dict(options)
        hints = get_type_hints(kind)
        known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        for option, value in options.items():
            if option not in known:
                fix = f"its options are {', '.join(known)}" if known else "it has no options"
                raise PluginError(f"the optimizer {name!r} has no such option", got=option, fix=fix)
            if hints[option] is float and type(value) is int:
                values[option] = float(value)
            elif type(value) is not hints[option]:
                what = f"an option of the optimizer {name!r} is of another type"
                raise PluginError(
                    what, got=f"{option} = {value!r}", fix=f"give a value of type {hints[option].__name__}"
                )
        try:
            return kind(**values)
        except (TypeError, ValueError) as error:
            what, got = f"the optimizer {name!r} refuses its options: {error}", dict(options) or "no options"
            raise PluginError(what, got=got, fix="give values that it takes") from error


OPTIMIZERS = OptimizerRegistry("optimizer")
"""Policy optimisers by name."""
OPTIMIZERS.register("diffro", DiffRO)
