"""``python -m ablations.arms``: describe every arm as its differences from vanilla DiffRO.

Each difference has a source, an equation, its hyperparameters and the values that switch it off. All of these are read from the
declarations: regularizers and optimizers are classes with docstrings, other differences are fields of `rrpo.config.ArmConfig`.
Imports no torch.
"""

from __future__ import annotations

import csv
import inspect
import sys
import textwrap
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

import typer

from ablations.components import COMPONENTS
from ablations.grids import arms
from rrpo.arms import ARMS, BASE
from rrpo.commands import Plugin, field_docs, program
from rrpo.config import COMBINATIONS, OFF, PENALTIES, RELAXATIONS, REWARDS, ArmConfig, Form, OptimizeConfig
from rrpo.errors import choose
from rrpo.experiment.dataflow import SFT
from rrpo.models.guidance import GUIDANCE
from rrpo.optimizers import OPTIMIZERS
from rrpo.plugins import Choice, OptionRegistry
from rrpo.regularizers import Knob, active

FORMS = {"reward": REWARDS, "combination": COMBINATIONS, "relaxation": RELAXATIONS, "penalty": PENALTIES}
"""Fields of `ArmConfig` with named values -> equation and source of each value."""
_TASKS = Form("R = w_e log p(e) - w_c L_CTC", "DiffRO (arXiv 2507.05911), multi-task reward")
UNSET = {"best_of", "combination", "reversal", "rm_seed", "policy_seed"}
"""Fields of `ArmConfig` that no profile has: None means that the arm does without."""
NUMBERS = {
    "emotion_weight": _TASKS,
    "content_weight": _TASKS,
    "beta": Form("β KL(π || π_SFT)", "DiffRO (arXiv 2507.05911), Eq. 6"),
    "tau": Form("softmax((l + G) / τ), each τ for an equal part of the updates", "HPRO (arXiv 2606.28249)"),
    "best_of": Form("argmax of R over n samples of π_SFT; KL <= log n - (n - 1) / n", "2009.01325; bound 2401.01879"),
    "members": Form("R from M reward models with different random seeds", "Coste et al. 2024 (arXiv 2310.02743)"),
    "rounds": Form("find samples that fool R, label them, fine-tune R again, restart from π_SFT", "arXiv 2505.18126"),
    "soft_votes": Form("y'_k = share of the raters' votes for k", "label distribution learning; control of Eq. 2"),
    "style_weight": Form("||G(h(y)) - G(h(ref))||_F^2 / d^2, G = H^T H / T", "EmoMix (arXiv 2306.00648)"),
}
"""Fields of `ArmConfig` that are numbers or switches -> equation and source."""
WIDTH = 110
"""Width of the listing in characters."""
HEADINGS = {"equation": "equation", "source": "source", "knobs": "hyperparameters", "off": "off at"}
"""Fields of `Part` -> their headings in the listing."""
app, main = program("ablations.arms")


class Part(NamedTuple):
    """One difference of an arm from vanilla DiffRO. The fields are the columns of the CSV."""

    name: str
    """Name for display."""
    what: str
    """Description in one sentence."""
    source: str = ""
    """Authors or paper."""
    equation: str = ""
    """Formula in one line."""
    knobs: str = ""
    """Hyperparameters with their values in the arm and the ranges that studies search."""
    off: str = ""
    """Values at which it has no effect."""


@app.command()
def command(
    arm: Annotated[list[str] | None, typer.Argument(help="Arms to list. Default: all.")] = None,
    plugin: Plugin = None,
    table: Annotated[bool, typer.Option("--csv", help="Print CSV, one row per difference of an arm.")] = False,
) -> None:
    """List the arms by their differences from vanilla DiffRO: source, equation, hyperparameters and off values."""
    known = arms()
    names = [choose("arm", name, list(known)) for name in arm or known]
    by_arm = {name: parts(known[name]) for name in names}
    if table:
        writer = csv.writer(sys.stdout)
        writer.writerow(["arm", *Part._fields])
        writer.writerows([name, *part] for name, differences in by_arm.items() for part in differences)
    else:
        print("\n\n".join(described(name, differences) for name, differences in by_arm.items()))


def parts(arm: ArmConfig) -> list[Part]:
    """Return the differences of an arm from vanilla DiffRO; for vanilla DiffRO itself, its optimizer."""
    differences = [*_regularizers(arm), *_fields(arm)]
    if arm.guidance is not None:
        differences.append(_registered(GUIDANCE, arm.guidance, "guidance = None"))
    elif arm.optimizer is not None or not differences:
        default = OptimizeConfig().optimizer
        differences.append(_registered(OPTIMIZERS, arm.optimizer or default, f"optimizer = {default.name}"))
    return differences


def described(name: str, differences: list[Part]) -> str:
    """Return one arm's entry in the listing."""
    lines = [name]
    for part in differences:
        lines += textwrap.wrap(f"{part.name}: {part.what}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        for field, heading in HEADINGS.items():
            if text := getattr(part, field):
                lines += textwrap.wrap(f"{heading}: {text}", WIDTH, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def _regularizers(arm: ArmConfig) -> Iterator[Part]:
    config = arm.regularizers
    labels = {component.name: component.label for component in COMPONENTS}
    for regularizer in active(config):
        if not regularizer.is_off:
            control = f", control of {labels[regularizer.control_of]}" if regularizer.control_of else ""
            name, knobs = f"{regularizer.label}{control}", regularizer.own_knobs()
            off = ", ".join(f"{knob.name} = {knob.off:g}" for knob in knobs if knob.off is not None)
            source, equation = regularizer.source, regularizer.equation
            yield Part(name, summary(type(regularizer)), source, equation, ", ".join(map(_knob, knobs)), off)
    described = {field.name for component in COMPONENTS if component.paper for field in fields(component.regularizer)}
    yield from _changed(config, OFF, {*vars(config)} - described - {"added"})


def _knob(knob: Knob) -> str:
    return f"{knob.name} = {knob.on:g} (searched {knob.low:g} to {knob.high:g}{', log' if knob.log else ''})"


def _fields(arm: ArmConfig) -> Iterator[Part]:
    names = {*vars(arm)} - {"regularizers", "optimizer", "guidance"}
    return _changed(arm, ARMS[BASE] if arm.guidance is None else SFT, names)


def _changed(config: Any, off: Any, names: AbstractSet[str]) -> Iterator[Part]:
    """Yield a part for each of the named fields in which ``config`` differs from ``off``, in the order of the fields."""
    for name, value in vars(config).items():
        default = getattr(off, name)
        if name in names and value != default:
            form = FORMS[name][value] if name in FORMS else NUMBERS.get(name, Form("", ""))
            without = "the profile's value" if default is None and name not in UNSET else f"{name} = {default}"
            what = field_docs(type(config))[name]
            yield Part(name, what, form.source, form.equation, f"{name} = {value}", without)


def _registered(registry: OptionRegistry[Any], choice: Choice, off: str) -> Part:
    """Describe a registered implementation by the summaries of its module and class, or by its formula if it declares one."""
    kind, search = registry[choice.name], registry.searched(choice)
    equation = getattr(kind, "equation", "") or summary(kind)
    ranges = {name: f" ({search[name]})" if name in search else "" for name, _ in choice.options}
    knobs = ", ".join(f"{name} = {value}{ranges[name]}" for name, value in choice.options)
    return Part(f"{registry.kind} {choice.name}", summary(inspect.getmodule(kind)), "", equation, knobs, off)


def summary(kind: object) -> str:
    """Return the first paragraph of the docstring of a class or module, in one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    main()
