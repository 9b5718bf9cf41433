"""Figures of known records: labels stay inside their panel, and crowded figures name the arms that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import START, Fake, record

from ablations.rendering.figure_style import figure_of, percent, points, preferred
from reports.figures import curves, samples
from reports.figures.curves import beside

ENDS = (0.99, 0.985, 0.98, 0.975, 0.97, 0.965)


class Trained(Fake):
    """A record with given curves."""

    def __init__(self, label: str, seed: int, end: float) -> None:
        super().__init__(label, seed, pd.DataFrame())
        steps = np.arange(0, 41, 5)
        self.__dict__["curves"] = pd.DataFrame({"step": steps, "proxy_accuracy": np.linspace(0.6, end, len(steps))})
        self.__dict__["samples"] = pd.DataFrame({"step": [0, 40], "target": ["sad", "sad"], "test": ["sad", "angry"]})


def records(*arms: str) -> list[Trained]:
    return [Trained(arm, seed, end) for arm, end in zip(arms, ENDS, strict=False) for seed in (1, 2, 3)]


@pytest.mark.parametrize("heights", [ENDS, (0.61, 0.6), (0.99, 0.62, 0.61, 0.8), (0.7,), (0.9,) * 20])
def test_labels_keep_their_distance_and_stay_inside_the_panel(heights: tuple[float, ...]):
    with figure_of(3, 2) as (_, (axis,)):
        axis.set_ylim(0.6, 1.0)
        places = beside(axis, heights, 0.085)
    gap = 0.4 * min(0.085, 1 / len(heights))
    assert min(places) >= 0.6 + gap / 2 - 1e-9
    assert max(places) <= 1.0 - gap / 2 + 1e-9
    assert (np.diff(sorted(places)) >= gap - 1e-9).all()
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    assert [places[i] for i in order] == sorted(places), "in the order of the lines"


def test_the_names_of_arms_that_end_at_the_top_stand_inside_the_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    heights: list[tuple[float, float, float]] = []

    def seen(figure: Figure, folder: Path, name: str) -> list[Path]:
        for axis in figure.axes:
            heights.extend((text.get_position()[1], *axis.get_ylim()) for text in axis.texts)
        return []

    monkeypatch.setattr(curves.style, "save", seen)
    curves.training(records(*preferred()[1:]), tmp_path)
    assert len(heights) == len(ENDS)
    assert all(low < y < high for y, low, high in heights)


def test_tick_labels_say_where_the_tick_is():
    """Steps of 2.5 points were once labelled -8, -5, -2."""
    ticks = np.arange(-3, 3) * 0.025
    assert [points(tick, 0) for tick in ticks] == ["-7.5", "-5", "-2.5", "0", "+2.5", "+5"]
    assert [percent(share, 0) for share in (0.0, 0.07, 0.875, 1.0)] == ["0%", "7%", "87.5%", "100%"]


def test_a_crowded_figure_knows_its_arms():
    shown = [*records("mine", "ls", "diffro"), Fake("sft", 1, pd.DataFrame())]
    shown[-1].__dict__["curves"] = shown[-1].__dict__["samples"] = pd.DataFrame()
    assert curves.shown(shown) == ["diffro", "ls"], "sft has no curves; mine is left out"
    assert samples.arms_with_samples(shown) == ["diffro", "ls"]
    assert curves.shown(records("mine", "yours")) == ["mine", "yours"], "where none is known the first are shown"


def test_the_first_figure_shows_proxy_gold_and_clean_success_of_each_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: dict[str, dict[str, list[float]]] = {}

    def seen(figure: Figure, folder: Path, name: str) -> list[Path]:
        for axis in figure.axes:
            named = [line for line in axis.lines if not str(line.get_label()).startswith("_")]
            drawn[axis.get_title(loc="left")] = {
                str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in named
            }
        return []

    monkeypatch.setattr(curves.style, "save", seen)
    cells = [record(arm, seed, clean) for arm, clean in (("diffro", 0.4), ("rrpo", 0.5)) for seed in (1, 2)]
    for cell in cells:
        cell.points["proxy_accuracy"] = [0.3, 0.7 + 0.1 * cell.seed]
        cell.points["test_accuracy"] = [0.75, 0.85]
    curves.goodhart(cells, tmp_path)
    diffro = {"proxy": [0.3, 0.85], "gold": [0.75, 0.85], "clean success": [START, 0.4]}
    assert drawn["diffro (n = 2)"] == {name: pytest.approx(ends) for name, ends in diffro.items()}
    of_rrpo = diffro | {"clean success": [START, 0.5], "clean success of diffro": [START, 0.4]}
    assert drawn["rrpo (n = 2)"] == {name: pytest.approx(ends) for name, ends in of_rrpo.items()}
