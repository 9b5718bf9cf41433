"""Arms and sweeps of guided decoding, and their summaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import record

from ablations.grids import GRIDS
from ablations.guided_arms import ALPHAS, CLASSIFIER_GAMMAS, GAMMAS, ZERO_SHOT_GAMMAS, guided_arms, sweeps
from ablations.judges import gold
from ablations.tracking.records import Record
from reports.guidance import by_setting, intensity, mixtures, profile, rank_correlations, sheets
from reports.loading import Selection
from reports.report import make
from rrpo.experiment.dataflow import SFT
from rrpo.profiles import PROFILES


def test_every_arm_is_the_sft_policy_with_a_guidance() -> None:
    for label, arm in (guided_arms() | sweeps()).items():
        assert arm.guidance is not None, label
        assert (arm.steps, arm.finetune, arm.regularizers) == (0, False, SFT.regularizers), label
        assert (arm.tag_dropout > 0) == (arm.guidance.name != "mixture"), label


def test_a_report_on_guided_decoding_begins_with_its_table(tmp_path: Path) -> None:
    """All settings and SFT are in the figure of seeds, one below the other."""
    labels = ("sft", *(f"classifier_free@gamma{gamma}" for gamma in range(20)))
    records = tuple(record(label, seed, 0.6 + 0.01 * seed) for label in labels for seed in (1, 2, 3))
    report = make(Selection("guidance", records, dict.fromkeys(labels, 3), (), (3,)))
    assert report.sheets[0].name == "guidance"
    (figure,) = (figure for figure in report.figures if figure.name == "seeds")
    _, picture = figure.draw(tmp_path)
    width, height = Image.open(picture).size
    assert height > 0.6 * width


def test_sweeps_share_their_stages() -> None:
    """There are two SFT policies, two policies with references and one classifier; a setting in two sweeps is one stage."""
    cells = {cell.label: cell for cell in GRIDS["guidance"].cells(PROFILES["quick"], [1000])}
    optimized = {label: cell.stages["optimized"] for label, cell in cells.items()}
    assert len(cells) == 1 + len(GAMMAS) + len(CLASSIFIER_GAMMAS) + len(ALPHAS) + 3 + len(ZERO_SHOT_GAMMAS) + 2
    assert len({stage.inputs["guided"].key for label, stage in optimized.items() if label != "sft"}) == 4
    classifiers = {s.inputs["classifier"].key for s in optimized.values() if "classifier" in s.inputs}
    assert len(classifiers) == 1
    assert optimized["emodiff@gamma4"].key == optimized["emodiff@alpha1"].key
    assert len({cell.hash for cell in cells.values()}) == len(cells)
    assert all("intensity" in cell.optional for cell in cells.values()), (
        "SFT's too, because the others are compared with it"
    )
    assert {label for label, cell in cells.items() if "reference_probe" in cell.stages} == {
        label for label in cells if label.startswith("zet")
    }


def table(probabilities: list[float], intensity: list[float], errors: list[int]) -> pd.DataFrame:
    columns = {"step": 0, "prompt": range(len(errors)), "phone_errors": errors, "phones": 10, "intensity": intensity}
    return pd.DataFrame(
        columns | {gold().logprob: np.log(probabilities), "target": ["happy", "sad"], "heard_sad": [0.2, 0.7]}
    )


def test_rank_correlations_of_intensity() -> None:
    """Ranks: alpha 1.5, 1.5, 3.5, 3.5; phone errors 1, 2, 3, 4; acoustics 1, 2, 4, 3, which correlate with errors (r = .8)."""
    tables = {0.0: table([0.2, 0.1], [0.1, 0.2], [0, 1]), 1.0: table([0.3, 0.4], [0.4, 0.3], [2, 3])}
    correlations = rank_correlations(tables)
    alpha = 0.8**0.5  # for errors, acoustics and gold alike: sums of products 4, of squares 4 and 5
    partial = (alpha - alpha * 0.8) / (0.2 * 0.36) ** 0.5
    assert correlations["gold's probability"] == pytest.approx((alpha, partial))
    assert correlations["acoustic intensity"] == pytest.approx((alpha, partial))


def test_a_sample_without_a_value_is_left_out() -> None:
    complete = {0.0: table([0.2, 0.1], [0.1, 0.2], [0, 1]), 1.0: table([0.3, 0.4], [0.4, 0.3], [2, 3])}
    with_missing = complete | {0.5: table([0.5, 0.6], [np.nan, np.nan], [5, 6])}
    assert rank_correlations(with_missing)["acoustic intensity"] == rank_correlations(complete)["acoustic intensity"]


def test_the_profile_of_a_mixture_is_of_prompts_that_ask_for_another_emotion() -> None:
    assert profile(table([0.5, 0.9], [0, 0], [0, 0]), "sad") == pytest.approx((0.5, 0.2))


class Stored(Record):
    samples = table([0.5, 0.9], [0, 0], [0, 0])  # type: ignore[assignment]
    points = pd.DataFrame({"step": [0], gold().accuracy: [0.5], "intensity": [0.4]})  # type: ignore[assignment]


def stored(*labels: str, **scalars: float) -> list[Record]:
    records: list[Record] = [Stored(label=label, seed=1, world_hash="", profile="quick") for label in labels]
    for each in records:
        each.__dict__["scalars"] = scalars
    return records


def test_a_sweeps_settings_are_found_by_their_labels() -> None:
    records = stored("sft", "emodiff@alpha0.25", "emodiff@gamma2", "emodiff@alpha1")
    assert list(by_setting(records, "alpha")[1]) == [0.25, 1.0]
    assert list(by_setting(records, "gamma")[1]) == [2.0]


def test_the_table_has_a_row_an_arm_and_sfts_own_profile_beside_mixtures() -> None:
    cells = [
        *stored("sft", "diffro", "diffro@alpha1"),
        *stored("emomix@sad"),
        *stored("zet@gamma0", reference_emotion=0.25),
    ]
    results, mixed = sheets(cells)
    assert [row[0] for row in results.rows] == ["sft", "emomix@sad", "zet@gamma0"]
    names = [column.name for column in results.columns]
    assert names == ["arm", "n", "gold", "intensity", "reference_emotion"]
    assert results.row("sft")["intensity"].mean == 0.4  # type: ignore[union-attr]
    assert results.row("zet@gamma0")["reference_emotion"].mean == 0.25  # type: ignore[union-attr]
    (row,) = mixed.texts()[1]
    assert row == ["emomix@sad", "1", "sad", "50.0", "50.0", "20.0", "20.0"]
    assert sheets(stored("sft", "diffro")) == []


def test_intensity_is_the_mean_over_seeds() -> None:
    """Seed 2's measures fall where seed 1's rise: .8 ** .5 and its negative, whose standard error is .8 ** .5."""
    rising = {0.0: table([0.2, 0.1], [0.1, 0.2], [0, 1]), 1.0: table([0.3, 0.4], [0.4, 0.3], [2, 3])}
    cells = []
    for seed, samples in ((1, rising), (2, {1 - alpha: rows for alpha, rows in rising.items()})):
        for alpha, rows in samples.items():
            cells.append(Stored(label=f"emodiff@alpha{alpha:g}", seed=seed, world_hash="", profile="quick"))
            cells[-1].__dict__["samples"] = rows
    sheet = intensity(cells)
    assert sheet is not None
    assert [row[:2] for row in sheet.rows] == [("gold's probability", 2.0), ("acoustic intensity", 2.0)]
    for row in sheet.rows:
        assert row[2].mean == pytest.approx(0)  # type: ignore[union-attr]
        assert row[2].high == pytest.approx(12.706 * 0.8**0.5, rel=1e-4)  # type: ignore[union-attr]


def test_cells_without_the_optional_stage_have_no_tables_and_break_nothing() -> None:
    class Bare(Stored):
        samples = Stored.samples[["target", gold().logprob, "phone_errors", "phones", "step"]]  # type: ignore[assignment]

    bare = [Bare(label=each.label, seed=2, world_hash="", profile="quick") for each in stored("emomix@sad")]
    bare += [Bare(label=f"emodiff@alpha{alpha}", seed=2, world_hash="", profile="quick") for alpha in (0.25, 1)]
    assert (intensity(bare), mixtures(bare)) == (None, None)
    assert mixtures([*bare, *stored("emomix@sad")]) == mixtures(stored("emomix@sad")) is not None
