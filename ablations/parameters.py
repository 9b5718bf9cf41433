"""Find the parameters in which the arms of a grid differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

IDENTITY = ("arm", "label", "seed", "profile", "invocation")
"""Params that identify a cell; all other params are settings."""


def differing(arms: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the parameters for which two arms have different values, in the arms' order.

    Args:
        arms: Arm -> its parameters.
    """
    names = dict.fromkeys(name for values in arms.values() for name in values if name not in IDENTITY)
    return [name for name in names if len({values[name] for values in arms.values() if name in values}) > 1]


def headings(names: Sequence[str], arms: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Map each parameter to the shortest unique suffix of its name, such as ``epsilon`` or ``finetune.steps``."""
    full_names = {name for values in arms.values() for name in values}
    shortest = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1)]
        shortest[name] = next(end for end in ends if sum(f".{full}".endswith(f".{end}") for full in full_names) == 1)
    return shortest


def distinguishing(arms: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return arm -> its differing parameters in one line, without empty values and those that more than half of the arms have.

    Empty if no two arms differ.
    """
    names = differing(arms)
    short = headings(names, arms)
    counts = Counter((name, values[name]) for name in names for values in arms.values() if name in values)
    common = {setting for setting, count in counts.items() if 2 * count > len(arms)}
    rows = {
        arm: ", ".join(
            f"{short[name]} {values[name]}" for name in names if values.get(name) and (name, values[name]) not in common
        )
        for arm, values in arms.items()
    }
    return {arm: row or "nothing" for arm, row in rows.items()} if names else {}
