"""The report's text is pasted between a page's markers unchanged, and stale blocks are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from reports.results import app

TABLE = "| contrast | n |\n| --- | ---: |\n| LS | 8 |"
ANSWER = f"RRPO reduces reward hacking.\n\n{TABLE}\n\n![Gold and proxy](goodhart.png)\n\nSeeds 101 to 108.\n"
PAGE = "# Title\n\n<!-- results:{0} -->\nNo result yet.\n<!-- /results:{0} -->\n\nThe end.\n"


def results(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--runs-dir", str(folder / "runs"), "--root", str(folder), *arguments])


def report(folder: Path, grid: str, answer: str = ANSWER, figure: bytes = b"drawn") -> None:
    report_folder = folder / "runs" / "reports" / grid
    report_folder.mkdir(parents=True, exist_ok=True)
    (report_folder / "answer.md").write_text(answer)
    (report_folder / "goodhart.png").write_bytes(figure)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a README and a page with one block each."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE.format("full"))
    (tmp_path / "docs" / "results.md").write_text(PAGE.format("loo"))
    return tmp_path


def test_a_block_without_a_report_keeps_its_text(root: Path) -> None:
    for arguments in ([], ["--check"]):
        result = results(root, *arguments)
        assert result.exit_code == 0, result.output
        assert "no result yet: README.md, results:full; run: python -m reports.run --grid full" in result.output
    assert (root / "README.md").read_text() == PAGE.format("full")
    assert not (root / "docs" / "results").exists()


def test_the_report_is_pasted_with_its_figure(root: Path) -> None:
    report(root, "full")
    report(root, "loo", figure=b"another")
    result = results(root)
    assert result.exit_code == 0, result.output
    text = (root / "README.md").read_text()
    shown = ANSWER.replace("(goodhart.png)", "(docs/results/full-goodhart.png)")
    assert text == f"# Title\n\n<!-- results:full -->\n\n{shown}\n<!-- /results:full -->\n\nThe end.\n"
    assert "(results/loo-goodhart.png)" in (root / "docs" / "results.md").read_text()
    assert (root / "docs" / "results" / "full-goodhart.png").read_bytes() == b"drawn"
    assert (root / "docs" / "results" / "loo-goodhart.png").read_bytes() == b"another"
    again = results(root, "--check")
    assert again.exit_code == 0
    assert again.output.splitlines() == ["current: README.md, results:full", "current: docs/results.md, results:loo"]


def test_a_stale_block_is_named_and_left_until_it_is_pasted(root: Path) -> None:
    report(root, "full")
    report(root, "loo")
    results(root)
    before = (root / "README.md").read_text()
    for changed in ({"answer": ANSWER.replace("reduces", "stops")}, {"figure": b"drawn anew"}):
        report(root, "full", **changed)  # type: ignore[arg-type]
        result = results(root, "--check")
        assert result.exit_code == 1
        assert "stale: README.md, results:full" in result.output
        assert "current: docs/results.md, results:loo" in result.output
        assert (root / "README.md").read_text() == before
        assert (root / "docs" / "results" / "full-goodhart.png").read_bytes() == b"drawn"
        report(root, "full")
    (root / "README.md").write_text(before.replace("reduces", "stops"))
    assert results(root, "--check").exit_code == 1, "edited by hand"
    assert results(root).exit_code == 0
    assert (root / "README.md").read_text() == before


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("nothing", "no page has a block for results"),
        ("<!-- results:full -->\nopen\n", "no beginning or no end"),
        ("<!-- results:full -->\n<!-- /results:loo -->\n", "no beginning or no end"),
        (PAGE.format("nosuch"), "no grid (results:nosuch in README.md) of that name"),
    ],
)
def test_a_page_that_makes_no_sense_gets_one_message_and_stays(tmp_path: Path, page: str, complaint: str) -> None:
    (tmp_path / "README.md").write_text(page)
    report(tmp_path, "full")
    result = results(tmp_path)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert "fix:" in result.output
    assert (tmp_path / "README.md").read_text() == page
