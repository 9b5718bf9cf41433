"""Launchers: `pool` defines the interface, `local`, `ray` and `slurm` implement it, and `start` creates the requested one."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ablations.errors import InputError, choose
from ablations.execution import environment
from ablations.execution.launchers.pool import Pool
from rrpo.commands import EXECUTION, option

PACKAGES = {"local": "", "ray": "ray", "slurm": "submitit"}
"""Launcher -> required package, installed by the extra of the launcher's name."""


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Where tasks run, and the resources of each task."""

    name: str = "local"
    """A key of `PACKAGES`."""
    address: str | None = None
    """Address of a running Ray cluster; None starts one on this machine."""
    cpus: int = 1
    """CPUs per task, on Ray and Slurm."""
    gpus: float = 0.0
    """GPUs per task, on Ray and Slurm; on Ray, tasks with a fraction share a GPU."""
    slurm: tuple[tuple[str, str], ...] = ()
    """Options of sbatch, as (name, value)."""


@dataclass(frozen=True, kw_only=True)
class Launching:
    """Options of commands that run tasks, as given; see `rrpo.commands.options_of`."""

    launcher: str = option(EXECUTION, "local", PACKAGES)
    """Where tasks run; at most --workers at a time."""
    address: str | None = option(EXECUTION, None)
    """Address of a running Ray cluster. Default: start one on this machine."""
    cpus_per_task: int = option(EXECUTION, 1)
    """CPUs per task, on Ray and Slurm."""
    gpus_per_task: float | None = option(EXECUTION, None)
    """GPUs per task, on Ray and Slurm. Default: the share that the measured memory requires, or 0 on the CPU."""
    slurm: list[str] | None = option(EXECUTION, None, metavar="NAME=VALUE")
    """Option of sbatch, as in partition=gpu; repeatable."""


def checked(options: Launching, device: str, tasks_per_gpu: int) -> Launcher:
    """Check the options of a launcher; ``tasks_per_gpu`` is the number of tasks that share a GPU by default.

    Raises:
        InputError: An option is invalid, or the launcher's package is not installed.
    """
    name, cpus, gpus = options.launcher, options.cpus_per_task, options.gpus_per_task
    package = PACKAGES[choose("launcher", name, PACKAGES)]
    if package and importlib.util.find_spec(package) is None:
        raise InputError(
            f"--launcher {name} needs the package {package}",
            got="it is not installed",
            fix=f"pip install 'rrpo-ablations[{name}]', in a checkout: pip install -e '.[{name}]'",
        )
    for flag, value, owner in (("--address", options.address, "ray"), ("--slurm", options.slurm, "slurm")):
        if value and name != owner:
            raise InputError(
                f"{flag} is only for {owner.title()}", got=f"--launcher {name}", fix=f"add --launcher {owner}"
            )
    if cpus < 1 or (gpus is not None and gpus < 0):
        raise InputError(
            "--cpus-per-task must be positive, --gpus-per-task must not be negative",
            got=f"{cpus} and {gpus}",
            fix="omit them for the defaults: one CPU, and on a GPU the share that the measured memory allows",
        )
    share = 1 / tasks_per_gpu if device == "cuda" else 0.0
    share = share if gpus is None else gpus
    if name == "slurm":
        share = float(-(-share // 1))  # Slurm allocates whole GPUs only
    slurm = tuple(_option(text) for text in options.slurm or ())
    return Launcher(name=name, address=options.address, cpus=cpus, gpus=share, slurm=slurm)


def start(launcher: Launcher, workers: int, folder: Path) -> Pool:
    """Create a pool of ``workers`` slots; ``folder`` is for the launcher's own files.

    Raises:
        InputError: The cluster does not exist, or none of its nodes can run a task.
    """
    if launcher.name == "ray":
        from ablations.execution.launchers.ray import RayPool

        return RayPool(workers, address=launcher.address, cpus=launcher.cpus, gpus=launcher.gpus)
    if launcher.name == "slurm":
        from ablations.execution.launchers.slurm import SlurmPool

        options = dict(launcher.slurm)
        return SlurmPool(workers, folder, cpus=launcher.cpus, gpus=int(launcher.gpus), options=options)
    from ablations.execution.launchers.local import LocalPool

    return LocalPool(workers, list(environment.gpus()))


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError("--slurm takes NAME=VALUE", got=text, fix="for example --slurm partition=gpu --slurm time=600")
    return name, value
