"""What a trial is worth, by hand, on tables of samples that stand where its stages would have written them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from ablations.outcomes import PHONE_ERROR_BOUND
from ablations.tracking.records import SAMPLES_FILE
from rrpo.config import ArmConfig
from rrpo.judges.config import KINDS
from rrpo.pipeline.stages import MARKER, Stage
from rrpo.profiles import SMOKE
from studies.trial import OBJECTIVES, TrialSpec, hacked_so_far, measure

ARM = ArmConfig()
END = 20
PHONES = 20
ALLOWED = round(PHONE_ERROR_BOUND * PHONES)
"""Phone errors that a clean sample of `PHONES` phones may have."""


def store(stage: Stage, root: Path, scalars: Mapping[str, float], samples: pd.DataFrame | None = None) -> None:
    """A finished stage."""
    folder = stage.path(root)
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text(json.dumps(scalars))
    if samples is not None:
        samples.to_parquet(folder / SAMPLES_FILE, index=False)
    (folder / MARKER).write_text("{}")


def sample(**changed: object) -> dict[str, object]:
    """A clean success of the last update, but for what is ``changed``."""
    clean = {"step": END, "target": "sad", "proxy": "sad", "val": "sad", "phone_errors": ALLOWED, "phones": PHONES}
    return clean | dict.fromkeys((f"artefact_{kind}" for kind in KINDS), False) | changed


def trial(root: Path, rows: list[dict[str, object]], *objectives: str, seed: int = 1000) -> dict[str, float]:
    """The outcomes of a trial whose samples are ``rows``."""
    spec = TrialSpec(profile=SMOKE, store=root, seeds=(seed,), objectives=objectives)
    optimized, assessed = spec.stages(ARM, seed)
    store(optimized, root, {"end_kl_token": 0.7})
    scalars = {"end_phone_error_rate": 0.2, "end_val_accuracy": 0.9, "end_uptake": 0.05}
    store(assessed, root, scalars, pd.DataFrame(rows))
    return measure(spec, ARM, seed)


def test_clean_success_and_hacked_share_by_hand(tmp_path: Path):
    """Ten samples at the end: five clean, one of them without the proxy; of nine proxy hits five are no clean success."""
    rows = [
        *[sample()] * 4,
        sample(proxy="happy"),  # clean, and no hit
        sample(val="happy"),
        sample(artefact_click=True),
        sample(artefact_repetition=True),
        sample(phone_errors=ALLOWED + 1),
        sample(val="happy", artefact_length=True),
        *[sample(step=0, val="happy")] * 30,  # of SFT, which do not count
    ]
    measured = trial(tmp_path, rows, "clean_success")
    assert measured["clean_success"] == pytest.approx(5 / 10)
    assert measured["hacked_share"] == pytest.approx(5 / 9)
    assert (measured["phone_error_rate"], measured["gold"], measured["uptake"], measured["kl_token"]) == (
        0.2,
        0.9,
        0.05,
        0.7,
    )
    assert measured.keys() == {name for name, objective in OBJECTIVES.items() if objective.policy} | {"kl_token"}


def test_the_test_judge_has_no_say_even_where_its_column_is_there(tmp_path: Path):
    measured = trial(tmp_path, [sample(test="happy"), sample(test="happy", val="happy")], "clean_success")
    assert measured["clean_success"] == 1 / 2


def test_a_reward_models_objectives_are_read_without_a_policy(tmp_path: Path):
    spec = TrialSpec(profile=SMOKE, store=tmp_path, seeds=(1000,), objectives=("cross_language",))
    (examined,) = spec.stages(ARM, 1000)
    scalars = {"rm_accuracy_test_en": 0.6, "rm_accuracy_test_de": 0.8, "rm_accuracy_test_biased": 0.1}
    scalars |= {"rm_accuracy_test_decorrelated": 0.4, "rm_pgd_accuracy_0.1": 0.3}
    store(examined, tmp_path, scalars)
    outcomes = measure(spec, ARM, 1000)
    assert outcomes == {"cross_language": pytest.approx(0.7), "robustness": 0.3, "decorrelated": 0.4}


def test_what_a_running_optimisation_shows_of_an_objective_by_hand(documented: Callable[[str], list[str]]):
    measures = {"val_accuracy": 0.9, "artefact_click": 0.1, "artefact_hum": 0.05, "val_hack_rate": 0.2}
    measures["proxy_accuracy"] = 0.8
    clean_so_far = OBJECTIVES["clean_success"].intermediate
    assert clean_so_far is not None
    assert clean_so_far(measures | {"val_clean": 0.7}) == 0.7
    assert math.isnan(clean_so_far(measures))
    assert hacked_so_far(measures) == pytest.approx(0.2 / 0.8)
    assert math.isnan(hacked_so_far(measures | {"proxy_accuracy": 0.0}))
    between = {"loss": 1.0, "reward_loss": 0.5}
    functions = {name: objective.intermediate for name, objective in OBJECTIVES.items() if objective.intermediate}
    assert functions.keys() == {"clean_success", "hacked_share", "gold", "uptake"}
    columns = documented("Checkpoints by proxy and `val`") + [f"artefact_{kind}" for kind in KINDS]
    for intermediate in functions.values():
        assert math.isnan(intermediate(between)), "a step without the measures"
        assert math.isfinite(intermediate(dict.fromkeys(columns, 0.5))), "columns of the curves"
