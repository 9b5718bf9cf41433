"""Tables of a record: judges added to its samples, and changes between checkpoints on the same prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ablations.outcomes import ends, find
from ablations.tracking.records import LISTENERS, Record
from rrpo.judges import config

FEW, MANY = range(2), range(4)
EMOTIONS = ["sad", "angry", "angry", "angry"]


@pytest.fixture
def cell(tmp_path: Path) -> Record:
    """Return a cell of two checkpoints: two prompts at the first, four at the last, where gold is right on the last two only."""
    rows = [(0, prompt, "sad", "sad", 1, 10) for prompt in FEW]
    rows += [(9, prompt, "sad", "sad" if prompt > 1 else "angry", 2 if prompt > 1 else 0, 10) for prompt in MANY]
    samples = pd.DataFrame(rows, columns=["step", "prompt", "target", "test", "phone_errors", "phones"])
    samples["proxy"] = samples["target"]
    samples.assign(artefact_click=False).to_parquet(tmp_path / "samples.parquet")
    pd.DataFrame({"step": [0, 9], "kl_token": [0.0, 1.0], "proxy_accuracy": [1.0, 1.0]}).to_parquet(
        tmp_path / "points.parquet"
    )
    test = pd.DataFrame({"step": [0, 9], "test_accuracy": [1.0, 0.5], "phone_error_rate": [0.1, 0.1]})
    test.to_parquet(tmp_path / "test_points.parquet")
    heard = samples.loc[samples["prompt"] < 1, ["step", "prompt", "target"]].assign(third="sad", tempo=1.0)
    heard.to_parquet(tmp_path / "phonetics_samples.parquet")
    pd.DataFrame({"step": [0, 9], "third_accuracy": [1.0, 1.0]}).to_parquet(tmp_path / "phonetics_points.parquet")
    return Record(label="a", seed=1, find=lambda: tmp_path)


def test_a_listeners_judge_is_joined_to_the_samples_it_heard(cell: Record):
    assert cell.samples["third"].isna().tolist() == [False, True, False, True, True, True]
    assert "tempo" not in cell.samples.columns


def test_checkpoints_are_compared_on_the_prompts_that_all_of_them_have(cell: Record):
    assert cell.tracked.groupby("step")["prompt"].apply(list).tolist() == [[0, 1], [0, 1]]
    assert cell.points["test_accuracy"].tolist() == [1.0, 0.5], "all prompts"
    assert cell.trajectory["test_accuracy"].tolist() == [1.0, 0.0]
    assert cell.trajectory["third_accuracy"].tolist() == [1.0, 1.0], "one prompt"
    assert cell.trajectory["phone_error_rate"].tolist() == [0.1, 0.0]
    assert cell.trajectory["kl_token"].tolist() == [0.0, 1.0], "what the samples do not have stays"
    for name, value, start, end in (
        ("gold", 0.5, 1.0, 0.0),
        ("clean_success", 0.5, 1.0, 0.0),
        ("hacked_share", 0.5, 0.0, 1.0),
    ):
        assert find(name).read(cell) == value
        assert ends(find(name), cell) == (start, end)


def test_uptake_is_followed_on_the_common_prompts(cell: Record):
    """Click is the shortcut of angry, hum that of sad, and hiss that of happy, which is no target here."""
    no, yes = False, True
    cell.__dict__["samples"] = cell.samples.assign(
        target=["angry", "sad", "angry", "sad", "angry", "sad"],
        artefact_click=[no, yes, yes, no, no, yes],
        artefact_hum=[yes, no, no, no, yes, no],
        artefact_hiss=yes,
    )
    cell.__dict__["points"] = cell.points.assign(uptake=[0.25, 0.75])
    assert find("uptake_click").curve(cell).tolist() == [-1.0, 1.0]
    assert find("uptake_hum").curve(cell).tolist() == [-1.0, 0.0]
    assert np.isnan(find("uptake_hiss").curve(cell)).all()
    assert find("uptake").curve(cell).tolist() == [-1.0, 0.5], "the mean over the kinds whose emotion is a target"
    assert (find("uptake").read(cell), find("uptake_hum").read(cell)) == (0.75, -0.5), "all prompts"
    cell.__dict__["samples"] = cell.samples.drop(columns=["artefact_click", "artefact_hum", "artefact_hiss"])
    del cell.__dict__["tracked"]
    cell.shares.clear()
    assert find("uptake").curve(cell).tolist() == [0.25, 0.75], "without flags, the points"


def test_a_listener_of_doubled_or_unkeyed_samples_multiplies_no_row(cell: Record):
    doubled = pd.read_parquet(cell.folder / "phonetics_samples.parquet")
    pd.concat([doubled, doubled]).to_parquet(cell.folder / "phonetics_samples.parquet")
    with pytest.raises(pd.errors.MergeError):
        _ = cell.samples
    pd.read_parquet(cell.folder / "samples.parquet").drop(columns="prompt").to_parquet(cell.folder / "samples.parquet")
    assert "third" not in cell.samples.columns


def test_checkpoints_without_a_common_prompt_keep_their_values(cell: Record):
    samples = cell.samples.assign(prompt=range(6))
    cell.__dict__["samples"] = samples
    assert cell.tracked is samples
    assert cell.trajectory is cell.points


def test_the_listeners_are_those_that_are_run():
    """Named again, because reading records imports nothing of the package that makes them."""
    assert tuple(config.LISTENERS) == LISTENERS
