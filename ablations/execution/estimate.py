"""Estimates of the time, disk and memory of stages, from stored stages of the same kind and size.

What was never built here is estimated from `REFERENCE`, what every stage of the named profiles took on another machine, times
this machine's pace: the ratio of the times of all that both have built. ``python -m ablations.execution.estimate RUNS_DIR``
writes that table anew.
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
from rrpo.identity import canonical, content_hash
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
"""A stage's name, what it is alike in, its device."""
LATEST = 3
"""Stages of a run whose median tells the next one's time."""
REFERENCE = Path(__file__).with_name("reference_times.csv")
"""Stage, sizes, device, seconds, bytes: medians of a ``full`` and a ``smoke`` run with one worker a core, two cores, CPU."""


class Estimator:
    """Seconds and bytes, most GPU memory, of stages; learns while a run goes on.

    A stage takes what the latest of this run took that differ from it by seed alone, in all below them or else in their own
    config; else what such stages, or those of its size, took before or on the reference machine, times `load`.
    """

    def __init__(self, store: Path, device: str = "cpu") -> None:
        self.device = device
        self._reference = _read(REFERENCE)
        self._past: dict[Signature, list[float]] = defaultdict(list)
        self._run: dict[Signature, list[float]] = defaultdict(list)
        self._bytes: dict[Signature, list[float]] = defaultdict(list)
        self._device_mib: dict[Signature, int] = {}
        self._signatures: dict[str, tuple[Signature, ...]] = {}
        self._known: dict[tuple[Signature, ...], float | None] = {}
        self._taken = self._thought = 0.0
        for signatures, past in _markers(store):
            *_, size = signatures
            for signature in signatures:
                self._past[signature].append(float(past["seconds"]))
            self._bytes[size].append(float(past["bytes"]))
            if (peak := past.get("peak_device_mib")) is not None:
                self._device_mib[size] = max(int(peak), self._device_mib.get(size, 0))
        both = [(self._before(size), self._reference[size][0]) for size in self._past if size in self._reference]
        self._pace = sum(here for here, _ in both) / sum(there for _, there in both) if both else 1.0

    def learn(self, stage: Stage, seconds: float) -> None:
        """Remember what a stage took."""
        thought = self._usual(stage)
        if thought is not None:
            self._taken, self._thought = self._taken + seconds, self._thought + thought
        for signature in self._of(stage):
            self._run[signature].append(seconds)
        self._known.clear()

    def seconds(self, stage: Stage) -> float | None:
        """The estimate, or None where nothing like it was built, here or on the reference machine."""
        signatures = self._of(stage)
        if signatures not in self._known:
            self._known[signatures] = self._estimate(signatures)
        return self._known[signatures]

    def guess(self, stage: Stage) -> float:
        """The estimate, or the longest that one of its kind took: what decides an order even where a size is new."""
        known = self.seconds(stage)
        if known is not None:
            return known
        there = {size: [seconds * self._pace] for size, (seconds, _) in self._reference.items()}
        alike = [
            times
            for known in (self._run, self._past, there)
            for (name, *_), times in known.items()
            if name == stage.name
        ]
        return max((seconds for times in alike for seconds in times), default=1.0)

    def load(self) -> float:
        """Seconds of this run's stages for one that was thought before: 2 where the machine is twice as busy."""
        return self._taken / self._thought if self._thought else 1.0

    def _estimate(self, signatures: tuple[Signature, ...]) -> float | None:
        for signature in signatures:
            if signature in self._run:
                return statistics.median(self._run[signature][-LATEST:])
            if signature in self._past:
                return self._before(signature) * self.load()
        there = self._reference.get(signatures[-1])
        return there[0] * self._pace * self.load() if there else None

    def _usual(self, stage: Stage) -> float | None:
        """What was thought of it before this run."""
        signatures = self._of(stage)
        past = next((self._before(signature) for signature in signatures if signature in self._past), None)
        there = self._reference.get(signatures[-1])
        return past if past is not None or there is None else there[0] * self._pace

    def _before(self, signature: Signature) -> float:
        """The lower median: what interrupts a stage makes it longer, never shorter."""
        return statistics.median_low(self._past[signature])

    def borrowed(self, stages: Iterable[Stage]) -> int:
        """How many of the stages are estimated from the reference machine."""
        sizes = [self._of(stage)[-1] for stage in stages]
        return sum(size not in self._past and size not in self._run and size in self._reference for size in sizes)

    def device_mib(self, stage: Stage) -> int | None:
        """Most MiB of a GPU that one like it held, or None where that was never measured."""
        return self._device_mib.get(self._of(stage)[-1])

    def total(self, stages: Iterable[Stage]) -> tuple[float, int]:
        """Seconds of work in all, and how many stages have no estimate (not in the sum)."""
        known = [self.seconds(stage) for stage in stages]
        return sum(s for s in known if s is not None), sum(s is None for s in known)

    def space(self, stages: Iterable[Stage]) -> str:
        """Room that stages will take, in words, by those of a kind that was built here."""
        sizes = [self._size(self._of(stage)[-1]) for stage in stages]
        known = sum(size for size in sizes if size is not None)
        if sizes and all(size is None for size in sizes):
            return "unknown"
        text = f"{known / 2**20:.0f} MiB" if known < 2**30 else f"{known / 2**30:.1f} GiB"
        return f"more than {text}" if None in sizes else f"about {text}"

    def _size(self, signature: Signature) -> float | None:
        if past := self._bytes.get(signature):
            return statistics.median(past)
        return self._reference[signature][1] if signature in self._reference else None

    def _of(self, stage: Stage) -> tuple[Signature, ...]:
        """What other stages may share with it, most telling first."""
        if stage.key not in self._signatures:
            own, size = _signatures(stage.name, canonical(stage.config), self.device)
            below = {role: self._of(child)[0] for role, child in stage.inputs.items()}
            self._signatures[stage.key] = ((stage.name, content_hash([own, below]), self.device), own, size)
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


