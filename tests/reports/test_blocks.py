"""Numbers between markers are an arm's mean or a difference within seeds; wrong names get one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import record

from reports.blocks import Block, blocks_by_grid, number
from reports.loading import Selection
from rrpo.errors import InputError

CLEAN = {"diffro": (0.40, 0.50, 0.60), "rrpo": (0.45, 0.60, 0.75)}


@pytest.fixture(scope="module")
def selection() -> Selection:
    """Two arms with three seeds. The differences 5, 10, 15 points have the standard deviation 5."""
    records = tuple(record(arm, seed, clean) for arm, row in CLEAN.items() for seed, clean in enumerate(row, 1))
    return Selection("full", records, dict.fromkeys(CLEAN, 3), ())


def test_a_number_is_a_mean_or_a_difference_within_seeds(selection: Selection) -> None:
    """Half an interval is 4.303 s / sqrt(3); s is .1 over DiffRO's seeds, and .05 over the differences."""
    assert number(selection, "clean_success", ("diffro",)) == "50.0 ± 24.8"
    assert number(selection, "clean_success", ("rrpo", "diffro")) == "+10.0 ± 12.4"
    assert number(selection, "gold", ("diffro", "rrpo")) == "-10.0 ± 12.4"


@pytest.mark.parametrize(
    ("name", "arms", "complaint"),
    [
        ("gold", ("rpro",), "no arm of grid full of that name"),
        ("gold", ("rrpo", "sft"), "no arm of grid full of that name"),
        ("golt", ("rrpo",), "rrpo has no value of this outcome"),
        ("golt", ("rrpo", "diffro"), "rrpo - diffro has no value of this outcome"),
    ],
)
def test_a_wrong_name_gets_one_message(selection: Selection, name: str, arms: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        number(selection, name, arms)


def test_numbers_are_found_within_a_line(tmp_path: Path) -> None:
    """Two in one line of a table, with names that contain hyphens and settings."""
    one = "<!-- number:full gold emo-dpo - zet@gamma1.5 -->not run yet<!-- /number -->"
    other = "<!-- number:baselines phone_error_rate sft -->15.5<!-- /number -->"
    page = tmp_path / "README.md"
    page.write_text(f"| {one} | and {other} |\n")
    assert blocks_by_grid(tmp_path) == {
        "full": [Block(page, one, "full", outcome="gold", arms=("emo-dpo", "zet@gamma1.5"))],
        "baselines": [Block(page, other, "baselines", outcome="phone_error_rate", arms=("sft",))],
    }
    block = blocks_by_grid(tmp_path)["full"][0]
    assert block.shows("+1.0") == "<!-- number:full gold emo-dpo - zet@gamma1.5 -->+1.0<!-- /number -->"


@pytest.mark.parametrize(
    "line",
    [
        "<!-- number:full gold rrpo -->1.0",
        "1.0<!-- /number -->",
        "<!-- number:full gold -->1.0<!-- /number -->",
        "<!-- number:full gold rrpo diffro -->1.0<!-- /number -->",
        "<!-- number:full gold rrpo -->\n1.0\n<!-- /number -->",
    ],
)
def test_a_number_that_does_not_end_or_names_too_little_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "README.md").write_text(f"{line}\n<!-- results:full -->\n<!-- /results:full -->\n")
    with pytest.raises(InputError, match="no beginning or no end"):
        blocks_by_grid(tmp_path)
