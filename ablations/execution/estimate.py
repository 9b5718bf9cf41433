"""Estimates of the time, disk and memory of stages, from stored stages of the same kind and size.

What was never built here is estimated from `REFERENCE`, what every stage of the named profiles took on another machine, times
this machine's pace: the median ratio of what both have built. ``python -m ablations.execution.estimate RUNS_DIR`` writes that
table anew.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ablations.errors import InputError
from rrpo.identity import canonical
from rrpo.pipeline.stages import MARKER, Stage

SIZES = frozenset(
    (
        *("steps", "batch", "size", "eval_prompts", "final_prompts", "checkpoints", "pgd_steps"),
        *("audio_prompts", "dim", "layers", "architecture"),
        *("n", "batches", "reference_batches"),
        *("readings", "prompts", "utterances", "planted", "section", "speech"),
    )
)
"""Config fields that decide how long a stage takes; seeds and strengths do not."""
Signature = tuple[str, str, str]
REFERENCE = Path(__file__).with_name("reference_times.csv")
"""Stage, sizes, device, seconds, bytes: medians of a ``full`` and a ``smoke`` run with one worker a core, two cores, CPU."""


class Estimator:
    """Median seconds and bytes, most GPU memory, by kind, size and device of stage; learns while a run goes on."""

    def __init__(self, store: Path, device: str = "cpu") -> None:
        self.device = device
        self._reference = _read(REFERENCE)
        self._seconds: dict[Signature, list[float]] = defaultdict(list)
        self._bytes: dict[Signature, list[float]] = defaultdict(list)
        self._device_mib: dict[Signature, int] = {}
        self._signatures: dict[str, Signature] = {}
        self._pace: float | None = None
        for signature, past in _markers(store):
            self._seconds[signature].append(float(past["seconds"]))
            self._bytes[signature].append(float(past["bytes"]))
            if (peak := past.get("peak_device_mib")) is not None:
                self._device_mib[signature] = max(int(peak), self._device_mib.get(signature, 0))

    def learn(self, stage: Stage, seconds: float) -> None:
        """Remember what a stage took."""
        self._pace = None
        self._seconds[self._of(stage)].append(seconds)

    def seconds(self, stage: Stage) -> float | None:
        """The estimate, or None where nothing like it was built, here or on the reference machine."""
        if past := self._seconds.get(self._of(stage)):
            return statistics.median(past)
        known = self._reference.get(self._of(stage))
        return known[0] * self.pace() if known else None

    def guess(self, stage: Stage) -> float:
        """The estimate, or the longest that one of its kind took: what decides an order even where a size is new."""
        known = self.seconds(stage)
        if known is not None:
            return known
        here = (value for (name, *_), past in self._seconds.items() if name == stage.name for value in past)
        there = (value * self.pace() for (name, *_), (value, _) in self._reference.items() if name == stage.name)
        return max((*here, *there), default=1.0)

    def pace(self) -> float:
        """This machine's seconds for one of the reference machine's; 1 while nothing was built that both know."""
        if self._pace is None:
            both = [
                statistics.median(past) / self._reference[signature][0]
                for signature, past in self._seconds.items()
                if past and signature in self._reference
            ]
            self._pace = statistics.median(both) if both else 1.0
        return self._pace

    def borrowed(self, stages: Iterable[Stage]) -> int:
        """How many of the stages are estimated from the reference machine."""
        return sum(not self._seconds.get(self._of(s)) and self._of(s) in self._reference for s in stages)

    def device_mib(self, stage: Stage) -> int | None:
        """Most MiB of a GPU that one like it held, or None where that was never measured."""
        return self._device_mib.get(self._of(stage))

    def total(self, stages: Iterable[Stage]) -> tuple[float, int]:
        """Seconds of work in all, and how many stages have no estimate (not in the sum)."""
        known = [self.seconds(stage) for stage in stages]
        return sum(s for s in known if s is not None), sum(s is None for s in known)

    def space(self, stages: Iterable[Stage]) -> str:
        """Room that stages will take, in words, by those of a kind that was built here."""
        sizes = [self._size(self._of(stage)) for stage in stages]
        known = sum(size for size in sizes if size is not None)
        if sizes and all(size is None for size in sizes):
            return "unknown"
        text = f"{known / 2**20:.0f} MiB" if known < 2**30 else f"{known / 2**30:.1f} GiB"
        return f"more than {text}" if None in sizes else f"about {text}"

    def _size(self, signature: Signature) -> float | None:
        if past := self._bytes.get(signature):
            return statistics.median(past)
        return self._reference[signature][1] if signature in self._reference else None

    def _of(self, stage: Stage) -> Signature:
        if stage.key not in self._signatures:
            self._signatures[stage.key] = _signature(stage.name, canonical(stage.config), self.device)
        return self._signatures[stage.key]


def wall(stages: Sequence[Stage], estimator: Estimator, workers: int) -> str:
    """The time left in words: work over workers, at least the longest single stage."""
    seconds, unknown = estimator.total(stages)
    longest = max((estimator.seconds(stage) or 0.0 for stage in stages), default=0.0)
    if not stages:
        return "0 s"
    if unknown == len(stages):
        return "unknown: nothing of this size was built here yet"
    text = duration(max(seconds / workers, longest))
    borrowed = estimator.borrowed(stages)
    notes = [f"{unknown} stages of a kind not built here yet"] if unknown else []
    notes += [f"{borrowed} of {len(stages)} stages by another machine's times"] if borrowed else []
    return ("more than " if unknown else "about ") + text + (f" ({'; '.join(notes)})" if notes else "")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _markers(store: Path) -> Iterator[tuple[Signature, dict[str, Any]]]:
    """Every readable marker of a stored stage; it is not for the estimate to complain about the others."""
    for marker in sorted((store / "stages").glob(f"*/{MARKER}")):
        try:
            past = json.loads(marker.read_text())
            signature = _signature(past["name"], past["config"], past["device"])
            float(past["seconds"]), float(past["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield signature, past


def _read(path: Path) -> dict[Signature, tuple[float, float]]:
    """Seconds and bytes by signature."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["stage"], row["sizes"], row["device"]): (float(row["seconds"]), float(row["bytes"])) for row in rows}


def _signature(name: str, config: Any, device: str) -> Signature:
    leaves: list[Any] = []

    def visit(tree: Any) -> None:
        for key, value in sorted(tree.items()):
            if isinstance(value, dict):
                visit(value)
            elif key in SIZES:
                leaves.append([key, value])

    visit(config)
    return name, json.dumps(leaves), device


def write_reference(folders: list[Path]) -> None:
    """Write the times of another machine anew, from the stages of these runs folders."""
    found: dict[Signature, list[tuple[float, float]]] = defaultdict(list)
    for folder in folders:
        markers = list(_markers(folder))
        if not markers:
            raise InputError(
                "no finished stage lies there", got=folder, fix="name runs folders that ablations.run made"
            )
        for signature, past in markers:
            found[signature].append((float(past["seconds"]), float(past["bytes"])))
    with REFERENCE.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("stage", "sizes", "device", "seconds", "bytes"))
        for signature, values in sorted(found.items()):
            seconds, size = (statistics.median(column) for column in zip(*values, strict=True))
            table.writerow((*signature, f"{seconds:.2f}", f"{size:.0f}"))


def main() -> None:
    """Entry point of the command."""
    import typer

    from ablations.commands import refusing, start

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(refusing()(write_reference))
    start(app, "ablations.execution.estimate")


if __name__ == "__main__":
    main()
