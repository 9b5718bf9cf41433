"""Shared parts of all commands: options, handling of bad input, and the entry point."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

from rrpo import plugins
from rrpo.errors import InputError
from rrpo.pipeline.errors import failure_kind

EXPERIMENT, EXECUTION, FAILURES, OUTPUT = "Experiment", "Execution", "Failures", "Output"
"""Headings of the options in ``--help``."""
Command = TypeVar("Command", bound=Callable[..., Any])
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the profile, as in optimize.beta=0.01; repeatable. The changed profile is a separate experiment "
        "with its own name.",
        rich_help_panel=EXPERIMENT,
    ),
]


@contextmanager
def _exit_on_input_error() -> Iterator[None]:
    """Print the message of an InputError and exit with status 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


class _Command(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        with _exit_on_input_error():
            return super().invoke(ctx)


class App(typer.Typer):
    """An application whose commands print the message of an InputError and exit with status 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_completion=False, pretty_exceptions_enable=False, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Command], Command]:
        return super().command(name, cls=_Command, **settings)


def _use_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Load the plugins of ``--plugin``, the environment and the installed packages before other options are parsed."""
    with _exit_on_input_error():
        plugins.use(paths or ())
        plugins.load_all()
    return paths


Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        callback=_use_plugins,
        is_eager=True,
        help="Python file that registers your own arms, grids, regularizers, ...; repeatable.",
        rich_help_panel=EXPERIMENT,
    ),
]


def program(name: str, **settings: Any) -> tuple[App, Callable[[], None]]:
    """Return the app of the command in a module, with typer's ``settings``, and the entry point that runs it."""
    app = App(**settings)
    return app, partial(start, app, name)


def start(app: App, name: str) -> None:
    """Run a command under its module's name, or the name with which ``rrpo`` started it; exit with status 130 on Ctrl-C."""
    try:
        app(prog_name=sys.argv[0] if sys.argv[0].startswith("rrpo ") else f"python -m {name}")
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def training(stopped: str, remedies: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """End a command that trains: on Ctrl-C with status 130 and the text ``stopped``; on any failure except an InputError with
    status 1, its kind (`rrpo.pipeline.errors.failure_kind`) and the remedy for that kind, if there is one."""
    try:
        yield
    except InputError:
        raise
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        raise typer.Exit(130) from None
    except Exception as error:
        kind = failure_kind(error)
        print(f"failed ({kind}): {type(error).__name__}: {error}", file=sys.stderr)
        if kind in remedies:
            print(f"fix: {remedies[kind]}", file=sys.stderr)
        raise typer.Exit(1) from error


def paced(write: Callable[[str], object], seconds: float = 5.0) -> Callable[[str], None]:
    """Return a function that writes a line of progress, at most one every ``seconds``, and the first one after as many."""
    last = time.monotonic()

    def tell(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            write(line)
            last = time.monotonic()

    return tell


def option(panel: str, default: Any, among: Iterable[str] = (), flag: str = "", metavar: str | None = None) -> Any:
    """Declare a field of a dataclass as a command-line option for `options_of`; the field's docstring is its help.

    Args:
        panel: Heading in ``--help``.
        default: Default value; ``...`` if the option is required.
        among: Allowed values, which the help lists.
        flag: Name of the option, if it is not that of the field.
        metavar: Name of the value in ``--help``.
    """
    metadata = {"panel": panel, "among": tuple(among), "flag": flag, "metavar": metavar}
    return dataclasses.field(default=dataclasses.MISSING if default is ... else default, metadata=metadata)


def options_of(kind: type) -> Callable[[Command], Command]:
    """Give a command that takes ``**given`` one option for each field of a dataclass, in their order; inherited ones come last.

    A field is declared by `option`, or by an annotation with ``typer.Option``, such as `Set`.
    """
    docs, hints = field_docs(kind), get_type_hints(kind, include_extras=True)
    declared = inspect.get_annotations(kind)

    def parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
        annotation = hints[field.name]
        if metadata := field.metadata:
            text = docs[field.name] + (f" One of: {', '.join(metadata['among'])}." if metadata["among"] else "")
            flag = metadata["flag"] or f"--{field.name.replace('_', '-')}"
            display = {"metavar": metadata["metavar"], "rich_help_panel": metadata["panel"]}
            annotation = Annotated[annotation, typer.Option(flag, help=text, **display)]
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    def extend(command: Command) -> Command:
        parameters = [
            parameter(field) for field in sorted(dataclasses.fields(kind), key=lambda field: field.name not in declared)
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {field.name: field.annotation for field in parameters}
        return command

    return extend


def field_docs(kind: type) -> dict[str, str]:
    """Return the docstring, in one line, of each field of a class that documents its fields by strings below them; inherited
    fields are included."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    inherited = {name: doc for base in kind.__bases__ if base is not object for name, doc in field_docs(base).items()}
    return inherited | {
        ast.unparse(field.target): " ".join(str(doc.value.value).split())
        for field, doc in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }
