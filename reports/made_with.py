"""Provenance of a report: stage versions and devices, from the stage markers in every record."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

from ablations.grids import split_label
from ablations.stats.statistics import listed
from ablations.tracking.records import OPTIMIZED, Record
from rrpo.pipeline.stages import MARKER


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
    parts = [
        f"{device} ({len(cells)} cells, seeds {listed(sorted({cell.seed for cell in cells}))})"
        for device, cells in _by_device(records).items()
    ]
    return f"Policies were optimized on {', '.join(parts)}." if parts else ""


def apart(records: Sequence[Record]) -> str:
    """Return a sentence on the seeds (and settings) whose arms were optimized on several kinds of device; empty if there are
    none."""
    places = [{(cell.seed, split_label(cell.label)[1]) for cell in cells} for cells in _by_device(records).values()]
    counts = Counter(place for of_device in places for place in of_device)
    mixed = [
        f"seed {seed}{f' at {setting}' if setting else ''}" for (seed, setting), n in sorted(counts.items()) if n > 1
    ]
    shared = "which share data and seeds but not the random numbers of their roll-outs"
    return f"Different kinds of devices were used for the arms of {', '.join(mixed)}, {shared}." if mixed else ""


def _by_device(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return device that optimized policies (a GPU's name) -> its cells."""
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        path = record.folder / OPTIMIZED / MARKER
        if path.is_file():
            marker = json.loads(path.read_text())
            groups[str(marker.get("gpu", marker["device"].upper()))].append(record)
    return groups
