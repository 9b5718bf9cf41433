"""Figures of known records: labels stay inside their panel, and crowded figures name the arms that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import START, Fake, grid, record

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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures by name, which are kept instead of saved."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        figures[name] = figure
        return []

    monkeypatch.setattr(curves.style, "save", keep)
    monkeypatch.setattr(samples, "save", keep)
    return figures


def test_the_names_of_arms_that_end_at_the_top_stand_inside_the_panel(drawn: dict[str, Figure], tmp_path: Path):
    curves.training(records(*preferred()[1:]), tmp_path)
    (axis,) = drawn["training"].axes
    low, high = axis.get_ylim()
    heights = [text.get_position()[1] for text in axis.texts]
    assert len(heights) == len(ENDS)
    assert all(low < y < high for y in heights)


def test_a_training_curve_is_the_mean_over_seeds_of_running_means(drawn: dict[str, Figure], tmp_path: Path):
    """Three evaluations are averaged, and three seeds .1 apart have a t-interval of .2484 on either side."""
    evaluated = pd.Series([0.5, np.nan, 0.6, 0.7, 0.5])
    shown = [Fake("diffro", seed, pd.DataFrame()) for seed in (1, 2, 3)]
    for cell, offset in zip(shown, (-0.1, 0.0, 0.1), strict=True):
        cell.__dict__["curves"] = pd.DataFrame({"step": range(0, 50, 10), "proxy_accuracy": evaluated + offset})
    curves.training(shown, tmp_path)
    (axis,) = drawn["training"].axes
    steps, means = [0, 20, 30, 40], np.array([0.5, 0.55, 0.6, 0.6])
    assert axis.lines[0].get_xydata() == pytest.approx(np.column_stack([steps, means]))
    band = pd.DataFrame(axis.collections[0].get_paths()[0].vertices).groupby(0)[1]
    assert band.min().to_dict() == pytest.approx(dict(zip(steps, means - 0.248414, strict=True)), abs=1e-6)
    assert band.max().to_dict() == pytest.approx(dict(zip(steps, means + 0.248414, strict=True)), abs=1e-6)


def test_the_trade_off_is_drawn_at_the_means_with_an_interval_each_way(drawn: dict[str, Figure], tmp_path: Path):
    """Over three seeds .1 apart the t-interval is .2484 on either side; .02 apart, .0497."""
    values = zip((1, 2, 3), (0.5, 0.6, 0.7), (0.18, 0.2, 0.22), strict=True)
    shown = [
        Fake("rrpo", seed, pd.DataFrame({"step": [9], "test_accuracy": [gold], "phone_error_rate": [errors]}))
        for seed, gold, errors in values
    ]
    curves.pareto(shown, tmp_path)
    (axis,) = drawn["pareto"].axes
    across, upward, point = (np.array(line.get_xydata()) for line in axis.lines)
    assert across == pytest.approx(np.array([[0.6 - 0.248414, 0.8], [0.6 + 0.248414, 0.8]]), abs=1e-6)
    assert upward == pytest.approx(np.array([[0.6, 0.8 - 0.049683], [0.6, 0.8 + 0.049683]]), abs=1e-6)
    assert point == pytest.approx(np.array([[0.6, 0.8]]))


def test_a_confusion_matrix_has_percent_of_each_target_over_all_seeds(drawn: dict[str, Figure], tmp_path: Path):
    """Of four sad samples at the last checkpoint one is predicted angry, and of two angry ones both are predicted sad."""
    first = pd.DataFrame({"step": 0, "target": ["sad", "angry"], "test": ["sad", "angry"]})
    last = [
        pd.DataFrame({"step": 9, "target": ["sad", "sad", "sad", "angry"], "test": "sad"}),
        pd.DataFrame({"step": 9, "target": ["sad", "angry"], "test": ["angry", "sad"]}),
    ]
    shown = [Fake("rrpo", seed, pd.DataFrame(), pd.concat([first, rows])) for seed, rows in enumerate(last)]
    samples.confusion(shown, tmp_path)
    (axis,) = drawn["confusion"].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["angry", "sad"]
    predicted_and_target = {text.get_position(): text.get_text() for text in axis.texts}
    assert predicted_and_target == {(1, 0): "100", (0, 1): "25", (1, 1): "75"}


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


def test_the_first_figure_shows_proxy_gold_and_clean_success_of_each_arm(drawn: dict[str, Figure], tmp_path: Path):
    cells = [record(arm, seed, clean) for arm, clean in (("diffro", 0.4), ("rrpo", 0.5)) for seed in (1, 2)]
    for cell in cells:
        cell.points["proxy_accuracy"] = [0.3, 0.7 + 0.1 * cell.seed]
        cell.points["test_accuracy"] = [0.75, 0.85]
    curves.goodhart(cells, tmp_path)
    panels = {
        axis.get_title(loc="left"): {
            str(line.get_label()): np.array(line.get_ydata())
            for line in axis.lines
            if not str(line.get_label()).startswith("_")
        }
        for axis in drawn["goodhart"].axes
    }
    diffro = {"proxy": [0.3, 0.85], "gold": [0.75, 0.85], "clean success": [START, 0.4]}
    rrpo = diffro | {"clean success": [START, 0.5], "clean success of diffro": [START, 0.4]}
    expected = {"diffro (n = 2)": diffro, "rrpo (n = 2)": rrpo}
    assert panels == {
        title: {name: pytest.approx(ends) for name, ends in lines.items()} for title, lines in expected.items()
    }


def test_captions_name_what_is_drawn():
    records = grid({"ls": 0.1}).records
    plain = curves.goodhart_caption(records)
    assert "dotted gray: mean clean success of diffro." in plain
    assert "best-of-n" not in plain
    best = curves.goodhart_caption([*records, record("best_of_16", 1, 0.5)])
    assert "dash-dotted green: mean clean success of best-of-n" in best
    assert curves.pareto_caption(records).startswith("Intelligibility (1 - phone error rate) against gold accuracy")
