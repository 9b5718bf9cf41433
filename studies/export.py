"""Export the best trial as an arm that ``ablations.run --arms`` accepts, with its provenance."""

from __future__ import annotations

import time
from pathlib import Path

from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial

from ablations.exported import read_arms, write_arm
from ablations.rendering.sheet import Sheet
from ablations.tracking.source_version import git_state
from rrpo.errors import InputError
from studies.search import OUTCOMES, Search, counted
from studies.storage import IDENTITY


def export(search: Search, study: OptunaStudy, best: FrozenTrial, name: str, check: Sheet | None) -> Path:
    """Write the best trial's arm; return its file.

    Raises InputError if another arm is stored under that name, because existing cells with that name would become ambiguous.
    """
    arm = search.definition.arm(best.params)
    if read_arms(search.spec.store).get(name, arm) != arm:
        raise InputError(
            "another arm is stored under that name",
            got=name,
            fix=f"use another name, or remove arms/{name}.json in the runs folder if nothing was run with it",
        )
    provenance = {
        "study": search.name,
        "trial": best.number,
        "params": best.params,
        "values": dict(zip(search.spec.objectives, best.values, strict=True)),
        "outcomes": best.user_attrs.get(OUTCOMES, {}),
        "budget": {"trials": len(counted(study)), "seeds": len(search.spec.seeds)},
        "sampler": search.sampler,
        "fresh_seeds": check.notes[-1] if check else "not checked on fresh seeds",
        "identity": study.user_attrs[IDENTITY],
        "exported": time.strftime("%Y-%m-%d %H:%M:%S"),
        **git_state(),
    }
    return write_arm(search.spec.store, name, arm, provenance)
