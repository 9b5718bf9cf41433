"""What tells the arms of a grid apart: the parameters in which what they ran with differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

IDENTITY = ("arm", "label", "seed", "profile", "invocation")
"""Params of a cell's run that say which cell it is; all others say what it ran with."""


def differing(arms: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The parameters that two arms have with different values, in the arms' order; ``arms`` are parameters by arm."""
    names = dict.fromkeys(name for values in arms.values() for name in values if name not in IDENTITY)
    return [name for name in names if len({values[name] for values in arms.values() if name in values}) > 1]


def headings(names: Sequence[str], arms: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Each of these parameters by the shortest end of its name that no other has: ``epsilon``, ``finetune.steps``."""
    every = {name for values in arms.values() for name in values}
    found = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[-size:]) for size in range(1, len(parts) + 1)]
        found[name] = next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in every) == 1)
    return found


def distinguishing(arms: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Arm -> its differing parameters in a line, without the values that more than half of the arms have; empty where no two
    arms differ.
    """
    names = differing(arms)
    said = headings(names, arms)
    common = {(n, v) for n in names for v, count in _counts(n, arms).items() if 2 * count > len(arms)}
    rows = {
        arm: ", ".join(f"{said[n]} {values[n]}" for n in names if n in values and (n, values[n]) not in common)
        for arm, values in arms.items()
    }
    return {arm: row or "nothing" for arm, row in rows.items()} if names else {}


def _counts(name: str, arms: Mapping[str, Mapping[str, str]]) -> Counter[str]:
    return Counter(values[name] for values in arms.values() if name in values)
