"""Estimates of the time, disk space and memory of stages, from stored stages of the same kind and size.

Stages that were never built on this machine are estimated from `REFERENCE`, the times of all stages of the named profiles on
another machine, multiplied by this machine's pace: the ratio of the total times of the stages built on both machines.
``tests/benchmarks/reference_times.py`` regenerates that table.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
"""Config fields that determine how long a stage takes; seeds and strengths do not."""
WORK = frozenset(("steps", "batch", "size", "prompts", "utterances", "n"))
"""Fields of `SIZES` to which the time is proportional, roughly."""
Signature = tuple[str, str, str]
"""Stage name, hash or text of what similar stages have in common, device."""
LATEST = 3
"""Number of recent stages of this run whose median is the estimate."""
REFERENCE = Path(__file__).with_name("reference_times.csv")
"""Stage, sizes, device, seconds, bytes: medians of a ``full`` and a ``smoke`` run, CPU, one worker on each of two cores."""


BORROWED, SCALED = "another machine's times", "the times of another size"
"""Sources of an estimate other than equal stages of this machine."""


class Estimator:
    """Estimates seconds, bytes and peak GPU memory of stages, and learns during a run.

    A stage's time is the median of the latest similar stages of this run, or that of earlier runs multiplied by `load`. Similar
    stages are, in this order: equal except for seeds, with all their inputs; equal in their own config except for seeds; equal in
    `SIZES`. If there are none, the time is that of the reference machine, multiplied by pace and `load`. A new size takes the
    time of the nearest known size of its kind, in proportion to its `WORK`.
    """

    def __init__(self, store: Path, device: str = "cpu") -> None:
        self.device = device
        self._run: dict[Signature, list[float]] = defaultdict(list)
        self._device_mib: dict[Signature, int] = {}
        self._signatures: dict[str, tuple[Signature, ...]] = {}
        self._taken = self._expected = 0.0
        measured: dict[Signature, list[tuple[float, float]]] = defaultdict(list)
        for signatures, content in markers(store):
            for signature in signatures:
                measured[signature].append((float(content["seconds"]), float(content["bytes"])))
            if (peak := content.get("peak_device_mib")) is not None:
                self._device_mib[signatures[-1]] = max(int(peak), self._device_mib.get(signatures[-1], 0))
        self._past: dict[Signature, tuple[float, float, str]] = {}
        """Signature -> seconds, bytes, source."""
        for signature, stages in measured.items():
            seconds, sizes = zip(*stages, strict=True)
            # The lower median, because interruptions make a stage longer, never shorter.
            self._past[signature] = statistics.median_low(seconds), statistics.median(sizes), ""
        reference = _read(REFERENCE)
        shared = [signature for signature in self._past if signature in reference]
        pace = sum(self._past[s][0] for s in shared) / sum(reference[s][0] for s in shared) if shared else 1.0
        for size in reference.keys() - self._past.keys():
            self._past[size] = reference[size][0] * pace, reference[size][1], BORROWED
        self._sizes = {signature for signature in self._past if signature[1].startswith("[")}
        """The signatures by sizes alone that are known, here or in this run."""
        self._known: dict[tuple[Signature, ...], tuple[float, str] | None] = {}

    def learn(self, stage: Stage, seconds: float) -> None:
        """Add the measured time of a stage of this run."""
        signatures = self._signatures_of(stage)
        expected = next((self._past[signature][0] for signature in signatures if signature in self._past), None)
        if expected is not None:
            self._taken, self._expected = self._taken + seconds, self._expected + expected
        for signature in signatures:
            self._run[signature].append(seconds)
        self._sizes.add(signatures[-1])
        self._known.clear()

    def seconds(self, stage: Stage) -> float | None:
        """Return the estimated seconds; None if no stage of its kind was built, here or on the reference machine."""
        estimate = self.estimate(stage)
        return estimate and estimate[0]

    def estimate(self, stage: Stage) -> tuple[float, str] | None:
        """Return the estimated seconds as `seconds` does, and their source: `BORROWED`, `SCALED`, or empty."""
        signatures = self._signatures_of(stage)
        if signatures not in self._known:
            self._known[signatures] = self._estimate(signatures)
        return self._known[signatures]

    def load(self) -> float:
        """Return measured / expected seconds of this run's stages: 2 if the machine is half as fast as in earlier runs."""
        return self._taken / self._expected if self._expected else 1.0

    def _estimate(self, signatures: tuple[Signature, ...]) -> tuple[float, str] | None:
        for signature in signatures:
            if signature in self._run:
                return statistics.median(self._run[signature][-LATEST:]), ""
            if signature in self._past:
                seconds, _, source = self._past[signature]
                return seconds * self.load(), source
        size = signatures[-1]
        candidates = [candidate for candidate in self._sizes if candidate[::2] == size[::2]]
        if not candidates:
            return None
        nearest = min(candidates, key=lambda candidate: (abs(math.log(_work(candidate) / _work(size))), candidate))
        seconds, _ = self._estimate((nearest,)) or (0.0, "")
        return _work(size) / _work(nearest) * seconds, SCALED

    def device_mib(self, stage: Stage) -> int | None:
        """Return the peak GPU memory in MiB of stages of the same size; None if it was never measured."""
        return self._device_mib.get(self._signatures_of(stage)[-1])

    def total(self, stages: Iterable[Stage]) -> tuple[float, int]:
        """Return the total seconds of work, and the number of stages without an estimate (not in the sum)."""
        known = [self.seconds(stage) for stage in stages]
        return sum(seconds for seconds in known if seconds is not None), sum(seconds is None for seconds in known)

    def space(self, stages: Sequence[Stage]) -> str:
        """Return the disk space of stages as text; stages of unknown size are not included in the number."""
        sizes = [self._past[size][1] for size in (self._signatures_of(s)[-1] for s in stages) if size in self._past]
        if stages and not sizes:
            return "unknown"
        text = f"{sum(sizes) / 2**20:.0f} MiB" if sum(sizes) < 2**30 else f"{sum(sizes) / 2**30:.1f} GiB"
        return f"more than {text}" if len(sizes) < len(stages) else f"about {text}"

    def _signatures_of(self, stage: Stage) -> tuple[Signature, ...]:
        """Return the signatures of a stage, most specific first: config with inputs, own config, sizes."""
        if stage.key not in self._signatures:
            config, sizes = _signatures(stage.name, canonical(stage.config), self.device)
            inputs = {role: self._signatures_of(child)[0] for role, child in stage.inputs.items()}
            self._signatures[stage.key] = ((stage.name, content_hash([config, inputs]), self.device), config, sizes)
        return self._signatures[stage.key]


