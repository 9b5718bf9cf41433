"""The example's reader: from wavs to manifests that a command takes, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rrpo import plugins
from rrpo.corpus.__main__ import app
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.intake import check_manifest
from rrpo.corpus.manifest import read_manifest
from rrpo.corpus.readers import READERS
from rrpo.testing.corpora import CorpusReaderContract, write_tone

EXAMPLE = Path(__file__).parents[2] / "examples" / "tagged_wavs.py"
SPEAKERS = ("anna", "ben", "cora", "dora", "emil")


def corpus(folder: Path) -> None:
    """Five speakers, three emotions, one letter that no map has, one name that does not fit, one unknown sentence, and lines of
    texts that are none."""
    (folder / "texts.tsv").write_text("03\tDas Tuch liegt auf dem Tisch.\n\nno number\n", encoding="utf-8")
    names = [f"{speaker}_{letter}_03" for speaker in SPEAKERS for letter in "WFT"]
    for place, name in enumerate([*names, "anna_X_03", "anna_W_04", "noise"]):
        write_tone(folder / f"{name}.wav", 200 + 10 * place)


class TestTaggedWavs(CorpusReaderContract):
    @pytest.fixture(autouse=True)
    def _loaded(self, no_plugins: Callable[[], None]) -> None:
        plugins.load(EXAMPLE)
        type(self).reader = READERS["tagged"]

    def corpus(self, folder: Path) -> None:
        corpus(folder)


def test_wavs_become_checked_manifests(no_plugins: Callable[[], None], tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    corpus(tmp_path / "wavs")
    out = tmp_path / "mine.jsonl"
    command = ["import", "tagged", str(tmp_path / "wavs"), "--plugin", str(EXAMPLE), "--out", str(out)]
    command += ["--split", "annotated=.8", "--split", "rm_test=.2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for text in (
        "not in the map, left out",
        "skipped 1: no such sentence in texts.tsv",
        "its name is not SPEAKER_LABEL",
    ):
        assert text in result.output
    read = {name: read_manifest(tmp_path / f"mine.{name}.jsonl", None, name) for name in ("annotated", "rm_test")}
    assert [len({u.speaker for u in lines}) for lines in read.values()] == [4, 1]
    assert not {u.speaker for u in read["annotated"]} & {u.speaker for u in read["rm_test"]}
    assert {u.emotion for lines in read.values() for u in lines} == {"angry", "happy", "sad"}
    assert {u.language for lines in read.values() for u in lines} == {"de"}
    for name, lines in read.items():
        assert check_manifest(tmp_path / f"mine.{name}.jsonl", lines, AudioConfig()).digest
    first = json.loads((tmp_path / "mine.rm_test.jsonl").read_text().splitlines()[0])
    assert first["audio"].startswith("wavs/"), "the corpus can be moved with its manifests"
