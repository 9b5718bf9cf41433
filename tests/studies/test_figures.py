"""A study's figures are drawn from real trials, the response surface only where they cover the space."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from test_results import filled, search

from studies.figures import draw
from studies.page import write
from studies.results import sheets


@pytest.mark.parametrize(
    ("objectives", "sampler"), [(("clean_success",), "qmc"), (("clean_success", "hacked_share"), "tpe")]
)
def test_figures_are_drawn(tmp_path: Path, objectives: tuple[str, ...], sampler: str):
    searched = search(tmp_path, *objectives, sampler=sampler)
    names = {path.name for path in draw(filled(searched, 12), searched, tmp_path)}
    wanted = {"history", "importance", "slice", "surface" if sampler == "qmc" else "pareto"}
    assert names == {f"{name}.{ending}" for name in wanted for ending in ("pdf", "png")}
    assert all((tmp_path / name).stat().st_size > 2000 for name in names)
    assert plt.rcParams["axes.facecolor"] == "white", "Optuna's style is not kept"


def test_the_page_begins_with_course_importances_and_surface(tmp_path: Path):
    searched = search(tmp_path, "clean_success")
    study = filled(searched, 12)
    pictures = [path for path in draw(study, searched, tmp_path) if path.suffix == ".png"]
    made = write("s", sheets(study, searched), pictures, "optuna-dashboard <journal>", tmp_path).read_text()
    parts = [made.index(f'alt="{name}"') for name in ("history", "importance", "surface")]
    parts += [made.index('<table id="best">'), made.index('<table id="importance">'), made.index('alt="slice"')]
    assert parts == sorted(parts)
    assert "<code>optuna-dashboard &lt;journal&gt;</code>" in made
    assert 'src="http' not in made
    assert "<h1>Study s</h1>" in write("s", [], [], "", tmp_path).read_text(), "nothing to show yet"
