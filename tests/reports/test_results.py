"""The report on the archived runs is pasted between a page's markers unchanged, and stale blocks are reported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from stored import report, store_cells, tiny_grid
from typer.testing import CliRunner, Result

from ablations.archive import RECORDS
from ablations.tracking import archive
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import SERVER, check
from reports.results import app
from rrpo.corpus.config import WorldConfig

ARMS = ["sft", "diffro"]
PAGE = "# Title\n\n<!-- results:{0} -->\nNo result yet.\n<!-- /results:{0} -->\n\nThe end.\n"


def results(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--records", str(root / "records"), "--root", str(root), *arguments])


@pytest.fixture(scope="module")
def original(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with two arms of a grid, ``runs``, and a report on it, ``out``."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(template, folder / "runs")
    with tiny_grid():
        store_cells(folder / "runs", fakes.cells(ARMS, [1]))
        assert report(folder / "runs", folder / "out", "--grid", "tiny").exit_code == 0
    return folder


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """Make an archive of the grid ``tiny``, a README with a block for it, and a page with blocks for two grids."""
    list(archive.save(Store(check(original / "runs")), "tiny", tmp_path / "records"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE.format("tiny"))
    (tmp_path / "docs" / "results.md").write_text(PAGE.format("tiny") + PAGE.format("loo"))
    return tmp_path


@pytest.fixture
def unarchived(tmp_path: Path) -> Path:
    """Make an empty archive, a folder for pages, and a README with a block for a grid without runs."""
    for name in ("records", "docs"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text(PAGE.format("loo"))
    return tmp_path


def test_the_report_is_pasted_with_its_figure_until_it_is_current(
    root: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the text of `reports.run` on the runs before they were archived. Nothing is sent to a server."""
    monkeypatch.setenv(SERVER, "http://127.0.0.1:9")
    result = results(root)
    assert result.exit_code == 0, result.output
    shown = (original / "out" / "answer.md").read_text()
    assert shown.count("(goodhart.png)") == 1
    readme, page = ((root / name).read_text() for name in ("README.md", "docs/results.md"))
    in_readme = shown.replace("(goodhart.png)", "(docs/results/tiny-goodhart.png)")
    assert readme == f"# Title\n\n<!-- results:tiny -->\n\n{in_readme}\n<!-- /results:tiny -->\n\nThe end.\n"
    in_page = shown.replace("(goodhart.png)", "(results/tiny-goodhart.png)")
    assert page == readme.replace(in_readme, in_page) + PAGE.format("loo")
    figure = root / "docs" / "results" / "tiny-goodhart.png"
    drawn = (original / "out" / "goodhart.png").read_bytes()
    assert figure.read_bytes() == drawn

    fix = f"run: python -m ablations.archive save --grid loo --to {root / 'records'}"
    assert f"no result yet: loo in docs/results.md; {fix}" in result.output
    assert results(root, "--check").exit_code == 0

    (root / "README.md").write_text(readme.replace(" is ", " was ", 1))
    result = results(root, "--check")
    assert result.exit_code == 1
    assert "stale: tiny in README.md" in result.output
    assert "current: tiny in docs/results.md" in result.output
    assert (root / "README.md").read_text() != readme, "only reported"
    (root / "README.md").write_text(readme)
    figure.write_bytes(b"another")
    assert "pasted: tiny in README.md" in results(root).output
    assert (root / "README.md").read_text() == readme
    assert figure.read_bytes() == drawn


def test_a_table_of_the_report_is_pasted_by_its_name(root: Path, original: Path) -> None:
    (root / "docs" / "results.md").write_text(PAGE.format("tiny/table"))
    result = results(root)
    assert "pasted: tiny/table in docs/results.md" in result.output
    pasted = (root / "docs" / "results.md").read_text()
    _, shown = (original / "out" / "table.md").read_text().strip().split("\n\n", 1)
    assert pasted == f"# Title\n\n<!-- results:tiny/table -->\n\n{shown}\n\n<!-- /results:tiny/table -->\n\nThe end.\n"
    assert "current: tiny/table in docs/results.md" in results(root, "--check").output

    (root / "docs" / "results.md").write_text(PAGE.format("tiny/tabel"))
    result = results(root)
    assert result.exit_code == 2
    assert "tabel" in result.output
    assert "table" in result.output.replace("tabel", "")


def test_a_number_is_pasted_into_a_sentence_and_becomes_stale(root: Path) -> None:
    """RM accuracy is .7 + (333 mod 7) / 40 + .01 for SFT's label and seed 1 (`fakes.build_examined`)."""
    page, marker = root / "docs" / "results.md", "<!-- number:tiny rm_accuracy_valid sft -->"
    page.write_text(f"It is {marker}not run yet<!-- /number --> %.\n")
    result = results(root)
    assert "pasted: tiny rm_accuracy_valid sft in docs/results.md" in result.output
    assert page.read_text() == f"It is {marker}81.0<!-- /number --> %.\n"
    assert results(root, "--check").exit_code == 0
    page.write_text(page.read_text().replace("81", "82"))
    result = results(root, "--check")
    assert result.exit_code == 1
    assert "stale: tiny rm_accuracy_valid sft in docs/results.md" in result.output
    assert "current: tiny in README.md" in result.output


