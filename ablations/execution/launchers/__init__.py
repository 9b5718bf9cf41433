"""Launchers: `pool` defines the interface, `local`, `ray` and `slurm` implement it, and `start` creates the requested one."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.execution import environment
from ablations.execution.launchers.pool import Pool
from rrpo.commands import EXECUTION, option
from rrpo.errors import InputError, choose
from rrpo.settings import assignments

PACKAGES = {"local": "", "ray": "ray", "slurm": "submitit"}
"""Launcher -> required package, installed by the extra of the launcher's name."""


@dataclass(frozen=True, kw_only=True)
class Launching:
    """Options of commands that run tasks, as given; see `rrpo.commands.options_of`."""

    launcher: str = option(EXECUTION, "local", PACKAGES)
    """Where tasks run; at most --workers at a time."""
    address: str | None = option(EXECUTION, None)
    """Address of a running Ray cluster. Default: start one on this machine."""
    cpus_per_task: int | None = option(EXECUTION, None)
    """CPUs per task, on Ray and Slurm. Default: 1."""
    gpus_per_task: float | None = option(EXECUTION, None)
    """GPUs per task, on Ray and Slurm. Default: the share that the measured memory requires, or 0 on the CPU."""
    slurm: list[str] | None = option(EXECUTION, None, metavar="NAME=VALUE")
    """Option of sbatch, as in partition=gpu; repeatable."""


def checked(options: Launching, device: str, tasks_per_gpu: int) -> Launching:
    """Check the options of a launcher and return them with the GPUs per task; ``tasks_per_gpu`` tasks share a GPU by default.

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
    sbatch_options(options)
    if (cpus is not None and cpus < 1) or (gpus is not None and gpus < 0):
        raise InputError(
            "--cpus-per-task must be positive, --gpus-per-task must not be negative",
            got=" and ".join(str(value) for value in (cpus, gpus) if value is not None),
            fix="omit them for the defaults: one CPU, and on a GPU the share that the measured memory allows",
        )
    if gpus and device != "cuda":
        raise InputError(
            "--gpus-per-task reserves GPUs, but the tasks would run on the CPU",
            got=f"--gpus-per-task {gpus:g} with the device {device}, which `auto` chooses if this machine has no GPU",
            fix="add --device cuda, or leave out --gpus-per-task",
        )
    if name == "local" and not (cpus is None and gpus is None):
        raise InputError(
            "--cpus-per-task and --gpus-per-task are for tasks on Ray and Slurm",
            got="--launcher local",
            fix="omit them (--workers is the number of tasks at a time), or add --launcher",
        )
    if gpus is None:
        gpus = 1 / tasks_per_gpu if device == "cuda" else 0.0
    gpus = math.ceil(gpus) if name == "slurm" else gpus  # Slurm allocates whole GPUs
    return replace(options, cpus_per_task=cpus or 1, gpus_per_task=gpus)


def sbatch_options(options: Launching) -> dict[str, str]:
    """Return the options of sbatch by name. Raise InputError if one is not NAME=VALUE."""
    return assignments(options.slurm or (), "--slurm", "NAME=VALUE", "partition=gpu --slurm time=600")


def start(options: Launching, workers: int, folder: Path) -> Pool:
    """Create a pool of ``workers`` slots; ``options`` are checked, and ``folder`` is for the launcher's own files.

    Raises:
        InputError: The cluster does not exist, or none of its nodes can run a task.
    """
    if options.launcher == "local":
        from ablations.execution.launchers.local import LocalPool

        return LocalPool(workers, list(environment.gpus()))
    if options.launcher == "ray":
        from ablations.execution.launchers.ray import RayPool

        return RayPool(workers, folder, options)
    from ablations.execution.launchers.slurm import SlurmPool

    return SlurmPool(workers, folder, options)
