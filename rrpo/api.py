"""Train one cell (one arm with one seed) in this process with `train`, which ``import rrpo`` exports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rrpo import plugins
from rrpo.arms import arm as named_arm
from rrpo.config import ArmConfig
from rrpo.errors import InputError, choose
from rrpo.experiment.cell import Cell, collect, require_buildable
from rrpo.experiment.effective import effective
from rrpo.pipeline.stages import Context, Stage, materialise, missing_below
from rrpo.plugins import Scalar
from rrpo.profiles import PROFILES, Profile
from rrpo.settings import changed, check_used

Report = Callable[[Stage, int, int], None]
"""Progress callback: the stage that is being built, units done, total units."""
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Result:
    """A trained cell."""

    cell: Cell
    """Arm, seed and profile."""
    numbers: Mapping[str, float]
    """Scalars by name: ``end_*`` at the last checkpoint, ``peak_*`` over all checkpoints, ``rm_*`` for the reward model alone."""
    files: Mapping[str, Path]
    """Tables and audio by name: ``curves.parquet`` (one row per training step), ``points.parquet`` and ``test_points.parquet``
    (one row per checkpoint), ``samples.parquet`` (one row per sample), ``audio/*.wav``."""

    @cached_property
    def parameters(self) -> dict[str, Scalar]:
        """Effective parameters of the cell by name: ``optimize.lr``, ``finetune.regularizers.epsilon``, ..."""
        return effective(self.cell)

    @property
    def tables(self) -> dict[str, Path]:
        """The Parquet tables among `files`."""
        return {name: path for name, path in self.files.items() if path.suffix == ".parquet"}


def make_cell(
    arm: str | ArmConfig = "rrpo",
    *,
    seed: int = 1,
    profile: str | Profile = "embedded",
    settings: Mapping[str, Any] | None = None,
) -> Cell:
    """Return the cell of an arm and a seed without building it. The arguments are those of `train`.

    Raises:
        InputError: The arm, profile or setting is unknown, a setting has no effect, or the profile's data or encoder do not fit
            the arm.
    """
    plugins.load_all()
    label = arm if isinstance(arm, str) else "custom"
    config = named_arm(arm) if isinstance(arm, str) else arm
    size = PROFILES[choose("profile", profile, PROFILES)] if isinstance(profile, str) else profile
    if seed < 0:
        raise InputError("the seed is negative", got=seed, fix="give a seed of 0 or more")
    cell = Cell(label=label, arm=config, seed=seed, profile=size)
    check_used(size, settings or {}, lambda candidate: dataclasses.replace(cell, profile=candidate).all_stages)
    cell = dataclasses.replace(cell, profile=changed(size, settings or {}))
    require_buildable([cell])
    return cell


def train(
    arm: str | ArmConfig = "rrpo",
    *,
    seed: int = 1,
    profile: str | Profile = "embedded",
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    report: Report = lambda stage, done, total: None,
) -> Result:
    """Train and evaluate one cell. Results that exist in ``out`` are reused, and an interrupted call is resumed.

    On a CPU it uses one thread, like the workers of `ablations.run`, so that results are bit-identical.

    Args:
        arm: Name of an arm (`rrpo.ARMS`, or regularizers joined by ``_``), or an `ArmConfig`.
        seed: Redraws annotated data, raters, reward model, SFT, prompts and roll-outs.
        profile: Size of world and models: ``embedded`` for results, ``quick`` for a first look, ``smoke`` for tests.
        settings: Changes to the profile by dotted path: ``{"optimize.beta": 0.01}``.
        out: Folder of the results; it may be a runs folder of `ablations.run`.
        device: ``auto``, ``cpu`` or ``cuda``.
        report: Progress callback.

    Raises:
        InputError: As for `make_cell`, or the device is unknown.
        DivergedError: A loss, reward or gradient is not finite.
    """
    cell = make_cell(arm, seed=seed, profile=profile, settings=settings)
    build(cell, Path(out), device, report)
    return result(cell, Path(out))


def build(cell: Cell, store: Path, device: str, report: Report) -> None:
    """Build the stages of a cell that ``store`` lacks. Raises the same errors as `train`."""
    choose("device", device, DEVICES)
    store = store.expanduser().resolve()
    missing = missing_below(list(cell.stages.values()), store)
    if not missing:
        return
    resolved = resolve_device(device)
    with _limit_threads(resolved):
        for stage in missing:
            materialise(stage, store, Context(device=resolved, report=partial(report, stage)))


def result(cell: Cell, store: Path) -> Result:
    """Return the result of a cell whose stages are all stored."""
    numbers, files = collect(cell.stages, store.expanduser().resolve())
    return Result(cell, numbers, files)


def resolve_device(name: str) -> str:
    """Return ``cpu`` or ``cuda``. Raises InputError for another name than `DEVICES`, and if there is no GPU."""
    import torch

    choose("device", name, DEVICES)

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("no GPU is available", got="device cuda", fix="use cpu or auto")
    return name


@contextmanager
def _limit_threads(device: str) -> Iterator[None]:
    """Limit torch and numpy's BLAS to one thread on a CPU: another summation order changes the last bits."""
    if device != "cpu":
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
