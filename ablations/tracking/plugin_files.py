"""Which plugin files a run was made with: a tag with their hashes, and copies among its artifacts, ``plugins/HASH/NAME``."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ablations.errors import InputError
from ablations.tracking.records import TAG_PLUGINS, Record
from rrpo import plugins

FOLDER = "plugins"


def tags() -> dict[str, str]:
    """The tag of a run that this process makes: names by hash; none without plugins."""
    names = {source: path.name for path, source in plugins.loaded().items()}
    return {TAG_PLUGINS: json.dumps(names)} if names else {}


def copies() -> dict[str, str]:
    """The plugin files of this process as artifacts, text by name."""
    return {f"{FOLDER}/{source}/{path.name}": path.read_text() for path, source in plugins.loaded().items()}


def require(records: Iterable[Record]) -> list[str]:
    """Notes on plugin files that were edited since the records were made.

    Raises:
        InputError: A file that they were made with is not loaded: without it, its arms and components are not known.
    """
    here = plugins.loaded()
    names = {path.name for path in here}
    changed: dict[str, int] = {}
    for record in records:
        for source, name in json.loads(record.tags.get(TAG_PLUGINS, "{}")).items():
            if source in here.values():
                continue
            if name not in names:
                copy = record.folder / FOLDER / source / name
                raise InputError(
                    f"these cells were made with the plugin {name}, which is not loaded",
                    got=", ".join(sorted(names)) or "no plugin",
                    fix=f"add --plugin {name}, or the copy that was kept: --plugin {copy}",
                )
            changed[name] = changed.get(name, 0) + 1
    return [f"The plugin {name} was edited since {count} cells were made." for name, count in changed.items()]
