"""``python -m ablations.arms``: every arm as what it changes in vanilla DiffRO, with source, equation, knobs and off values.

All of it is read off the declarations: regularisers and optimisers are classes with docstrings, the other changes are fields of
`rrpo.config.ArmConfig`. Imports no torch.
"""

from __future__ import annotations

import ast
import csv
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from ablations.commands import refusing, start
from ablations.components import COMPONENTS
from ablations.errors import choose
from ablations.grids import arms
from rrpo.config import COMBINATIONS, OFF, PENALTIES, RELAXATIONS, REWARDS, ArmConfig, Form, OptimizeConfig
from rrpo.models.guidance import GUIDANCE
from rrpo.optimizers import OPTIMIZERS
from rrpo.pipeline.dataflow import SFT
from rrpo.plugins import Choice, OptionRegistry
from rrpo.regularizers import Knob, Regularizer, active

VANILLA = ArmConfig(regularizers=OFF)
"""What every arm is held against."""
FORMS = {"reward": REWARDS, "combination": COMBINATIONS, "relaxation": RELAXATIONS, "penalty": PENALTIES}
"""Fields of `ArmConfig` whose values are declared with equation and source."""
_TASKS = Form("R = w_e log p(e) - w_c L_CTC", "DiffRO (arXiv 2507.05911), multi-task reward")
NUMBERS = {
    "emotion_weight": _TASKS,
    "content_weight": _TASKS,
    "beta": Form("β KL(π || π_SFT)", "DiffRO (arXiv 2507.05911), Eq. 6"),
    "tau": Form("softmax((l + G) / τ), τ in equal parts of the updates", "HPRO (arXiv 2606.28249)"),
    "best_of": Form("argmax of R over n samples of π_SFT; KL <= log n - (n - 1) / n", "2009.01325; bound 2401.01879"),
    "members": Form("R made of M reward models, each redrawn", "Coste et al. 2024 (arXiv 2310.02743)"),
    "rounds": Form("mine samples that fool R, label, fine-tune R anew, restart from π_SFT", "arXiv 2505.18126"),
    "soft_votes": Form("y'_k = share of the raters' votes for k", "label distribution learning; control of Eq. 2"),
    "style_weight": Form("||G(h(y)) - G(h(ref))||_F^2 / d^2, G = H^T H / T", "EmoMix (arXiv 2306.00648)"),
}
"""Fields of `ArmConfig` that are numbers or switches, with equation and source."""
WIDTH = 110
"""Columns of the listing."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that an arm changes."""

    name: str
    """For people."""
    what: str
    """In a sentence."""
    source: str = ""
    """Who proposed it, and where."""
    equation: str = ""
    """In one line."""
    knobs: str = ""
    """Strengths with their values in the arm, and the ranges that studies search."""
    off: str = ""
    """The values at which it changes nothing."""


@app.command()
def command(
    arm: Annotated[list[str] | None, typer.Argument(help="Only these arms. Default: all.")] = None,
    table: Annotated[bool, typer.Option("--csv", help="As CSV, a row for each thing that an arm changes.")] = False,
) -> None:
    """List the arms: what each changes in vanilla DiffRO, source, equation, knobs and off values."""
    known = arms()
    with refusing():
        names = [choose("arm", name, list(known)) for name in arm or known]
    found = {name: parts(known[name]) for name in names}
    if table:
        writer = csv.writer(sys.stdout)
        headings = [field.name for field in fields(Part)]
        writer.writerow(["arm", *headings])
        writer.writerows([name, *(getattr(part, h) for h in headings)] for name, own in found.items() for part in own)
    else:
        print("\n\n".join(described(name, own) for name, own in found.items()))


def parts(arm: ArmConfig) -> list[Part]:
    """What an arm changes in vanilla DiffRO; of vanilla DiffRO itself, its optimiser."""
    found = [*_regularizers(arm), *_fields(arm)]
    if arm.guidance is not None:
        found.append(_chosen(GUIDANCE, arm.guidance, "guidance = None"))
    elif arm.optimizer is not None or not found:
        default = OptimizeConfig().optimizer
        found.append(_chosen(OPTIMIZERS, arm.optimizer or default, f"optimizer = {default.name}"))
    return found


def described(name: str, own: list[Part]) -> str:
    """One arm's entry of the listing."""
    lines = [name]
    for part in own:
        lines += textwrap.wrap(f"{part.name}: {part.what}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        for heading in ("equation", "source", "knobs", "off"):
            if text := getattr(part, heading):
                lines += textwrap.wrap(f"{heading}: {text}", WIDTH, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def _regularizers(arm: ArmConfig) -> Iterator[Part]:
    config = arm.regularizers
    labels = {component.name: component.label for component in COMPONENTS}
    for found in active(config):
        if not found.is_off:
            control = f", control of {labels[found.control_of]}" if found.control_of else ""
            yield _regularizer(found, f"{found.label}{control}")
    yield from _changed(config, OFF, [f.name for f in fields(config) if f.name not in _declared()])


def _declared() -> set[str]:
    """Fields of `RegularizerConfig` that regularisers speak for."""
    own = {field.name for component in COMPONENTS if component.paper for field in fields(component.regularizer)}
    return own | {"added"}


def _regularizer(found: Regularizer, name: str) -> Part:
    knobs = found.own_knobs()
    return Part(
        name=name,
        what=summary(type(found)),
        source=found.source,
        equation=found.equation,
        knobs=", ".join(map(_knob, knobs)),
        off=", ".join(f"{knob.name} = {knob.off:g}" for knob in knobs if knob.off is not None),
    )


def _knob(knob: Knob) -> str:
    return f"{knob.name} = {knob.on:g} (searched {knob.low:g} to {knob.high:g}{', log' if knob.log else ''})"


def _fields(arm: ArmConfig) -> Iterator[Part]:
    others = [f.name for f in fields(arm) if f.name not in ("regularizers", "optimizer", "guidance")]
    return _changed(arm, VANILLA if arm.guidance is None else SFT, others)


def _changed(config: Any, off: Any, names: list[str]) -> Iterator[Part]:
    """A part for each field of a config that differs from another's."""
    for name in names:
        value, before = getattr(config, name), getattr(off, name)
        if value != before:
            form = FORMS[name][value] if name in FORMS else NUMBERS.get(name, Form("", ""))
            what = field_docs(config)[name]
            yield Part(
                name=name,
                what=what,
                source=form.source,
                equation=form.equation,
                knobs=f"{name} = {value}",
                off="the profile's value" if before is None else f"{name} = {before}",
            )


def _chosen(registry: OptionRegistry[Any], choice: Choice, off: str) -> Part:
    """An implementation with options: what its module says first, and its formula or else what its class says first."""
    kind, search = registry[choice.name], registry.searched(choice)
    return Part(
        name=f"{registry.kind} {choice.name}",
        what=summary(inspect.getmodule(kind)),
        equation=getattr(kind, "equation", "") or summary(kind),
        knobs=", ".join(
            f"{name} = {value}" + (f" ({search[name]})" if name in search else "") for name, value in choice.options
        ),
        off=off,
    )


def summary(kind: object) -> str:
    """The first paragraph of the docstring of a class or module, in one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


def field_docs(config: object) -> dict[str, str]:
    """Field -> its docstring in one line, of a config, whose class has one under each field."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(type(config)))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, doc in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(doc.value.value).split())
    return found


def main() -> None:
    """Run the command."""
    start(app, "ablations.arms")


if __name__ == "__main__":
    main()
