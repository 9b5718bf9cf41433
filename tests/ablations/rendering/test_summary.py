"""The table of results: hand-computed numbers, missing values and missing cells."""

from __future__ import annotations

import csv
import io
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from ablations.commands import rich_table
from ablations.rendering.sheet import Column, Sheet, as_csv, markdown, show
from ablations.rendering.summary import table
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record


def record(folder: Path, label: str, seed: int, gold: list[float], d: list[float]) -> Record:
    cell_folder = folder / f"{label}-{seed}"
    cell_folder.mkdir()
    frame = pd.DataFrame({"step": range(len(d)), "sqrt_kl": d, "kl_token": [x * x for x in d], "proxy_accuracy": gold})
    frame.to_parquet(cell_folder / "points.parquet")
    pd.DataFrame({"step": range(len(d)), "test_accuracy": gold}).to_parquet(cell_folder / "test_points.parquet")
    return Record(
        label=label,
        seed=seed,
        cell_hash=f"{label}{seed}",
        arm_hash=label,
        world_hash="w",
        profile="smoke",
        find=lambda: cell_folder,
    )


def test_numbers_by_hand(tmp_path: Path):
    records = [
        record(tmp_path, "sft", 1, [0.5], [0]),
        record(tmp_path, "a", 1, [0.5, 0.7], [0, 1]),
        record(tmp_path, "a", 2, [0.5, 0.9], [0, 1]),
    ]
    results = table(records)
    values = results.row("a")
    assert values["n"] == 2
    assert values["gold"] == pytest.approx(t_interval([0.7, 0.9]))
    assert values["kl_token"].mean == pytest.approx(1)
    head, body = results.texts()
    assert head[:3] == ["arm", "n", "clean success, %"]
    assert body[0][4] == "50.0"
    assert body[1][6] == "–", "no phone error rate was recorded"
    assert "naturalness" not in " ".join(head), "nor naturalness, which is only shown if it was measured"


def test_the_oracle_is_ranked_in_no_setting(tmp_path: Path):
    assert table([], {"oracle@own": 1, "rrpo@own": 1, "placebo": 1}).unranked == {"oracle@own", "placebo"}


def test_missing_cells_and_arms_are_named(tmp_path: Path):
    results = table([record(tmp_path, "a", 1, [0.5, 0.7], [0, 1])], {"b": 2, "a": 2})
    assert [row[0] for row in results.rows] == ["b", "a"]
    assert "Not complete: b 2, a 1." in results.notes
    assert results.texts()[1][0] == ["b", "0", *["–"] * 8]


def test_markdown_and_csv_say_the_same(tmp_path: Path):
    results = table([record(tmp_path, "a", s, [0.5, 0.6 + 0.1 * s], [0, 1]) for s in (1, 2)])
    (row,) = csv.DictReader(io.StringIO(as_csv(results)))
    assert float(row["gold_mean"]) == pytest.approx(0.75)
    assert row["gold_n"] == "2"
    assert row["uptake_mean"] == ""
    assert "| 75.0 ± " in markdown(results)
    assert "nan" not in as_csv(results) + markdown(results)


def test_show():
    assert show(t_interval([0.5]), "percent") == "50.0"
    assert show(t_interval([]), "percent") == "–"
    assert show(t_interval([0.1, 0.1]), "gain") == "+10.0 ± 0.0"


def test_the_terminal_shows_brackets_as_they_are():
    drawn = StringIO()
    sheet = Sheet("x", "X", (Column("a", "length [s]", "text"), Column("b", "b", "text")), (("[/a.wav]", "[b]"),))
    Console(file=drawn, width=60).print(rich_table(sheet))
    assert all(text in drawn.getvalue() for text in ("length [s]", "[/a.wav]", "[b]"))


def test_no_records_give_an_empty_table():
    assert table([]).rows == ()
