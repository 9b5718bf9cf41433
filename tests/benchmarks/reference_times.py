"""Regenerate the table of reference times from runs folders: ``python tests/benchmarks/reference_times.py RUNS_DIR ...``."""

from __future__ import annotations

import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from ablations.execution.estimate import REFERENCE, Signature, markers


def main(folders: list[Path]) -> None:
    """Write the medians of all finished stages in the folders to `REFERENCE`."""
    found: dict[Signature, list[tuple[float, float]]] = defaultdict(list)
    for folder in folders:
        for (_, size), past in markers(folder):
            found[size].append((float(past["seconds"]), float(past["bytes"])))
    if not found:
        sys.exit("error: no finished stage\n  fix: give runs folders created by ablations.run")
    with REFERENCE.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("stage", "sizes", "device", "seconds", "bytes"))
        for signature, values in sorted(found.items()):
            seconds, size = (statistics.median(column) for column in zip(*values, strict=True))
            table.writerow((*signature, f"{seconds:.2f}", f"{size:.0f}"))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
