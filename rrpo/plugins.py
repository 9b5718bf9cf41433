"""Registries of extensible components, and loading of plugin files that add to them.

Each kind of component (regularizers, optimizers, judges, corpus readers, arms, grids) has one `Registry`, which contains the
package's own components. A plugin is a Python file, or an entry point in the group `GROUP`, that registers more on import:

    from rrpo.regularizers import REGULARIZERS

    REGULARIZERS.register("focal", FocalLoss())

The environment variable `VARIABLE` lists the plugin files in use, so that worker processes load the same ones. A component from
a plugin carries the hash of its file, which is part of the key of every stage that uses it. Editing a plugin therefore makes
exactly its own cells stale. This module imports no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

from rrpo.errors import InputError
from rrpo.identity import canonical, option

VARIABLE = "RRPO_PLUGINS"
"""Environment variable with the paths of the plugin files, separated as in ``PATH``."""
GROUP = "rrpo.plugins"
"""Entry-point group of installed plugins."""
OWN = ("rrpo.regularizers", "rrpo.optimizers", "rrpo.models.guidance", "rrpo.judges.protocol")
"""Modules that register the package's own components. They are imported before any plugin: if a plugin imported them first, they
would count as the plugin's."""
Scalar = int | float | str | bool
T = TypeVar("T")
_loaded: dict[Path, tuple[str, str]] = {}
"""Plugin file -> its hash and its content, when it was loaded."""
_sources: list[str] = []
"""Hashes of the plugins that are being loaded, the innermost last."""
_added: list[tuple[Registry[Any], str]] = []
"""Registry and name of what they have registered so far."""


class PluginError(InputError):
    """A plugin cannot be used, or a name is not registered."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A registered component with its options, as a config field that is part of a stage's key."""

    name: str
    """Name in the registry."""
    options: tuple[tuple[str, Scalar], ...] = option((), off=())
    """Options by name, sorted; missing options have the component's defaults."""
    source: str = option("", off="")
    """`Registry.source` of the component; empty for the package's own that `rrpo.pipeline.versions` guards."""


class Search(NamedTuple):
    """Search space of an option in studies."""

    values: tuple[Scalar, ...]
    """Lower and upper end of the range of a real option; the choices of any other."""
    log: bool = False
    """Whether the range is searched on a logarithmic scale."""

    def __str__(self) -> str:
        texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in self.values]
        separator = " to " if isinstance(self.values[0], float) else ", "
        return f"searched {separator.join(texts)}{', log' if self.log else ''}"


def searched(default: T, *values: T, log: bool = False, within: str = "") -> T:
    """Return a field for a dataclass in an `OptionRegistry` that the study ``tune-arm`` searches; for ``values`` see `Search`.

    ``within`` is the interval of all valid values, as in `rrpo.identity.option`; a class that derives from `rrpo.config.Checked`
    refuses others.
    """
    search = Search(values, log)  # type: ignore[arg-type]
    field: T = dataclasses.field(default=default, metadata={"search": search, "within": within})
    return field


