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
    counts: Counter[tuple[str, int]] = Counter()
    for record in records:
        for path in record.folder.glob(f"*/{MARKER}"):
            marker = json.loads(path.read_text())
            counts[marker["name"], marker["version"]] += 1
    return counts


def devices(records: Sequence[Record]) -> str:
    """Return a sentence on the devices that optimized the policies; empty if no cell has a policy."""
    seeds: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        if device := _device(record):
            seeds[device].append(record.seed)
    parts = [
        f"{device} ({len(device_seeds)} cells, seeds {numbers(sorted(set(device_seeds)))})"
        for device, device_seeds in seeds.items()
    ]
    return f"Policies were optimized on {', '.join(parts)}." if parts else ""


def apart(records: Sequence[Record]) -> str:
    """Return a sentence on the seeds (and settings) whose arms were optimized on several kinds of device; empty if there are
    none."""
    devices_of: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for record in records:
        if device := _device(record):
            devices_of[record.seed, split_label(record.label)[1]].add(device)
    mixed = [
        f"seed {seed}{f' at {setting}' if setting else ''}"
        for (seed, setting), kinds in devices_of.items()
        if len(kinds) > 1
    ]
    if not mixed:
        return ""
    shared = "which share data and seeds but not the random numbers of their roll-outs"
    return f"Different kinds of devices were used for the arms of {', '.join(mixed)}, {shared}."


def numbers(seeds: Sequence[int]) -> str:
    """Return ascending seeds as text: ``1 to 5``, or a list if there are gaps."""
    contiguous = seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if contiguous else ", ".join(map(str, seeds))


def _device(record: Record) -> str:
    """Return the device that optimized the cell's policy (a GPU's name); empty if there is no policy."""
    path = record.folder / OPTIMISATION / MARKER
    if not path.is_file():
        return ""
    marker = json.loads(path.read_text())
    return str(marker.get("gpu", marker["device"].upper()))
