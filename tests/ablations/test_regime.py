"""The rule of the regime, on trajectories with a known answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ablations import regime
from ablations.execution.building import Builder
from ablations.regime import (
    STEPS,
    check_controls,
    choose_content_weight,
    choose_data_size,
    choose_rate,
    choose_updates,
)
from rrpo.arms import ARMS, BASE
from rrpo.experiment import dataflow, measurements
from rrpo.pipeline.stages import Stage
from rrpo.profiles import SMOKE


def runs(candidate: str, seeds: int = 3, batch: int = 32, **columns: Sequence[float]) -> pd.DataFrame:
    """The same trajectory for every seed."""
    size = len(next(iter(columns.values())))
    base = {
        "step": [20 * k for k in range(size)],
        "gold": [0.8] * size,
        "proxy": [0.6] * size,
        "kl_token": [0.0] * size,
    }
    table = pd.DataFrame(
        base | {"phone_errors": [0.1] * size, "clean": 0.5, "hacked": 0.2, "artefacts": 0.1} | dict(columns)
    )
    tables = [table.assign(candidate=candidate, seed=1000 + k, rollouts=table["step"] * batch) for k in range(seeds)]
    return pd.concat(tables, ignore_index=True)


def test_the_rate_that_gains_and_is_there_in_the_fewest_roll_outs() -> None:
    """``fast`` gains too little, ``slow`` most, ``middle`` 90 % of that in half the roll-outs; ``never`` misses .25 nats."""
    table = pd.concat(
        [
            runs("fast", kl_token=[0, 0.5, 1.0], proxy=[0.6, 0.7, 0.9]),  # at step 10: +.05
            runs("middle", kl_token=[0, 0.25, 0.5], proxy=[0.6, 0.79, 0.9]),  # at step 20: +.19
            runs("slow", kl_token=[0, 0.1, 0.25], proxy=[0.6, 0.7, 0.8]),  # at step 40: +.20
            runs("never", kl_token=[0, 0.1, 0.2], proxy=[0.6, 0.9, 1.0]),
        ]
    )
    chosen, printed = choose_rate(table)
    assert chosen == "middle"
    assert "never: 0 of 3 seeds get there" in printed[3]
    assert "640 roll-outs" in printed[1]
    assert choose_rate(table[table["candidate"] != "middle"])[0] == "slow"
    assert choose_rate(table[table["candidate"] == "never"])[0] == ""


def test_the_smallest_content_weight_whose_speech_is_intact_at_golds_peak() -> None:
    table = pd.concat(
        [
            runs("0.25", gold=[0.8, 0.95, 0.9], phone_errors=[0.1, 0.21, 0.1]),
            runs("0.5", gold=[0.8, 0.95, 0.9], phone_errors=[0.1, 0.2, 0.9]),
            runs("1", gold=[0.8, 0.95, 0.9], phone_errors=[0.1, 0.1, 0.1]),
        ]
    )
    assert choose_content_weight(table)[0] == "0.5"
    assert choose_content_weight(table[table["candidate"] == "0.25"])[0] == ""


def test_working_pressure_outlasts_the_proxys_saturation_and_has_an_end() -> None:
    table = runs("vanilla", seeds=2, proxy=[0.6, 0.9, 1.0])  # .95 at step 30
    assert choose_updates(table)[0] == "45"
    table.loc[(table["seed"] == 1000), "proxy"] = 0.6
    assert choose_updates(table)[0] == str(round(1.5 * (480 + 30) / 2))
    assert choose_updates(table[table["seed"] == 1000])[0] == "480"


def assay(windows: Mapping[str, Sequence[float]], phones: float = 0.1) -> pd.DataFrame:
    """The oracle ends at .95; a candidate's window is the difference on each seed."""
    parts = []
    for name, lacking in ({"oracle": [0.0] * 3} | dict(windows)).items():
        for seed, lack in enumerate(lacking):
            run = runs(name, seeds=1, gold=[0.8, 0.95 - lack], phone_errors=[0.1, phones])
            parts.append(run.assign(seed=1000 + seed))
    return pd.concat(parts, ignore_index=True)


def test_the_most_data_that_open_the_window_or_else_the_widest() -> None:
    windows = {
        "much": [0.02, 0.03, 0.04],
        "unsure": [0.0, 0.0, 0.3],
        "some": [0.08, 0.09, 0.10],
        "few": [0.2, 0.21, 0.22],
    }
    chosen, printed = choose_data_size(assay(windows))
    assert chosen == "some"
    assert "much: window +3.0 [" in printed[0]
    closed, printed = choose_data_size(assay({"much": [0.01, 0.02, 0.03], "few": [0.03, 0.04, 0.05]}))
    assert closed == "few"
    assert "that is the finding" in printed[-1]
    assert choose_data_size(assay(windows, phones=0.3))[1][-1].startswith("no candidate")


def ends(name: str, gold: Sequence[float], clean: Sequence[float]) -> pd.DataFrame:
    """Return runs that change from gold .8 and clean success .5 to the given values, one per seed."""
    parts = [runs(name, seeds=1, gold=[0.8, g], clean=[0.5, c]) for g, c in zip(gold, clean, strict=True)]
    return pd.concat([part.assign(seed=1000 + k) for k, part in enumerate(parts)], ignore_index=True)


