"""A study's figures are drawn from real trials, the response surface only where they cover the space."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_results import filled, search

from studies.figures import draw


@pytest.mark.parametrize(
    ("objectives", "sampler"), [(("clean_success",), "qmc"), (("clean_success", "hacked_share"), "tpe")]
)
def test_figures_are_drawn(tmp_path: Path, objectives: tuple[str, ...], sampler: str):
    searched = search(tmp_path, *objectives, sampler=sampler)
    names = {path.name for path in draw(filled(searched, 12), searched, tmp_path)}
    wanted = {"history.png", "slice.pdf", "parallel.png", "edf.png", "contour.pdf"}
    assert wanted | ({"surface.png"} if sampler == "qmc" else {"hypervolume.png", "pareto.png"}) <= names
    assert ("surface.png" in names) == (sampler == "qmc")
    assert all((tmp_path / name).stat().st_size > 2000 for name in names)
