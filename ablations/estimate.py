"""How long stages will take and how much room, from what stored stages of the same kind and size took."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rrpo.stages import MARKER, Stage, canonical

SIZES = frozenset(
    (
        *("steps", "batch", "size", "eval_prompts", "checkpoints", "pgd_steps"),
        *("audio_prompts", "dim", "layers", "architecture"),
    )
)
"""Config fields that decide how long a stage takes; seeds and strengths do not."""
Signature = tuple[str, str, str]


class Estimator:
    """Median seconds and bytes, most GPU memory, by kind, size and device of stage; learns while a run goes on."""

    def __init__(self, store: Path, device: str = "cpu") -> None:
        self.device = device
        self._seconds: dict[Signature, list[float]] = defaultdict(list)
        self._bytes: dict[Signature, list[float]] = defaultdict(list)
        self._device_mib: dict[Signature, int] = {}
        self._signatures: dict[str, Signature] = {}
        for marker in sorted((store / "stages").glob(f"*/{MARKER}")):
            try:
                past = json.loads(marker.read_text())
                signature = _signature(past["name"], past["config"], past["device"])
                self._seconds[signature].append(float(past["seconds"]))
                if (peak := past.get("peak_device_mib")) is not None:
                    self._device_mib[signature] = max(int(peak), self._device_mib.get(signature, 0))
                self._bytes[signature].append(float(past["bytes"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not for the estimate to complain about

    def learn(self, stage: Stage, seconds: float) -> None:
        """Remember what a stage took."""
        self._seconds[self._of(stage)].append(seconds)

    def seconds(self, stage: Stage) -> float | None:
        """The estimate, or None where nothing like it was built on this device."""
        past = self._seconds.get(self._of(stage))
        return statistics.median(past) if past else None

    def device_mib(self, stage: Stage) -> int | None:
        """Most MiB of a GPU that one like it held, or None where that was never measured."""
        return self._device_mib.get(self._of(stage))

    def total(self, stages: Iterable[Stage]) -> tuple[float, int]:
        """Seconds of work in all, and how many stages have no estimate (not in the sum)."""
        known = [self.seconds(stage) for stage in stages]
        return sum(s for s in known if s is not None), sum(s is None for s in known)

    def space(self, stages: Iterable[Stage]) -> str:
        """Room that stages will take, in words, by those of a kind that was built here."""
        sizes = [self._bytes.get(self._of(stage)) for stage in stages]
        known = sum(statistics.median(found) for found in sizes if found)
        if sizes and not any(sizes):
            return "unknown"
        text = f"{known / 2**20:.0f} MiB" if known < 2**30 else f"{known / 2**30:.1f} GiB"
        return f"about {text}" if all(sizes) else f"more than {text}"

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
    return f"about {text}" if not unknown else f"more than {text} ({unknown} stages of a kind not built here yet)"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


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
