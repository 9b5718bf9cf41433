"""Provenance of a report: stage versions and devices, from the stage markers in every record."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

from ablations.grids import split_label
from ablations.tracking.records import Record
from rrpo.pipeline.stages import MARKER

OPTIMISATION = "optimized"
"""Role of the policy optimization in a cell, and its folder among the record's files."""


def stage_versions(records: Sequence[Record]) -> Counter[tuple[str, int]]:
    """Return (name, version) of a stage -> number of cells."""
    found: Counter[tuple[str, int]] = Counter()
    for record in records:
        for path in record.folder.glob(f"*/{MARKER}"):
            marker = json.loads(path.read_text())
            found[marker["name"], marker["version"]] += 1
    return found


def devices(records: Sequence[Record]) -> str:
    """Return a sentence on the devices that optimized the policies; empty if no cell has a policy."""
    seeds: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        if device := _device(record):
            seeds[device].append(record.seed)
    used = [f"{device} ({len(of)} cells, seeds {numbers(sorted(set(of)))})" for device, of in seeds.items()]
    return f"Policies were optimized on {', '.join(used)}." if used else ""


def apart(records: Sequence[Record]) -> str:
    """Return a sentence on the seeds (and settings) whose arms were optimized on several kinds of device; empty if there are
    none."""
    used: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for record in records:
        if device := _device(record):
            used[record.seed, split_label(record.label)[1]].add(device)
    found = [f"seed {seed}{f' at {setting}' if setting else ''}" for (seed, setting), on in used.items() if len(on) > 1]
    if not found:
        return ""
    shared = "which share data and seeds but not the random numbers of their roll-outs"
    return f"Different kinds of devices were used for the arms of {', '.join(found)}, {shared}."


def numbers(seeds: Sequence[int]) -> str:
    """Return ascending seeds as text: ``1 to 5``, or a list if there are gaps."""
    whole = seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _device(record: Record) -> str:
    """Return the device that optimized the cell's policy (a GPU's name); empty if there is no policy."""
    path = record.folder / OPTIMISATION / MARKER
    if not path.is_file():
        return ""
    marker = json.loads(path.read_text())
    return str(marker.get("gpu", marker["device"].upper()))