def _markers(store: Path) -> Iterator[tuple[tuple[Signature, Signature], dict[str, Any]]]:
    """Every readable marker of a stored stage; it is not for the estimate to complain about the others."""
    for marker in sorted((store / "stages").glob(f"*/{MARKER}")):
        try:
            past = json.loads(marker.read_text())
            signatures = _signatures(past["name"], past["config"], past["device"])
            float(past["seconds"]), float(past["bytes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        yield signatures, past


def _read(path: Path) -> dict[Signature, tuple[float, float]]:
    """Seconds and bytes by signature."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["stage"], row["sizes"], row["device"]): (float(row["seconds"]), float(row["bytes"])) for row in rows}


def _signatures(name: str, config: Any, device: str) -> tuple[Signature, Signature]:
    """Config at any seed, and sizes, of a stage."""
    leaves: list[tuple[str, Any]] = []

    def visit(tree: Any) -> None:
        for key, value in sorted(tree.items()):
            if isinstance(value, dict):
                visit(value)
            else:
                leaves.append((key, value))

    visit(config)
    alike = [leaf for leaf in leaves if leaf[0] != "seed"]
    sizes = json.dumps([leaf for leaf in leaves if leaf[0] in SIZES])
    return (name, content_hash(alike), device), (name, sizes, device)


def write_reference(folders: list[Path]) -> None:
    """Write the times of another machine anew, from the stages of these runs folders."""
    found: dict[Signature, list[tuple[float, float]]] = defaultdict(list)
    for folder in folders:
        markers = list(_markers(folder))
        if not markers:
            raise InputError(
                "no finished stage lies there", got=folder, fix="name runs folders that ablations.run made"
            )
        for (_, size), past in markers:
            found[size].append((float(past["seconds"]), float(past["bytes"])))
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
