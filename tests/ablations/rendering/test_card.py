"""The world card as text, as files, and as an exit status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from test_regime_section import run
from typer.testing import CliRunner

from ablations import regime, validate
from ablations.execution.building import Builder
from ablations.rendering import card
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from ablations.validate import app
from rrpo.pipeline.stages import MARKER, Stage
from rrpo.validation.lines import LINES as LINES_FILE
from rrpo.validation.lines import NOT_INSTALLED, Line, load, save

LINES = [
    Line(section="Speech", name="rate as published", value=1.0, low=0.9, high=1.0, at_least=1.0),
    Line(section="Judges", name="test / ideal", value=0.83, low=0.8, high=0.86, at_least=0.95, note="n = 600"),
    Line(section="Judges", name="kappa of val and test", value=0.7),
    Line(section="Naturalness", name="dnsmos", at_least=0.3, note=NOT_INSTALLED),
]


def store_lines(lines: Sequence[Line], section: Path) -> None:
    section.mkdir(parents=True)
    save(lines, section / LINES_FILE)
    (section / MARKER).write_text("{}")


def test_only_lines_that_ask_and_were_measured_count() -> None:
    assert card.conclusion(LINES) == "world card: 1 of 2 pass"
    assert not card.passes(LINES)
    assert card.passes([LINES[0], LINES[2], LINES[3]])
    assert [card.verdict(line) for line in LINES] == ["pass", "FAIL", "-", NOT_INSTALLED]


def test_numbers_are_readable() -> None:
    assert [card.number(x) for x in (0.12345, 596.7, 3.0, 0.0, 1.0, float("nan"))] == [
        "0.123",
        "597",
        "3",
        "0.000",
        "1.000",
        "-",
    ]


def test_files_hold_the_same_lines(tmp_path: Path) -> None:
    card.write(LINES, "World card", tmp_path)
    text = (tmp_path / "card.md").read_text()
    assert "| Judges | test / ideal | 0.830 | 0.800 .. 0.860 | >= 0.95 | FAIL | n = 600 |" in text
    assert text.rstrip().endswith("world card: 1 of 2 pass")
    assert "simulated" in text.lower()
    assert (tmp_path / "card.csv").read_text().splitlines()[2].startswith("Judges,test / ideal,0.83,0.8,0.86")
    assert load(tmp_path / "card.json")[:2] == LINES[:2]
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    card.write(LINES, "World card", tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_metrics_have_names_that_do_not_collide() -> None:
    metrics = card.metrics(LINES)
    assert metrics["judges/test_ideal"] == 0.83
    assert (metrics["passed"], metrics["judged"]) == (1.0, 2.0)
    assert len(metrics) == len(LINES) + 2


def test_the_terminal_shows_every_line() -> None:
    console = Console(width=200, record=True, file=StringIO())
    console.print(card.terminal(LINES, "World card"))
    text = console.export_text()
    assert all(line.name in text for line in LINES)
    assert text.count("Judges") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seed", "3"], "reported seeds must not be used"),
        (["--profile", "huge"], "use one of: smoke, embedded"),
        (["--skip", "nosuch"], "no section of that name"),
        (["--world", "-1"], "--world must not be negative"),
        (["--workers", "0"], "--workers must be positive"),
        (["--device", "tpu"], "use one of: auto, cpu, cuda"),
    ],
)
def test_bad_input_ends_with_status_2_before_anything_is_written(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    result = CliRunner().invoke(app, [*arguments, "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert complaint in result.output
    assert "fix:" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_dead_server_ends_with_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["--profile", "smoke", "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert "the tracking store does not answer" in result.output


def test_what_could_be_measured_is_shown_where_a_section_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If sections cannot be built, the card says so and is neither written nor recorded."""

    worlds: set[int] = set()
    requested: list[str] = []

    def build(builder: Builder, stages: list[Stage]) -> dict[str, str]:
        requested.extend(str(stage) for stage in stages)
        worlds.update(stage.config.world.seed for stage in stages if stage.name == "validation")
        store_lines(LINES[:2], stages[0].path(builder.folder.root))
        return {"card judges": "bug: no such judge"}

    monkeypatch.setattr(Builder, "build", build)
    arguments = ["--profile", "smoke", "--world", "2", "--runs-dir", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert "World card: profile smoke-world2, seed 1000" in result.output
    assert worlds == {2}
    assert requested.count("assessment seed 1002") == 2
    assert "card voices" in requested
    assert "rate as published" in result.output
    assert "not measured: card judges: bug: no such judge" in result.output
    assert "world card: 1 of 2 pass; 1 stages not built" in result.output
    assert not (tmp_path / "runs" / validate.FOLDER).exists()


def test_a_section_that_is_skipped_is_neither_asked_for_nor_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []

    def build(builder: Builder, stages: list[Stage]) -> dict[str, str]:
        requested.extend(str(stage) for stage in stages)
        return {"card judges": "bug: no such judge"}

    monkeypatch.setattr(Builder, "build", build)
    skipped = ["--skip", "regime", "--skip", "voices"]
    result = CliRunner().invoke(app, ["--profile", "smoke", *skipped, "--runs-dir", str(tmp_path / "runs")])
    assert "World card: profile smoke, seed 1000, without regime, voices" in result.output
    assert len(requested) == 8
    assert not [name for name in requested if name == "card voices" or name.startswith("assessment")]


@pytest.mark.usefixtures("stores_copied", "undrawn")
@pytest.mark.parametrize(("proxy", "status"), [(1.0, 0), (0.9, 1)])
def test_the_lines_of_the_regime_decide_with_those_of_the_sections(
    proxy: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first section has a line that passes, the others have none; the regime has five to judge."""

    def build(builder: Builder, stages: list[Stage]) -> dict[str, str]:
        for stage in stages:
            store_lines(LINES[:1] if stage == stages[0] else [], stage.path(builder.folder.root))
        return {}

    def measured(candidates: Iterable[str], profile: object, store: Path, seeds: Sequence[int]) -> pd.DataFrame:
        values = {"proxy": [0.6, 0.8, proxy], "phone_errors": [0.1] * 3, "clean": [0.5] * 3, "artefacts": [0.2] * 3}
        gold = {"vanilla": [0.7, 0.8, 0.8], "oracle": [0.7, 0.8, 0.9]}
        return pd.concat([run(name, seed, gold=gold[name], **values) for name in candidates for seed in seeds])

    monkeypatch.setattr(Builder, "build", build)
    monkeypatch.setattr(regime, "measured", measured)
    runs = tmp_path / "runs"
    result = CliRunner().invoke(app, ["--profile", "smoke", "--device", "cpu", "--runs-dir", str(runs)])
    assert result.exit_code == status, result.output
    assert f"world card: {6 - status} of 6 pass" in result.output
    written = {line.name for line in load(runs / validate.FOLDER / "card.json")}
    assert {"rate as published", "highest proxy accuracy"} < written
    assert set(pd.read_csv(runs / validate.FOLDER / "regime.csv")["seed"]) == {1000, 1001, 1002}
    (recorded,) = Store(check(runs)).runs("world", "card")
    assert (recorded.data.metrics["passed"], recorded.data.metrics["judged"]) == (6 - status, 6)
