"""Map a function over a long iterable with several processes, in order and in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from rrpo.pipeline.parent import die_with

T = TypeVar("T")
R = TypeVar("R")
MANY = 2000
"""Minimum number of recordings for which several processes are used; starting one takes seconds."""
AHEAD = 4
"""Items per process that are being processed or waiting to be fetched."""


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """Yield ``work`` of each item, in order. With one process, the current one does the work. ``work`` and items must be
    picklable.

    The processes are torch's data-loading workers: each uses one torch thread, so results equal those of one process with one
    thread, bit for bit. They end when their parent dies.
    """
    if processes == 1:
        yield from map(work, items)
        return
    loader: Iterable[Any] = DataLoader(
        _Results(work),
        batch_size=None,  # each item is an index of its own
        sampler=items,
        num_workers=processes,
        prefetch_factor=AHEAD,
        collate_fn=_unchanged,
        multiprocessing_context="spawn",
        worker_init_fn=partial(_end_with, os.getpid()),
        generator=torch.Generator(),  # leaves the global generator alone
    )
    for result in loader:
        if isinstance(result, Exception):
            raise result
        yield result


class _Results(Dataset[Any]):
    """The result of ``work`` for an item, or its error, which the loader itself would replace with one of another message."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.work(item)
        except Exception as error:
            return error


def _end_with(parent: int, worker: int) -> None:
    """End this worker with its parent. torch's own watch misses a death that comes before the watch begins."""
    die_with(parent)


def _unchanged(result: Any) -> Any:
    return result