class Registry(Mapping[str, T], Generic[T]):
    """Implementations of one Protocol by name, in registration order."""

    def __init__(
        self,
        kind: str,
        *,
        of: type | None = None,
        underscores: bool = False,
        reserved: Collection[str] = (),
    ) -> None:
        self.kind = kind
        """Kind of component, in the singular, for messages: ``optimizer``."""
        self.of = of
        """Class whose instances are registered; None: anything."""
        self.underscores = underscores
        """Whether names may contain ``_``, which in arm names joins the names of regularizers."""
        self.reserved = reserved
        """Names that mean something else in the records, such as their columns."""
        self._items: dict[str, T] = {}
        self._sources: dict[str, str] = {}

    def register(self, name: str, item: T) -> T:
        """Add ``item`` under ``name`` and return it. Raises PluginError as `require_valid` does."""
        self.require_valid(name, item)
        self._items[name] = item
        self._sources[name] = _sources[-1] if _sources else ""
        if _sources:
            _added.append((self, name))
        return item

    def require_valid(self, name: str, item: T) -> None:
        """Check a component before it is registered.

        Raises:
            PluginError: The name is taken, or contains other characters than lower-case letters, digits and hyphens (``_`` and
                ``@`` have meanings in arm labels), or ``item`` is no instance of `of`.
        """
        if name in self._items:
            message = f"the name {name!r} is already that of another {self.kind}"
            raise PluginError(message, got=name, fix="choose another name")
        if name in self.reserved:
            message = f"the name of the {self.kind} already means something else in the records"
            raise PluginError(message, got=name, fix="choose another name")
        letters = name.replace("-", "").replace("_", "" if self.underscores else "_")
        if not (letters.isascii() and letters.isalnum() and name == name.lower()):
            also = ", underscores" if self.underscores else ""
            message = f"{self.kind}: a name may contain only lower-case letters, digits{also} and hyphens"
            raise PluginError(message, got=repr(name), fix="choose another name")
        if self.of is not None and not isinstance(item, self.of):
            fix = f"register an instance of {self.of.__name__}"
            raise PluginError(f"{self.kind} {name!r} is not a {self.of.__name__}", got=repr(item), fix=fix)

    def require_dataclass(self, name: str, cls: Any) -> None:
        """Raise PluginError if ``cls`` is no dataclass itself, whatever its base classes are."""
        if not (isinstance(cls, type) and "__dataclass_fields__" in vars(cls)):
            fix = "decorate the class with @dataclass(frozen=True), and register the class, or for a regularizer an instance"
            raise PluginError(f"{self.kind} {name!r} must be a frozen dataclass", got=repr(cls), fix=fix)

    def source(self, name: str) -> str:
        """Return the version of an implementation: the hash of the plugin file that registered it, or for the package's own its
        attribute ``version``, if it has one above 0; else empty."""
        version = getattr(self[name], "version", 0)
        return self._sources[name] or (f"version {version}" if version else "")

    def choice(self, name: str, **options: Scalar) -> Choice:
        """Return the config field that selects ``name`` with these options."""
        return Choice(name=name, options=tuple(sorted(options.items())), source=self.source(name))

    def chosen(self, choice: Choice) -> T:
        """Return the component that a choice names.

        Raises:
            PluginError: It is not registered, or not in the version that the choice was made with.
        """
        source = self.source(choice.name)
        if choice.source != source:
            raise PluginError(
                f"the {self.kind} {choice.name!r} has changed since the run was planned: its file was edited, or another file "
                "registers the name",
                got=f"source {source or 'of the package'} instead of {choice.source or 'of the package'}",
                fix="plan the run again with this file, or restore the earlier one",
            )
        return self[choice.name]

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            message = f"there is no {self.kind} named {name!r}; there are {', '.join(self._items) or 'none'}"
            raise PluginError(message, got=name, fix="use one of them, or load your own with --plugin FILE")
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class OptionRegistry(Registry[type[T]], Generic[T]):
    """A registry of frozen dataclasses whose fields are options. A `Choice` from it holds every option, validated."""

    def require_valid(self, name: str, item: type[T]) -> None:
        """Check a class as `Registry.require_valid` and `require_dataclass` do."""
        super().require_valid(name, item)
        self.require_dataclass(name, item)

    def choice(self, name: str, **options: Scalar) -> Choice:
        """Return the config field that selects ``name`` with these options and the defaults of the others.

        Raises:
            PluginError: There is no such name or option, or a value has the wrong type or is out of range.
        """
        return super().choice(name, **canonical(self._create(name, options)))

    def create(self, choice: Choice) -> T:
        """Create the component that was chosen.

        Raises:
            PluginError: As for `choice` and `chosen`.
        """
        self.chosen(choice)
        return self._create(choice.name, dict(choice.options))

    def searched(self, choice: Choice) -> dict[str, Search]:
        """Return the search spaces of a choice's options, for those that are searched."""
        return {f.name: f.metadata["search"] for f in fields(self[choice.name]) if "search" in f.metadata}  # type: ignore[arg-type]

    def _create(self, name: str, options: Mapping[str, Any]) -> T:
        kind, values = self[name], dict(options)
        hints = get_type_hints(kind)
        known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
        for field, value in options.items():
            if field not in known:
                fix = f"its options are {', '.join(known)}" if known else "it has no options"
                raise PluginError(f"the {self.kind} {name!r} has no such option", got=field, fix=fix)
            if hints[field] is float and type(value) is int:
                values[field] = float(value)
            elif hints[field] not in get_args(Scalar):
                message = (
                    f"an option of the {self.kind} {name!r} is declared with another type than int, float, str or bool"
                )
                raise PluginError(message, got=f"{field}: {hints[field]}", fix="declare it with one of these types")
            elif type(value) is not hints[field]:
                message = f"an option of the {self.kind} {name!r} has the wrong type"
                raise PluginError(
                    message, got=f"{field} = {value!r}", fix=f"give a value of type {hints[field].__name__}"
                )
        try:
            return kind(**values)
        except (TypeError, ValueError) as error:
            message, got = f"invalid options of the {self.kind} {name!r}: {error}", dict(options) or "no options"
            raise PluginError(message, got=got, fix="give valid values") from error


