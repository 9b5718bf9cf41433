"""Stages: pure functions of their config, stored once by content hash and shared by arms, grids, studies and processes.

A `Stage` consists of a build function, its config and the stages it reads. Its key hashes all of these, so equal work has an
equal key whoever requests it. `materialise` builds missing stages: one process claims a stage, the others wait or do other
work. A partial result is never visible, because a build writes beside the final folder and renames it at the end. Every store
also includes `LAYER`: read-only results installed with the package.

Nothing here imports torch: planning a thousand cells only hashes configs.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rrpo.identity import canonical, content_hash
from rrpo.pipeline.claims import Claim, Claims, keep_renewed
from rrpo.pipeline.errors import ClaimedError, failure_kind
from rrpo.pipeline.executor import MARK, SINGLE, Executor
from rrpo.pipeline.memory import forget_peak, peak_device_mib
from rrpo.pipeline.progress import progress_file, with_progress_file
from rrpo.pipeline.provenance import built_with
from rrpo.pipeline.versions import KINDS, VERSIONS

MARKER = "stage.json"
LAYER = Path(__file__).parents[1] / "world_weights"
"""Read-only results shared by all stores, one folder per stage; see `rrpo.experiment.frozen`."""
POLL = 1.0
"""Maximum seconds between two polls of a stage that another process builds."""


class Clock:
    """Time spent on one stage in seconds, including earlier attempts recorded in its checkpoint."""

    def __init__(self, share: float = 1.0) -> None:
        """Start the clock. ``share`` is this stage's part of the elapsed time; see `Executor.share`."""
        self.start = time.monotonic()
        self.share = share
        self.earlier = 0.0

    def seconds(self) -> float:
        """Return the seconds spent so far."""
        return self.earlier + self.share * (time.monotonic() - self.start)


@dataclass(frozen=True)
class Context:
    """Execution environment of a build. It never changes the meaning of a result."""

    device: str = "cpu"
    """``cpu`` or ``cuda``."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Progress callback: units done, total units."""
    on_measures: Callable[[int, Mapping[str, float]], None] = lambda step, measures: None
    """Callback for the measures of a policy optimization as it runs; after a resume it is called from the first step on. It may
    raise to end the optimization, and then nothing is kept."""
    stop: Callable[[], bool] = lambda: False
    """Called between two steps. When it returns True, the loop saves a checkpoint and raises `Interrupted`."""
    checkpoints: Path | None = None
    """Folder of checkpoints, named like the stage's own, or like the `part` for one of several trainings; None: no checkpoint."""
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints; 0: one per step; inf: only when a stop is requested."""
    keep_last: bool = False
    """Whether a training's state after its last step is saved as well, because the stage continues with other work."""
    micro: int | None = None
    """Samples per forward of a policy optimization, with gradient accumulation; None chooses by device. The result is
    mathematically the same. Other trainings always use whole batches, because their dropout noise is drawn per batch."""
    clock: Clock = field(default_factory=Clock)
    """Clock of the stage that is built."""
    join: Callable[[Any], Any] = lambda models: models
    """Transforms the models of a stage that can be stacked, once they are complete; see `rrpo.stacking`."""
    backward: Callable[[Any], None] = lambda loss: loss.backward()
    """Adds a loss's gradients to the trained parameters."""
    executor: Executor = SINGLE
    """How the stage is computed; recorded in the result's marker."""
    wait: bool = True
    """Whether to wait for a stage that another process builds; if False, ClaimedError is raised."""

    @property
    def saves(self) -> bool:
        """Whether this process saves checkpoints without being stopped: of the processes of a run, only one does."""
        return math.isfinite(self.checkpoint_seconds)

    def part(self, name: str) -> Context:
        """Return the context of one of several trainings of the stage, which has a folder of checkpoints of its own.

        A build that was interrupted in a later training then trains none of the earlier ones again.
        """
        return dataclasses.replace(self, checkpoints=self.checkpoints and self.checkpoints / name, keep_last=self.saves)


@dataclass(frozen=True)
class Stage:
    """A node of the data flow. ``build(config, inputs, out, context)`` writes its result into the folder ``out``."""

    name: str
    """Kind of stage: a key of `rrpo.pipeline.versions.VERSIONS`, and the start of the folder's name."""
    build: str
    """``module:function``, imported only when the stage is built."""
    config: Any
    """Frozen dataclass; hashed as described in `rrpo.identity`."""
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    """Input stages by role."""
    label: str = ""
    """Text for progress and errors; not part of the key."""

    @classmethod
    def of(cls, kind: str, config: Any, inputs: Mapping[str, Stage] | None = None, label: str = "") -> Stage:
        """Return a stage of one of `rrpo.pipeline.versions.KINDS`, which says how it is built."""
        return cls(kind, KINDS[kind].build, config, inputs or {}, label)

    @cached_property
    def key(self) -> str:
        """Content hash of (name, version, config, inputs' keys)."""
        roles = {role: stage.key for role, stage in self.inputs.items()}
        return content_hash([self.name, VERSIONS[self.name], self.config, roles])

    @property
    def folder(self) -> str:
        """Name of the result's folder, of its checkpoints and of its claim."""
        return f"{self.name}-{self.key[:20]}"

    def path(self, store: Path) -> Path:
        """Return the result's folder, in the store or in `LAYER`; for an unbuilt stage, the folder that it will have."""
        return stored(store, self.folder) or place(store, self.folder)

    def done(self, store: Path) -> bool:
        """Return whether a finished result exists."""
        return stored(store, self.folder) is not None

    def seconds(self, store: Path) -> float | None:
        """Return the build time of the result in seconds; None before it is built."""
        folder = stored(store, self.folder)
        return float(json.loads((folder / MARKER).read_text())["seconds"]) if folder else None

    def __str__(self) -> str:
        return self.label or self.name


