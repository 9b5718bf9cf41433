"""Provenance of a report: stage versions and devices, from the stage markers that every record keeps."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

from ablations.grids import split_label
from ablations.tracking.records import Record
from rrpo.pipeline.stages import MARKER

OPTIMISATION = "optimized"
"""Role of a cell's policy optimisation: its folder among the record's files."""


def stage_versions(records: Sequence[Record]) -> Counter[tuple[str, int]]:
    """Name and version of the stages that records were made of -> cells."""
    found: Counter[tuple[str, int]] = Counter()
    for record in records:
        for path in record.folder.glob(f"*/{MARKER}"):
            marker = json.loads(path.read_text())
            found[marker["name"], marker["version"]] += 1
    return found


def devices(records: Sequence[Record]) -> str:
    """On what the policies were optimised, in words; empty where no cell has a policy."""
    seeds: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        if device := _device(record):
            seeds[device].append(record.seed)
    used = [f"{device} ({len(of)} cells, seeds {numbers(sorted(set(of)))})" for device, of in seeds.items()]
    return f"Policies were optimised on {', '.join(used)}." if used else ""


def apart(records: Sequence[Record]) -> str:
    """Seeds (and settings) whose arms were optimised on several kinds of device, in words; empty where there are none."""
    used: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    for record in records:
        if device := _device(record):
            used[record.seed, split_label(record.label)[1]].add(device)
    found = [f"seed {seed}{f' at {setting}' if setting else ''}" for (seed, setting), on in used.items() if len(on) > 1]
    if not found:
        return ""
    shared = "which share data and seeds, but not the roll-outs' random numbers"
    return f"On several kinds of device: arms of {', '.join(found)}, {shared}."


def numbers(seeds: Sequence[int]) -> str:
    """Rising seeds for people: ``1 to 5``, or one by one where there are gaps."""
    whole = seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _device(record: Record) -> str:
    """On what the cell's policy was optimised, a GPU by its name; empty where it has none."""
    path = record.folder / OPTIMISATION / MARKER
    if not path.is_file():
        return ""
    marker = json.loads(path.read_text())
    return str(marker.get("gpu", marker["device"].upper()))