def test_a_grid_that_is_not_complete_is_not_shown(root: Path, original: Path) -> None:
    """Nobody should see the arms before all planned cells are there."""
    runs = Path(shutil.copytree(original / "runs", root / "runs"))
    Tracker(check(runs), "tiny", {}, {}).start_invocation(fakes.cells(ARMS, [1, 2]), {})
    list(archive.save(Store(check(runs)), "tiny", root / "records"))
    for arguments in ([], ["--check"]):
        result = results(root, *arguments)
        assert result.exit_code == 0, result.output
        assert "no result yet: tiny in README.md, docs/results.md. Of 4 planned cells 2 are complete" in result.output
    assert (root / "README.md").read_text() == PAGE.format("tiny")
    assert not (root / "docs" / "results").exists()


def test_a_grid_that_is_not_complete_in_another_world_is_not_shown(root: Path, original: Path) -> None:
    runs = Path(shutil.copytree(original / "runs", root / "runs"))
    other = replace(fakes.PROFILE, world=WorldConfig(seed=1))
    cells = [replace(cell, profile=other) for cell in fakes.cells(ARMS, [1], world="b")]
    with tiny_grid():
        store_cells(runs, cells[:1])
    Tracker(check(runs), "tiny", {}, {}).start_invocation(cells, {})
    list(archive.save(Store(check(runs)), "tiny", root / "records"))
    result = results(root)
    assert "no result yet: tiny in README.md, docs/results.md. Of 2 planned cells 2 are complete" in result.output
    assert "Of world 1 (world-b): 1 of 2 planned cells (1 missing)." in result.output
    assert (root / "README.md").read_text() == PAGE.format("tiny")


def test_a_damaged_archive_changes_no_page(root: Path) -> None:
    (root / "records" / "tiny" / "seed-1.zip").write_bytes(b"PK")
    result = results(root)
    assert result.exit_code == 2
    assert "a file of the archive is damaged" in result.output
    assert (root / "README.md").read_text() == PAGE.format("tiny")


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("nothing", "no page has a block for results"),
        ("<!-- results:tiny -->\nopen\n", "no beginning or no end"),
        ("<!-- results:tiny -->\n<!-- /results:loo -->\n", "no beginning or no end"),
        (PAGE.format("nosuch"), "no grid (results:nosuch in README.md) of that name"),
    ],
)
def test_a_page_that_makes_no_sense_gets_one_message_and_stays(tmp_path: Path, page: str, complaint: str) -> None:
    (tmp_path / "README.md").write_text(page)
    result = results(tmp_path)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert "fix:" in result.output
    assert (tmp_path / "README.md").read_text() == page


@pytest.mark.long
def test_the_results_in_this_repository_are_current() -> None:
    """`make results` would change no page: README.md and docs/ show what the archived runs give."""
    repository = Path(__file__).parents[2]
    result = CliRunner().invoke(app, ["--records", str(repository / RECORDS), "--root", str(repository), "--check"])
    assert result.exit_code == 0, result.output


def test_a_table_of_a_study_is_pasted_from_its_archived_report(unarchived: Path) -> None:
    page, marker = unarchived / "docs" / "results.md", "<!-- {}study:tune-rrpo/fresh -->"
    page.write_text(f"{marker.format('')}\nNo result yet.\n{marker.format('/')}\n\nThe end.\n" + PAGE.format("loo"))
    assert "no result yet: tune-rrpo/fresh in docs/results.md" in results(unarchived).output
    folder = unarchived / "records" / "studies" / "tune-rrpo" / "report"
    folder.mkdir(parents=True)
    (folder / "fresh.md").write_text(
        "# The best trial on fresh seeds\n\n| objective | trial 3 |\n\nOn 8 fresh seeds.\n"
    )
    assert "stale: tune-rrpo/fresh" in results(unarchived, "--check").output
    assert "pasted: tune-rrpo/fresh" in results(unarchived).output
    text = page.read_text()
    assert text.startswith(
        f"{marker.format('')}\n\n| objective | trial 3 |\n\nOn 8 fresh seeds.\n\n{marker.format('/')}\n"
    )
    assert "The end." in text
    checked = results(unarchived, "--check")
    assert (checked.exit_code, "current: tune-rrpo/fresh" in checked.output) == (0, True)
    page.write_text(text.replace(marker.format("/"), ""))
    assert "a block for results has no beginning or no end" in results(unarchived).output


def test_the_page_of_gradients_is_written_from_the_archived_values(unarchived: Path) -> None:
    assert not (unarchived / "docs" / "gradients.md").exists()
    shutil.copy(RECORDS / "gradients.csv", unarchived / "records")
    result = results(unarchived, "--check")
    assert (result.exit_code, "stale: docs/gradients.md" in result.output) == (1, True)
    assert not (unarchived / "docs" / "gradients.md").exists()
    assert "pasted: docs/gradients.md" in results(unarchived).output
    assert (unarchived / "docs" / "gradients.md").read_text() == (
        RECORDS.parents[1] / "docs" / "gradients.md"
    ).read_text()
    result = results(unarchived, "--check")
    assert (result.exit_code, "current: docs/gradients.md" in result.output) == (0, True)
