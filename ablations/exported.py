"""Read and write arms exported by studies: named files in the runs folder that ``--arms`` accepts like the grid's own arms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.grids import arms
from rrpo.config import ArmConfig
from rrpo.errors import InputError
from rrpo.identity import described, rebuild


def check_name(name: str) -> None:
    """Raise InputError if an exported arm cannot have that name."""
    if not name.replace("-", "_").isidentifier():
        raise InputError(
            "an arm needs a plain name", got=name, fix="use letters, digits, hyphens and underscores, as in tuned_rrpo"
        )
    if name in arms():
        raise InputError("an arm of the grids has that name", got=name, fix="choose another, as in tuned_rrpo")


def write_arm(runs_dir: Path, name: str, arm: ArmConfig, provenance: Mapping[str, Any]) -> Path:
    """Store an arm with its provenance under a name and return the file. Raise InputError as `check_name` does."""
    check_name(name)
    path = runs_dir / "arms" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"arm": described(arm), "provenance": dict(provenance)}, indent=1) + "\n")
    return path


def read_arms(runs_dir: Path) -> dict[str, ArmConfig]:
    """Return all exported arms of a runs folder by name. Raise InputError if a file cannot be read as an arm."""
    by_name = {}
    for path in sorted((runs_dir / "arms").glob("*.json")):
        try:
            by_name[path.stem] = rebuild(ArmConfig, json.loads(path.read_text())["arm"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "an exported arm cannot be read", got=f"{path}: {error}", fix="export it again, or remove the file"
            ) from None
    return by_name
