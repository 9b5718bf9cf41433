"""The winner and the paper's values once more, on seeds that the search never used: the guard against selection optimism."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from rich.progress import track

from ablations.worker import ENVIRONMENT
from rrpo.config import ArmConfig
from studies.search import Search
from studies.trial import FRESH_SEED, measure


def evaluate(
    search: Search, params: Mapping[str, float | str], count: int, workers: int
) -> tuple[dict[int, float], dict[int, float]]:
    """First objective by fresh seed, of a point and of the paper's values."""
    seeds = range(FRESH_SEED, FRESH_SEED + count)
    arms = [search.definition.arm(params), search.definition.arm(search.definition.paper)]
    tasks = [(search, arm, seed) for seed in seeds for arm in arms]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_settle) as pool:
        found = list(track(pool.map(_one, tasks), description="fresh seeds", total=len(tasks), transient=True))
    return dict(zip(seeds, found[::2], strict=True)), dict(zip(seeds, found[1::2], strict=True))


def _settle() -> None:
    import os

    os.environ.update(ENVIRONMENT)
    import torch

    torch.set_num_threads(1)


def _one(task: tuple[Search, ArmConfig, int]) -> float:
    search, arm, seed = task
    question = replace(search.question, seeds=(seed,))
    return measure(question, arm, seed, lambda step, measures: None)[question.objectives[0]]
