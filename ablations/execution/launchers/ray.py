"""Run tasks on a Ray cluster: each slot is an actor that keeps one worker process.

All nodes must share the runs folder. When the driver dies, Ray ends its actors, and their workers die with them.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.errors import InputError
from ablations.execution.failures import kind_of
from ablations.execution.launchers.pool import Died, Event, Failed, Progress, Task
from ablations.execution.launchers.remote import Host
from rrpo import plugins

POLL = 0.5
"""Seconds that an actor waits for its worker before it handles other calls, such as a stop."""
OBJECT_STORE = 128 * 2**20
"""Size of a local cluster's object store in bytes; results are small."""
REASON = 300
"""Maximum length of Ray's error message, in characters."""


class RayPool:
    """A `Pool` of Ray actors. Connects when created; actors start with their first task."""

    def __init__(self, workers: int, *, address: str | None = None, cpus: float = 1, gpus: float = 0) -> None:
        self.capacity = workers
        self._ray, self._owns_cluster = _connect(address, workers * cpus)
        self._options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        try:
            self._check_resources(cpus, gpus)
        except InputError:
            self.stop(0)
            raise

    def submit(self, task: Task, log: Path) -> int:
        """Send a task to an idle actor, or to a new one."""
        slot = min(set(range(self.capacity)) - set(self._pending.values()))
        if slot not in self._actors:
            self._actors[slot] = self._ray.remote(Host).options(**self._options).remote(sys.path, plugins.files())
        self._pending[self._actors[slot].submit.remote(task, log)] = slot
        return slot

    def events(self, timeout: float | None) -> list[Event]:
        """Return the actors' events; an actor that raises a `RayError` has died."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._pending:
                time.sleep(remaining or 0)
                return []
            ready, _ = self._ray.wait(list(self._pending), timeout=remaining)
            events = [event for call in ready for event in self._receive(call)]
            if events or (deadline is not None and time.monotonic() >= deadline):
                return events

    def halt(self) -> None:
        """Ask the busy actors to signal their workers."""
        for slot in set(self._pending.values()):
            self._actors[slot].halt.remote()

    def stop(self, grace: float) -> None:
        """End the workers, then the actors, and shut down the cluster if this pool started it."""
        if grace > 0:
            stopping = [actor.stop.remote(grace) for actor in self._actors.values()]
            if stopping:
                self._ray.wait(stopping, num_returns=len(stopping), timeout=grace + 2 * POLL)
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._pending.clear()
        if self._owns_cluster:
            self._ray.shutdown()

    def _receive(self, call: Any) -> list[Event]:
        slot = self._pending.pop(call)
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            return [Failed(slot, f"{type(error.cause).__name__}: {error.cause}", kind_of(error.cause))]
        except self._ray.exceptions.RayError as error:
            del self._actors[slot]
            return [Died(slot, _reason(error))]
        # The answer is a list of events, or the slot that `Host.submit` returned. The host's slot is always 0.
        events = [replace(event, slot=slot) for event in answer] if isinstance(answer, list) else []
        if all(isinstance(event, Progress) for event in events):  # the task still runs: wait for its next events
            self._pending[self._actors[slot].events.remote(POLL)] = slot
        return events

    def _check_resources(self, cpus: float, gpus: float) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            raise InputError(
                "no node of the Ray cluster can run a task",
                got=f"{cpus:g} CPU(s) and {gpus:g} GPU(s) a task; a node has at most "
                f"{_most(nodes, 'CPU')} and {_most(nodes, 'GPU')}",
                fix="lower --cpus-per-task or --gpus-per-task, or add a larger node",
            )


def _connect(address: str | None, cpus: float) -> tuple[Any, bool]:
    """Return the module ``ray``, connected, and whether this call started the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and "RAY_AUTH_MODE" not in os.environ:  # Ray listens on all network interfaces: require a token
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _keep_sigterm_handler():
        if address is None:
            local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
            ray.init(address="local", num_cpus=int(cpus), **local, **quiet)
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


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore this program's SIGTERM handler, which ``ray.init`` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _reason(error: Exception) -> str:
    """Return the informative part of Ray's error message."""
    text = " ".join(str(error).split()).split("The actor is dead because ")[-1]
    return f"lost by Ray: {text.split(' Some common causes')[0]}"[:REASON]


def _most(nodes: list[dict[str, float]], resource: str) -> str:
    return f"{max((node.get(resource, 0) for node in nodes), default=0):g}"
