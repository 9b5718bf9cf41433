"""Stages: pure functions of their config, stored once by content hash and shared by arms, grids, studies and processes.

A `Stage` names a build function, its config and the stages it reads. Its key hashes all of that, so equal work has an
equal key whoever asks for it. `materialise` builds what is missing: one process claims it, the others wait or do other work;
a half-built folder is never seen, since a build happens beside its place and is renamed into it. Below every store lies
`LAYER`: results that are installed with the package, which are read as if they were stored and never written.

Nothing here imports torch: planning a thousand cells only hashes configs.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rrpo.identity import canonical, content_hash
from rrpo.pipeline.claims import Claim, Claims, kept
from rrpo.pipeline.errors import ClaimedError, failure_kind
from rrpo.pipeline.executor import MARK, SINGLE, Executor
from rrpo.pipeline.memory import forget_peak, peak_device_mib
from rrpo.pipeline.progress import noted, progress_file
from rrpo.pipeline.provenance import built_with
from rrpo.pipeline.versions import VERSIONS

MARKER = "stage.json"
LAYER = Path(__file__).parents[1] / "world_weights"
"""Read-only results, a folder a stage, which every store has in common; see `rrpo.pipeline.frozen`."""
POLL = 1.0
"""Most seconds between two looks at a stage that another process builds."""


class Clock:
    """Seconds spent on one stage, those that its checkpoint brings from earlier attempts among them."""

    def __init__(self, share: float = 1.0) -> None:
        """``share`` of the time is this stage's, see `Executor.share`."""
        self.start = time.monotonic()
        self.share = share
        self.earlier = 0.0

    def seconds(self) -> float:
        """Until now."""
        return self.earlier + self.share * (time.monotonic() - self.start)


@dataclass(frozen=True)
class Context:
    """What a build may know beside its config: where to compute and whom to tell. Never changes a result's meaning."""

    device: str = "cpu"
    """``cpu`` or ``cuda``."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Progress: units done, units in all."""
    watch: Callable[[int, Mapping[str, float]], None] = lambda step, measures: None
    """Told what a policy optimisation measures as it goes, after a resume from the first step on; may raise to end it, and
    nothing of it is kept."""
    stop: Callable[[], bool] = lambda: False
    """Asked between two steps; once it says True the loop saves a checkpoint and raises `Interrupted`."""
    checkpoints: Path | None = None
    """Folder of this stage's checkpoints, named as the stage's own; None: none are written."""
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints; 0: one a step."""
    micro: int | None = None
    """Samples a forward of a policy optimisation, gradients accumulated; None: what suits the device. Same mathematics. Other
    trainings take their batch whole: their networks draw dropout by batch, so that a batch cut up would draw another."""
    clock: Clock = field(default_factory=Clock)
    """Of the stage that is built."""
    join: Callable[[Any], Any] = lambda models: models
    """What a policy optimisation makes of the models that it has loaded; see `rrpo.optimizers.stacked`."""
    executor: Executor = SINGLE
    """How it is computed; noted in the result's marker."""
    wait: bool = True
    """Whether to wait for a stage that another process builds; otherwise ClaimedError is raised."""


@dataclass(frozen=True)
class Stage:
    """One node of the data flow: ``build(config, inputs, out, context)`` writes its result into the folder ``out``."""

    name: str
    """Which kind of stage; a key of `rrpo.pipeline.versions.VERSIONS`, and the start of the folder's name."""
    build: str
    """``module:function``, imported only when it is built."""
    config: Any
    """Frozen dataclass; hashed as `rrpo.identity` says."""
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    """Stages it reads, by the role they play."""
    label: str = ""
    """For people (progress, errors); not part of the key."""

    @cached_property
    def key(self) -> str:
        """Content hash of (name, version, config, inputs' keys)."""
        roles = {role: stage.key for role, stage in self.inputs.items()}
        return content_hash([self.name, VERSIONS[self.name], self.config, roles])

    @property
    def folder(self) -> str:
        """Name of the result's folder, of its checkpoints and of the claim on it."""
        return f"{self.name}-{self.key[:20]}"

    def path(self, store: Path) -> Path:
        """Where the result lies, in the store or in `LAYER`; before it is built, where it will."""
        return stored(store, self.folder) or place(store, self.folder)

    def done(self, store: Path) -> bool:
        """Whether there is a finished result."""
        return stored(store, self.folder) is not None

    def seconds(self, store: Path) -> float | None:
        """How long the result took to build; None before it is built."""
        found = stored(store, self.folder)
        return float(json.loads((found / MARKER).read_text())["seconds"]) if found else None

    def __str__(self) -> str:
        return self.label or self.name


def stored(store: Path, folder: str) -> Path | None:
    """The finished result whose folder has that name: the store's own, else the one of `LAYER`; None where there is none."""
    return next((found for found in (place(store, folder), LAYER / folder) if (found / MARKER).is_file()), None)


def place(store: Path, folder: str) -> Path:
    """Where a store keeps what it builds: the only place of a stage that is ever written."""
    return store / "stages" / folder


def walk(*roots: Stage) -> Iterator[Stage]:
    """Every distinct stage below ``roots``, inputs before the stages that read them."""
    seen: set[str] = set()

    def visit(stage: Stage) -> Iterator[Stage]:
        if stage.key in seen:
            return
        seen.add(stage.key)
        for child in stage.inputs.values():
            yield from visit(child)
        yield stage

    for root in roots:
        yield from visit(root)


def materialise(stage: Stage, store: Path, context: Context) -> Path:
    """The folder of ``stage``'s result, building it (and what it reads) when it is missing.

    What a finished result was built from is not asked for. A result is on disk, whole, before its place shows it. Checkpoints lie
    in ``store/checkpoints/`` while a stage is built; they outlast whatever ends a build, except divergence.

    Raises whatever the build raises, of which nothing else is kept; ClaimedError where ``context`` does not want to wait.
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
    with kept(claim):
        if not stage.done(store):
            _build(stage, store, inputs, claim, context)
    return final


def _build(stage: Stage, store: Path, inputs: Mapping[str, Path], claim: Claim, context: Context) -> None:
    """Build beside the final place and rename into it."""
    final = place(store, stage.folder)
    finished = [path for path in (store / "checkpoints").glob("*") if stored(store, path.name)]
    for left in [*final.parent.glob(f".{final.name}.*"), *finished]:  # of builders that were killed
        shutil.rmtree(left, ignore_errors=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    partial.mkdir()
    checkpoints = store / "checkpoints" / final.name
    note = progress_file(store, final.name)
    report = noted(context.report, note)
    executor = context.executor.of(stage.name)
    clock = Clock(executor.share)
    own = dataclasses.replace(context, clock=clock, checkpoints=checkpoints, report=report, executor=executor)
    try:
        forget_peak(context.device)
        module, function = stage.build.split(":")
        with own.executor.applied():
            getattr(importlib.import_module(module), function)(stage.config, inputs, partial, own)
        _write_marker(partial / MARKER, stage, own)
        with ThreadPoolExecutor(16) as pool:  # file systems flush many at once as fast as one
            list(pool.map(flush, [*partial.rglob("*"), partial]))
        if not claim.held():
            raise ClaimedError(f"{stage} was taken over by another process while this one did not answer")
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
    """Waits until a file, or the list of a folder's names, is on disk."""
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
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_device_mib": peak if peak is None else round(peak * context.executor.share),
    } | built_with(device)
    if executor := str(context.executor):
        record[MARK] = executor
    path.write_text(json.dumps(record, indent=1))
