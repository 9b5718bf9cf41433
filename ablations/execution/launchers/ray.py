"""Run tasks on a Ray cluster: each task is a Ray task that runs it in a worker process.

All nodes must share the runs folder. When the driver dies, Ray ends its tasks, and their workers die with them.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any

from ablations.execution.launchers import Launching
from ablations.execution.launchers.remote import REASON, JobPool, run_job
from rrpo.errors import InputError

OBJECT_STORE = 128 * 2**20
"""Size of a local cluster's object store in bytes; results are small."""


class RayPool(JobPool):
    """A `Pool` of Ray tasks. Connects when created."""

    def __init__(self, workers: int, folder: Path, options: Launching) -> None:
        super().__init__(workers, folder)
        cpus, gpus = options.cpus_per_task or 1, options.gpus_per_task or 0
        self._ray, self._owns_cluster = _connect(options.address, workers * cpus)
        # as a decorator: with `.options`, a process would keep its GPU for later tasks that Ray gives another one
        self._run = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_job)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            self.stop(0)
            most_cpus, most_gpus = (max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU"))
            raise InputError(
                "no node of the Ray cluster can run a task",
                got=f"{cpus} CPU(s) and {gpus:g} GPU(s) a task; a node has at most {most_cpus:g} and {most_gpus:g}",
                fix="lower --cpus-per-task or --gpus-per-task, or add a larger node",
            )

    def start(self, *arguments: Any) -> Any:
        """Start a Ray task."""
        return self._run.remote(*arguments).future()

    def stop(self, grace: float) -> None:
        """End all tasks, and shut down the cluster if this pool started it."""
        super().stop(grace)
        if self._owns_cluster:
            self._ray.shutdown()


def _connect(address: str | None, cpus: int) -> tuple[Any, bool]:
    """Return the module ``ray``, connected, and whether this call started the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and "RAY_AUTH_MODE" not in os.environ:  # Ray listens on all network interfaces: require a token
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
        return ray, True
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            "no Ray cluster answers at --address",
            got=f"{address} ({' '.join(str(error).split())[:REASON]})",
            fix="start one with `ray start --head`, or omit --address",
        ) from error
    return ray, True
