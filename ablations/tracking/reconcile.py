"""Mark runs as killed that have the status RUNNING although their process is dead. Called whenever the store is opened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rrpo.pipeline.claims import Owner, host_identity, is_alive, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

AGE_LIMIT = 7 * 24 * 3600.0
"""Seconds since its start after which a run on another host counts as dead; its process cannot be checked."""
LIMIT = 10_000
"""Maximum number of runs that are checked; the next call checks the rest."""
TAG_ENDED = "ended_by"
"""Tag: why a run was marked as killed."""


def owner_tags() -> dict[str, str]:
    """Return the tags that identify this process as the owner of a run."""
    return {f"owner_{name}": str(value) for name, value in vars(this_process()).items()}


def _owner(tags: Mapping[str, str]) -> Owner | None:
    try:
        fields = {name: tags[f"owner_{name}"] for name in ("host", "started", "name")}
        return Owner(pid=int(tags["owner_pid"]), **fields)
    except (KeyError, ValueError):
        return None


def reconcile(client: MlflowClient) -> None:
    """Mark dead runs as killed, with a tag that says why. Runs not written by `ablations` are ignored.

    A run without a recorded owner is another program's. On this host, a run is dead if its owner process is gone; on another
    host, if it is older than `AGE_LIMIT`. This status is informative only: the completion tag decides whether a cell counts.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=LIMIT) if experiments else []
    dead = {run.info.run_id: reason for run in running if (reason := _dead(run))}
    for run_id, reason in dead.items():
        client.set_tag(run_id, TAG_ENDED, reason)
        client.set_terminated(run_id, "KILLED")


def _dead(run: Any) -> str:
    """Return why a run counts as dead; empty if it does not."""
    owner = _owner(run.data.tags)
    if owner is None:
        return ""
    alive = is_alive(owner)
    if alive is not None:
        return "" if alive else f"its {owner} has ended"
    if _rebooted(owner):
        return f"its {owner} ended when the machine was rebooted"
    age = time.time() - run.info.start_time / 1000
    return f"its {owner} started it {age / 3600:.0f} hours ago" if age > AGE_LIMIT else ""


def _rebooted(owner: Owner) -> bool:
    """Return whether the owner ran on this machine before its last reboot."""
    (host, boot_id, _), (this_host, this_boot_id, _) = owner.host.split("/", 2), host_identity().split("/", 2)
    return host == this_host and boot_id != this_boot_id
