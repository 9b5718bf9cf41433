"""Launchers: `pool` defines the interface, `local`, `ray` and `slurm` implement it, `start` creates the one requested."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.errors import InputError, choose
from ablations.execution import environment
from ablations.execution.launchers.pool import Pool

PACKAGES = {"local": "", "ray": "ray", "slurm": "submitit"}
"""Launcher -> the package it needs, which comes with the extra of the launcher's name."""


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Where tasks run, and what each of them gets."""

    name: str = "local"
    """A key of `PACKAGES`."""
    address: str | None = None
    """Of a running Ray cluster; None: Ray starts one on this machine."""
    cpus: int = 1
    """CPUs a task, on Ray and Slurm."""
    gpus: float = 0.0
    """GPUs a task, on Ray and Slurm; a fraction shares one, on Ray."""
    slurm: tuple[tuple[str, str], ...] = ()
    """Options of sbatch by name."""


def checked(
    name: str, address: str | None, cpus: int, gpus: float | None, slurm: Sequence[str], device: str, packed: int
) -> Launcher:
    """The launcher that options ask for; ``packed`` is how many tasks share a GPU where ``gpus`` is not given.

    Raises InputError for the first option that makes no sense, or whose package is not installed.
    """
    choose("launcher", name, PACKAGES)
    package = PACKAGES[name]
    if package and importlib.util.find_spec(package) is None:
        raise InputError(
            f"--launcher {name} needs the package {package}",
            got="it is not installed",
            fix=f"pip install 'rrpo-ablations[{name}]', in a checkout: pip install -e '.[{name}]'",
        )
    if address is not None and name != "ray":
        raise InputError("--address is a Ray cluster's", got=f"--launcher {name}", fix="add --launcher ray")
    if slurm and name != "slurm":
        raise InputError("--slurm is for sbatch", got=f"--launcher {name}", fix="add --launcher slurm")
    if cpus < 1 or (gpus is not None and gpus < 0):
        raise InputError(
            "--cpus-per-task must be positive, --gpus-per-task must not be negative",
            got=f"{cpus} and {gpus}",
            fix="leave them out: one CPU, and on a GPU the share that the measured memory allows",
        )
    share = 1 / packed if device == "cuda" else 0.0
    share = share if gpus is None else gpus
    if name == "slurm":
        share = float(-(-share // 1))  # Slurm gives whole ones
    return Launcher(name=name, address=address, cpus=cpus, gpus=share, slurm=tuple(_option(text) for text in slurm))


def start(launcher: Launcher, workers: int, folder: Path) -> Pool:
    """A pool of ``workers`` slots; ``folder`` is for the launcher's own files.

    Raises InputError where there is no such cluster, or none of its nodes can run a task.
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
