"""Record the plugin files of a run: a tag with their hashes, and copies among its artifacts, ``plugins/HASH/NAME``."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ablations.tracking.records import TAG_PLUGINS, Record
from rrpo import plugins
from rrpo.errors import InputError

FOLDER = "plugins"


def tags() -> dict[str, str]:
    """Return the tag with this process's plugin files, hash -> name; empty without plugins."""
    names = {source: path.name for path, source in plugins.loaded().items()}
    return {TAG_PLUGINS: json.dumps(names)} if names else {}


def copies() -> dict[str, str]:
    """Return the plugin files of this process as artifacts, name -> content when it was loaded."""
    return {f"{FOLDER}/{source}/{path.name}": plugins.text(path) for path, source in plugins.loaded().items()}


def names(records: Iterable[Record]) -> list[str]:
    """Return the names of the plugin files with which some records were made."""
    return sorted({name for record in records for name in _files(record).values()})


def require(records: Iterable[Record]) -> list[str]:
    """Check that the plugin files of some records are loaded; return notes on files that were edited since.

    Raises:
        InputError: A plugin file is not loaded, so its arms and components are unknown.
    """
    loaded = plugins.loaded()
    names = {path.name for path in loaded}
    edited: dict[str, int] = {}
    for record in records:
        for source, name in _files(record).items():
            if source in loaded.values():
                continue
            if name not in names:
                copy = record.folder / FOLDER / source / name
                raise InputError(
                    f"these cells were made with the plugin {name}, which is not loaded",
                    got=", ".join(sorted(names)) or "no plugin",
                    fix=f"add --plugin {name}, or use the stored copy: --plugin {copy}",
                )
            edited[name] = edited.get(name, 0) + 1
    return [f"The plugin {name} was edited after {count} cells were made." for name, count in edited.items()]


def _files(record: Record) -> dict[str, str]:
    """Return the plugin files of a record's run, hash -> name."""
    files: dict[str, str] = json.loads(record.tags.get(TAG_PLUGINS, "{}"))
    return files