def stored(store: Path, folder: str) -> Path | None:
    """Return the finished result in the folder of that name, from the store or else from `LAYER`; None if there is none."""
    return next((path for path in (place(store, folder), LAYER / folder) if (path / MARKER).is_file()), None)


def place(store: Path, folder: str) -> Path:
    """Return the folder in which a store keeps a stage that it builds. No other folder of a stage is ever written."""
    return store / "stages" / folder


def walk(*roots: Stage, skip: Callable[[Stage], bool] = lambda stage: False) -> Iterator[Stage]:
    """Yield every distinct stage below ``roots``, inputs before the stages that read them.

    Stages for which ``skip`` is true are left out, and so are inputs that only these read.
    """
    seen: set[str] = set()

    def visit(stage: Stage) -> Iterator[Stage]:
        if stage.key in seen:
            return
        seen.add(stage.key)
        if skip(stage):
            return
        for child in stage.inputs.values():
            yield from visit(child)
        yield stage

    for root in roots:
        yield from visit(root)


def missing_below(roots: Sequence[Stage], store: Path) -> list[Stage]:
    """Return every distinct stage that must be built for ``roots``, inputs first; skip inputs that only finished stages read."""
    return list(walk(*roots, skip=lambda stage: stage.done(store)))


def materialise(stage: Stage, store: Path, context: Context) -> Path:
    """Return the folder of ``stage``'s result. Build the result, and the inputs that it needs, if it is missing.

    The inputs of a finished result need not exist. A result is flushed to disk before it becomes visible. Checkpoints are
    stored in ``store/checkpoints/`` while a stage is built; they survive any failure except divergence.

    Raises:
        ClaimedError: Another process builds the stage, and ``context.wait`` is False.
        Exception: Any error of the build; only its checkpoints are kept.
    """
    if stage.done(store):
        return stage.path(store)
    inputs = {role: materialise(child, store, context) for role, child in stage.inputs.items()}
    final = place(store, stage.folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    claims = Claims(store / "claims")
    pause = POLL / 20
    while (claim := claims.take(final.name)) is None:
        if stage.done(store):
            return final
        if not context.wait:
            raise ClaimedError(f"{stage} is being built by {claims.holder(final.name)}")
        time.sleep(pause)
        pause = min(POLL, 1.5 * pause)
    with keep_renewed(claim):
        if not stage.done(store):
            _build(stage, store, inputs, claim, context)
    return final


def _build(stage: Stage, store: Path, inputs: Mapping[str, Path], claim: Claim, context: Context) -> None:
    """Build beside the final folder and rename it at the end."""
    final = place(store, stage.folder)
    finished = [path for path in (store / "checkpoints").glob("*") if stored(store, path.name)]
    for leftover in [*final.parent.glob(f".{final.name}.*"), *finished]:  # left by builders that were killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    partial.mkdir()
    checkpoints = store / "checkpoints" / final.name
    note = progress_file(store, final.name)
    report = with_progress_file(context.report, note)
    executor = context.executor.of(stage.name)
    clock = Clock(executor.share)
    local = dataclasses.replace(context, clock=clock, checkpoints=checkpoints, report=report, executor=executor)
    try:
        forget_peak(context.device)
        module, function = stage.build.split(":")
        with local.executor.applied():
            getattr(importlib.import_module(module), function)(stage.config, inputs, partial, local)
        _write_marker(partial / MARKER, stage, local)
        with ThreadPoolExecutor(16) as pool:  # file systems flush many files at once as fast as one
            list(pool.map(flush, [*partial.rglob("*"), partial]))
        if not claim.held():
            raise ClaimedError(f"{stage} was taken over by another process because this one did not renew its claim")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        flush(final.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if failure_kind(error) == "diverged":
            shutil.rmtree(checkpoints, ignore_errors=True)
        raise
    finally:
        note.unlink(missing_ok=True)
    shutil.rmtree(checkpoints, ignore_errors=True)


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_marker(path: Path, stage: Stage, context: Context) -> None:
    device, peak = context.device, peak_device_mib(context.device)
    record = {
        "name": stage.name,
        "key": stage.key,
        "version": VERSIONS[stage.name],
        "config": canonical(stage.config),
        "inputs": {role: child.key for role, child in stage.inputs.items()},
        "seconds": round(context.clock.seconds(), 3),
        "device": device,
        "bytes": sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()),
        "peak_device_mib": peak if peak is None else round(peak * context.executor.share),
    } | built_with(device)
    if executor := str(context.executor):
        record[MARK] = executor
    path.write_text(json.dumps(record, indent=1))