def use(paths: Sequence[Path | str]) -> None:
    """Load plugin files here and in the worker processes that this process starts.

    Raises:
        PluginError: A file is missing, or its import fails.
    """
    known = files()
    for path in paths:
        resolved = Path(path).resolve()
        load(resolved)
        if str(resolved) not in known:
            known.append(str(resolved))
    if known:
        os.environ[VARIABLE] = os.pathsep.join(known)


def load_all() -> None:
    """Load the files listed in `VARIABLE` and the installed entry points, once each. Every process calls this first."""
    for entry in files():
        load(Path(entry))
    for point in entry_points(group=GROUP):
        path = _file_of(point.module)
        if path is None:
            message = f"the installed plugin {point.name!r} refers to a module that does not exist"
            raise PluginError(message, got=point.module, fix="reinstall its package, or remove it")
        load(path, module=point.module)


def _file_of(module: str) -> Path | None:
    """Return the file of an installed module, without importing the packages that hold it; None if there is none."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for name in itertools.accumulate(inner, "{}.{}".format, initial=top):
        if name != top and spec is not None:
            inside = spec.submodule_search_locations  # None: it is no package
            spec = PathFinder.find_spec(name, inside) if inside is not None else None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def files() -> list[str]:
    """Return the paths listed in `VARIABLE`."""
    return [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]


def loaded() -> dict[Path, str]:
    """Return the plugin files that this process has loaded, in order, with their hashes."""
    return {path: source for path, (source, _) in _loaded.items()}


def text(path: Path) -> str:
    """Return the content of a loaded plugin file when it was loaded; the file may have changed since."""
    return _loaded[path][1]


def load(path: Path, module: str | None = None) -> str:
    """Import one plugin file, once per process, and return its hash.

    Raises:
        PluginError: The file is missing, or its import fails.
    """
    path = path.resolve()
    if path in _loaded:
        return _loaded[path][0]
    if not path.is_file():
        raise PluginError("plugin file not found", got=path, fix="give --plugin the path of a Python file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError("a plugin cannot be read", got=error, fix="make the file readable") from error
    source = hashlib.sha256(content).hexdigest()[:16]
    name = module or f"rrpo_plugin_{path.stem}_{source}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("a plugin is a Python file", got=path, fix="give --plugin a file whose name ends in .py")
    for own in OWN:
        importlib.import_module(own)
    _sources.append(source)
    before = len(_added)
    try:
        if module is not None:
            importlib.import_module(module)
        else:
            sys.modules[name] = plugin = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(plugin)
    except Exception as error:
        sys.modules.pop(name, None)
        for registry, entry in _added[before:]:  # so that the corrected file can be loaded by the same process
            del registry._items[entry], registry._sources[entry]
        message = f"importing the plugin {path} failed"
        raise PluginError(message, got=f"{type(error).__name__}: {error}", fix="fix the file") from error
    finally:
        _sources.pop()
        del _added[before:]
    _loaded[path] = source, content.decode(errors="replace")
    return source
