"""Estimates of time and disk space from stages built here, or from another machine's times and this machine's pace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import reference_times
from tasks import marked

from ablations.execution import estimate
from ablations.execution.estimate import BORROWED, Estimator, wall
from ablations.execution.jobs import longest_first
from ablations.grids import GRIDS
from rrpo.experiment import world
from rrpo.pipeline.stages import walk
from rrpo.profiles import EMBEDDED

CODEC = world.codec(EMBEDDED)
SPEECH = CODEC.inputs["speech"]
BASE = world.base(EMBEDDED)


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine took 100 s for the codec and 30 s for its speech, and never built the base policy."""
    for stage, seconds in ((CODEC, 90.0), (CODEC, 100.0), (CODEC, 300.0), (SPEECH, 30.0)):
        marked(tmp_path / "elsewhere", stage, seconds)
    monkeypatch.setattr(estimate, "REFERENCE", tmp_path / "reference.csv")
    monkeypatch.setattr(reference_times, "REFERENCE", tmp_path / "reference.csv")
    reference_times.main([tmp_path / "elsewhere"])


@pytest.mark.usefixtures("reference")
def test_what_was_never_built_here_takes_another_machines_time_at_this_machines_pace(tmp_path: Path):
    fresh = Estimator(tmp_path / "runs")
    assert fresh.seconds(CODEC) == 100.0
    assert fresh.space([CODEC, SPEECH]) == "about 2 MiB"
    assert wall([CODEC, SPEECH], fresh, 1) == "about 2 min (2 of 2 stages by another machine's times)"
    marked(tmp_path / "runs", SPEECH, 60.0)
    slower = Estimator(tmp_path / "runs")
    assert slower.seconds(SPEECH) == 60.0
    assert slower.seconds(CODEC) == 200.0, "this machine is half as fast as the other"
    assert [slower.estimate(stage) for stage in (CODEC, SPEECH)] == [(200.0, BORROWED), (60.0, "")]
    slower.learn(CODEC, 90.0)
    assert slower.seconds(CODEC) == 90.0
    assert wall([CODEC, SPEECH], slower, 1) == "about 2 min"


@pytest.mark.usefixtures("reference")
def test_what_nobody_built_is_unknown_and_so_is_a_gpu(tmp_path: Path):
    assert Estimator(tmp_path / "runs").seconds(BASE) is None
    text = wall([CODEC, BASE], Estimator(tmp_path / "runs"), 1)
    assert text == "more than 2 min (1 stages of a kind not built here yet; 1 of 2 stages by another machine's times)"
    assert Estimator(tmp_path / "runs").space([CODEC, BASE]) == "more than 1 MiB"
    assert wall([CODEC], Estimator(tmp_path / "runs", "cuda"), 1) == "unknown: nothing of this kind was built here yet"


@pytest.mark.usefixtures("reference")
def test_a_new_size_takes_the_time_of_the_nearest_size_in_proportion(tmp_path: Path):
    half = replace(CODEC, config=replace(CODEC.config, steps=CODEC.config.steps // 2))
    quarter = replace(CODEC, config=replace(CODEC.config, steps=CODEC.config.steps // 4))
    fresh = Estimator(tmp_path / "runs")
    assert fresh.seconds(half) == 50.0, "half of the reference's median"
    assert wall([half, quarter], fresh, 1) == "about 75 s (2 of 2 stages by the times of another size)"
    fresh.learn(half, 80.0)
    assert fresh.seconds(quarter) == 40.0
    assert longest_first([BASE, quarter, SPEECH, CODEC], fresh) == [SPEECH, CODEC, quarter, BASE], (
        "130 s to the end of the codec, 100 s, 40 s, unknown"
    )


def test_a_newcomers_first_plan_tells_the_time_of_the_full_grid(tmp_path: Path):
    stages = list(
        walk(*(stage for cell in GRIDS["full"].cells(EMBEDDED, range(1, 9)) for stage in cell.stages.values()))
    )
    seconds, unknown = Estimator(tmp_path).total(stages)
    assert seconds > 600
    assert unknown < len(stages) / 2