def wall(stages: Sequence[Stage], estimator: Estimator, workers: int) -> str:
    """Return the time left as text: total work / workers, but at least the longest single stage."""
    known = [estimate for stage in stages if (estimate := estimator.estimate(stage))]
    if not stages:
        return "0 s"
    if not known:
        return "unknown: nothing of this kind was built here yet"
    seconds = [estimate for estimate, _ in known]
    text = duration(max(sum(seconds) / workers, *seconds))
    unknown = len(stages) - len(known)
    notes = [f"{unknown} stages of a kind not built here yet"] if unknown else []
    notes += [f"{n} of {len(stages)} stages by {source}" for source, n in Counter(s for _, s in known if s).items()]
    return ("more than " if unknown else "about ") + text + (f" ({'; '.join(notes)})" if notes else "")


def duration(seconds: float) -> str:
    """Return a duration as text: ``45 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def markers(store: Path) -> Iterator[tuple[tuple[Signature, Signature], dict[str, Any]]]:
    """Yield signatures and content of every readable marker of a stored stage; unreadable ones are skipped."""
    for marker in sorted((store / "stages").glob(f"*/{MARKER}")):
        try:
            content = json.loads(marker.read_text())
            signatures = _signatures(content["name"], content["config"], content["device"])
            float(content["seconds"]), float(content["bytes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        yield signatures, content


def _read(path: Path) -> dict[Signature, tuple[float, float]]:
    """Return seconds and bytes by signature, from a table such as `REFERENCE`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["stage"], row["sizes"], row["device"]): (float(row["seconds"]), float(row["bytes"])) for row in rows}


def _signatures(name: str, config: Any, device: str) -> tuple[Signature, Signature]:
    """Return two signatures of a stage: by its config without seeds, and by its sizes alone."""
    leaves = list(_leaves(config))
    alike = [leaf for leaf in leaves if leaf[0] != "seed"]
    sizes = json.dumps([leaf for leaf in leaves if leaf[0] in SIZES])
    return (name, content_hash(alike), device), (name, sizes, device)


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    for key, value in sorted(tree.items()):
        yield from _leaves(value) if isinstance(value, dict) else [(key, value)]


def _work(size: Signature) -> float:
    """Return the product of the config fields in `WORK`."""
    return math.prod(max(value, 1) for name, value in json.loads(size[1]) if name in WORK)