def test_a_control_fails_where_its_interval_lies_above_sft() -> None:
    vanilla = ends("diffro", [0.95, 0.96, 0.97], [0.7, 0.71, 0.72])
    placebo = ends("placebo", [0.2, 0.3, 0.25], [0.6, 0.7, 0.3])
    chosen, printed = check_controls(
        pd.concat([placebo, ends("content_only", [0.7, 0.82, 0.9], [0.4, 0.5, 0.5]), vanilla])
    )
    assert chosen == "both controls hold", (
        "vanilla may rise, and a mean above SFT's does not suffice without an interval above it"
    )
    assert printed[:2] == [
        "placebo: gold -55.0 [-67.4, -42.6] points from SFT's",
        "placebo: clean success +3.3 [-48.4, +55.0] points from SFT's",
    ]
    chosen, _ = check_controls(pd.concat([placebo, ends("content_only", [0.7, 0.7, 0.7], [0.53, 0.54, 0.55]), vanilla]))
    assert chosen == "the regime fails: content_only ends above SFT in clean success"


def test_a_table_of_samples_is_summed_up_by_checkpoint() -> None:
    samples = pd.DataFrame(
        {
            "step": [0, 0, 20, 20],
            "target": ["sad"] * 4,
            "proxy": ["sad", "sad", "angry", "sad"],
            "val": ["sad", "happy", "sad", "sad"],
            "artefact_click": [False, False, True, False],
            "phone_errors": [0, 1, 0, 4],
            "phones": [10, 10, 10, 10],
        }
    )
    summary = regime.by_checkpoint(samples)
    assert summary.index.tolist() == [0, 20]
    assert summary["clean"].tolist() == [0.5, 0.0]  # a click, and too many phone errors
    assert summary["hacked"].tolist() == [0.5, 1.0]  # among samples with the proxy's argmax on target
    assert summary["artefacts"].tolist() == [0.0, 0.5]
    assert summary["phone_errors"].tolist() == pytest.approx([0.05, 0.2])


def test_the_table_joins_points_and_samples_of_each_candidate_and_seed(tmp_path: Path) -> None:
    candidates = {f"batch of {size}": replace(ARMS[BASE], batch=size) for size in (10, 30)}
    for index, (arm, seed) in enumerate(product(candidates.values(), (1000, 1001))):
        points = {"step": [0, 20], "kl_token": [0.0, 0.1 * index], "proxy_accuracy": [0.5, 0.6 + 0.1 * index]}
        points |= {"val_accuracy": [0.4, 0.2 + 0.1 * index]}
        samples = {"step": [0, 20], "target": "sad", "proxy": "sad", "val": "sad", "artefact_click": False}
        samples |= {"phone_errors": [0, index], "phones": 100}
        for stage, table, name in (
            (dataflow.optimized(SMOKE, arm, seed), points, "points"),
            (measurements.assessed(SMOKE, arm, seed), samples, "samples"),
        ):
            folder = stage.path(tmp_path)
            folder.mkdir(parents=True)
            pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    table = regime.measured(candidates, SMOKE, tmp_path, (1000, 1001))
    columns = ["step", "rollouts", "kl_token", "proxy", "gold", "phone_errors"]
    rows = table.set_index(["candidate", "seed"])[columns]
    assert rows[rows["step"] == 0].drop_duplicates().to_numpy().tolist() == [[0, 0, 0.0, 0.5, 0.4, 0.0]]
    expected = {
        ("batch of 10", 1000): (20, 200, 0.0, 0.6, 0.2, 0.00),
        ("batch of 10", 1001): (20, 200, 0.1, 0.7, 0.3, 0.01),
        ("batch of 30", 1000): (20, 600, 0.2, 0.8, 0.4, 0.02),
        ("batch of 30", 1001): (20, 600, 0.3, 0.9, 0.5, 0.03),
    }
    ends = rows[rows["step"] == 20]
    assert ends.index.tolist() == list(expected)
    for end, values in zip(ends.to_numpy(), expected.values(), strict=True):
        assert end == pytest.approx(values)


@pytest.mark.parametrize("name", STEPS)
def test_candidates_are_vanilla_and_are_drawn(name: str, tmp_path: Path) -> None:
    candidates = STEPS[name].candidates()
    assert len({repr(arm) for arm in candidates.values()}) == len(candidates)
    off = {
        arm.regularizers.epsilon + arm.regularizers.mix_probability + arm.regularizers.alpha
        for arm in candidates.values()
    }
    assert off == {0.0}
    table = pd.concat([runs(candidate, kl_token=[0, 0.2, 0.4]) for candidate in candidates])
    assert [path.suffix for path in regime.draw(table, tmp_path, name)] == [".pdf", ".png"]


def test_the_command_applies_a_steps_rule_to_what_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def built(builder: Builder, stages: Sequence[Stage]) -> dict[str, str]:
        requested.extend(stage.name for stage in stages)
        return {}

    table = pd.concat([runs("0.25", phone_errors=[0.1, 0.3]), runs("0.5", phone_errors=[0.1, 0.1], gold=[0.8, 0.9])])
    table.loc[table["candidate"] == "0.25", "gold"] = [0.8, 0.9] * 3
    monkeypatch.setattr(Builder, "build", built)
    monkeypatch.setattr(regime, "measured", lambda *arguments: table)
    result = CliRunner().invoke(regime.app, ["content", "--device", "cpu", "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert requested == ["assess"] * 20
    assert "The rule chooses: 0.5." in result.output
    assert {path.name for path in (tmp_path / "runs" / "regime").iterdir()} >= {"content.csv", "content.png"}
