"""Train one cell, one arm with one seed, in this process: `train`, which ``import rrpo`` exports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rrpo.arms import arm as named_arm
from rrpo.config import ArmConfig
from rrpo.errors import InputError, choose
from rrpo.pipeline.cell import Cell, collect
from rrpo.pipeline.effective import effective
from rrpo.pipeline.missing import missing_below
from rrpo.pipeline.stages import Context, Stage, materialise
from rrpo.plugins import Scalar
from rrpo.profiles import PROFILES, Profile
from rrpo.settings import changed, check_used

Report = Callable[[Stage, int, int], None]
"""Told of progress: the stage that is built, units done, units in all."""
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Result:
    """A trained cell."""

    cell: Cell
    """What was trained."""
    numbers: Mapping[str, float]
    """Scalars by name: ``end_*`` at the last checkpoint, ``peak_*`` over all of them, ``rm_*`` of the reward model alone."""
    files: Mapping[str, Path]
    """Tables and audio by name: ``curves.parquet`` (a row a training step), ``points.parquet`` and ``test_points.parquet`` (a row
    a checkpoint), ``samples.parquet`` (a row a sample), ``audio/*.wav``."""

    @cached_property
    def parameters(self) -> dict[str, Scalar]:
        """What the cell ran with, by name: ``optimize.lr``, ``finetune.regularizers.epsilon``, ..."""
        return effective(self.cell)

    @property
    def tables(self) -> dict[str, Path]:
        """The tables among the files."""
        return {name: path for name, path in self.files.items() if path.suffix == ".parquet"}


def make_cell(
    arm: str | ArmConfig = "rrpo",
    *,
    seed: int = 1,
    profile: str | Profile = "embedded",
    settings: Mapping[str, Any] | None = None,
) -> Cell:
    """The cell of an arm and a seed, as `train` takes them; nothing is built.

    Raises:
        InputError: An unknown arm, profile or setting, or a setting that changes nothing.
    """
    label = arm if isinstance(arm, str) else "custom"
    config = named_arm(arm) if isinstance(arm, str) else arm
    size = PROFILES[choose("profile", profile, PROFILES)] if isinstance(profile, str) else profile
    if seed < 0:
        raise InputError("a seed must not be negative", got=seed, fix="give 0 or more")
    cell = Cell(label=label, arm=config, seed=seed, profile=size)
    check_used(size, settings or {}, lambda other: dataclasses.replace(cell, profile=other).all_stages)
    return dataclasses.replace(cell, profile=changed(size, settings or {}))


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
    """Train one cell and judge it; what ``out`` holds already is not built again, and a call that was cut off goes on.

    On a CPU it computes with one thread, as the workers of `ablations.run` do, so that the numbers are the same bits.

    Args:
        arm: Name of an arm (`rrpo.ARMS`, or regularisers joined by ``_``), or a config of your own.
        seed: Redraws annotated data, raters, reward model, SFT, prompts and roll-outs.
        profile: Size of world and models: ``embedded`` for results, ``quick`` for a look, ``smoke`` for a try.
        settings: Changes of the profile by dotted path: ``{"optimize.beta": 0.01}``.
        out: Folder of the results, which a runs folder of `ablations.run` may share.
        device: ``auto``, ``cpu`` or ``cuda``.
        report: Told of progress.

    Raises:
        InputError: As `make_cell`, or an unknown device.
        DivergedError: A loss, a reward or a gradient left the finite numbers.
    """
    cell = make_cell(arm, seed=seed, profile=profile, settings=settings)
    build(cell, Path(out), device, report)
    return result(cell, Path(out))


def build(cell: Cell, store: Path, device: str, report: Report) -> None:
    """Build what ``store`` lacks of a cell. Raises as `train`."""
    choose("device", device, DEVICES)
    store = store.expanduser().resolve()
    missing = missing_below(list(cell.stages.values()), store)
    if not missing:
        return
    where = _device(device)
    with _one_thread(where):
        for stage in missing:

            def tell(done: int, total: int, stage: Stage = stage) -> None:
                report(stage, done, total)

            materialise(stage, store, Context(device=where, report=tell))


def result(cell: Cell, store: Path) -> Result:
    """The result of a cell, all of whose stages are stored."""
    numbers, files = collect(cell.stages, store.expanduser().resolve())
    return Result(cell, numbers, files)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU to run on", got="device cuda", fix="use cpu or auto")
    return name


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """On a CPU one thread for torch and for the BLAS of numpy: sums in another order are other bits."""
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
