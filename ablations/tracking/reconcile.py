"""Put the store in order at every start: runs that are called running, and whose process is gone, are called killed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablations.tracking import records
from rrpo.pipeline.claims import Owner, host_identity, is_alive, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

AGE_LIMIT = 48 * 3600.0
"""Seconds without any new run of an invocation after which one of another host, which cannot be asked, counts as dead."""
LIMIT = 10_000
"""Most runs that are looked at; what is beyond is for the next start."""
TAG_ENDED = "ended_by"
"""Why a run was called killed."""


def owner_tags() -> dict[str, str]:
    """Tags that name this process as a run's owner."""
    return {f"owner_{name}": str(value) for name, value in vars(this_process()).items()}


def _owner(tags: Mapping[str, str]) -> Owner | None:
    try:
        named = {name: tags[f"owner_{name}"] for name in ("host", "started", "name")}
        return Owner(pid=int(tags["owner_pid"]), **named)
    except (KeyError, ValueError):
        return None


def reconcile(client: MlflowClient) -> list[str]:
    """Call dead runs killed, with a tag that says why; their ids. Runs that `ablations` did not write are left alone.

    On this host a run is dead when the process that owns it is gone; on another, or with no owner named, when nothing of
    its invocation is younger than `AGE_LIMIT`. The completion tag alone says whether a cell counts.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=LIMIT) if experiments else []
    dead = {run.info.run_id: why for run in running if (why := _dead(client, experiments, run))}
    for run_id, why in dead.items():
        client.set_tag(run_id, TAG_ENDED, why)
        client.set_terminated(run_id, "KILLED")
    return list(dead)


def _dead(client: MlflowClient, experiments: list[str], run: Any) -> str:
    """Why a run counts as dead; empty when it does not."""
    if records.TAG_KIND not in run.data.tags:
        return ""
    owner = _owner(run.data.tags)
    lives = is_alive(owner) if owner else None
    if lives is not None:
        return "" if lives else f"its {owner} has ended"
    if owner and _rebooted(owner):
        return f"its {owner} ended when the machine was started anew"
    silent = time.time() - _last_sign(client, experiments, run) / 1000
    if silent <= AGE_LIMIT:
        return ""
    return f"its owner ({owner or 'unknown'}) gave no sign for {silent / 3600:.0f} hours"


def _rebooted(owner: Owner) -> bool:
    """Whether the owner ran on this machine before its last start."""
    (name, boot, _), (ours, now, _) = owner.host.split("/", 2), host_identity().split("/", 2)
    return name == ours and boot != now


def _last_sign(client: MlflowClient, experiments: list[str], run: Any) -> int:
    """When the newest run of the same invocation was started, milliseconds since 1970."""
    key = run.data.tags.get(records.TAG_INVOCATION)
    if not key:
        return int(run.info.start_time)
    newest = client.search_runs(
        experiments,
        f"tags.{records.TAG_INVOCATION} = '{key}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return int(newest[0].info.start_time)
