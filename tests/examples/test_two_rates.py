"""The example of a grid: its contract, its plan, and a report of fake cells; without the file the report says what is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("ablations", "reports")]

import fakes  # noqa: E402
from fixtures import runs, template, undrawn  # noqa: E402, F401
from stored import report, store_cells  # noqa: E402

from ablations import arms, run  # noqa: E402
from ablations.grids import GRIDS  # noqa: E402
from rrpo import ARMS, plugins  # noqa: E402
from rrpo.testing.grids import GridContract  # noqa: E402

FILE = ROOT / "examples" / "two_rates.py"


@pytest.fixture(autouse=True)
def _plugged(no_plugins: Callable[[], None]) -> None:
    """The plugin is loaded for one test."""
    plugins.use([FILE])


class TestContract(GridContract):
    @pytest.fixture(autouse=True)
    def _grid(self, _plugged: None) -> None:
        type(self).grid = GRIDS["two-rates"]


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) < 60


def test_a_plan_of_it_names_its_arms_and_what_they_differ_in(tmp_path: Path):
    options = [
        "--plugin",
        str(FILE),
        "--grid",
        "two-rates",
        "--seeds",
        "2",
        "--plan",
        "--runs-dir",
        str(tmp_path / "runs"),
    ]
    result = CliRunner().invoke(run.app, options)
    assert result.exit_code == 0, result.output
    assert "5 arms, 2 seeds, 10 cells" in result.output
    assert "diffro_half/101" in result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("  diffro_half  ")]
    assert "epsilon 0.0" in row
    assert f"lr {ARMS['diffro_half'].lr}" in row
    assert not (tmp_path / "runs").exists()


def test_its_arms_are_listed():
    result = CliRunner().invoke(arms.app, ["--plugin", str(FILE), "diffro_half"])
    assert result.exit_code == 0, result.output
    assert "lr = 0.0001" in result.output


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_it_has_its_rows_and_needs_the_file(
    runs: Path,  # noqa: F811
    tmp_path: Path,
    no_plugins: Callable[[], None],
):
    store_cells(runs, fakes.cells(["sft", "diffro", "rrpo", "diffro_half"], [1, 2]), grid="two-rates")
    result = report(runs, tmp_path / "out", "--plugin", str(FILE), "--grid", "two-rates", "--format", "csv")
    assert result.exit_code == 0, result.output
    assert "\ndiffro_half," in (tmp_path / "out" / "table.csv").read_text()
    no_plugins()
    result = report(runs, tmp_path / "other", "--grid", "two-rates")
    assert result.exit_code == 2
    assert "made with the plugin two_rates.py, which is not loaded" in result.output
    copy = result.output.split("--plugin ")[-1].replace("\n", "").strip()
    assert Path(copy).read_bytes() == FILE.read_bytes()
