"""The user's files: what their hash covers, and that they must not change while a command runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rrpo.cosyvoice import run, standin
from rrpo.cosyvoice.config import Source
from rrpo.cosyvoice.paper import PAPER
from rrpo.errors import InputError
from rrpo.pipeline.stages import Context


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.write(tmp_path_factory.mktemp("cosyvoice2"))


def test_only_what_is_read_of_a_folder_is_hashed(release: Path) -> None:
    before = Source.of(release).digest
    for name in (
        ".DS_Store",
        "CosyVoice-BlankEN/.DS_Store",
        ".cache/huggingface/llm.lock",
        "flow.pt",
        "asset/logo.png",
    ):
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text("not read")
    assert Source.of(release).digest == before
    for name in ("CosyVoice-BlankEN/config.json", "llm.pt"):
        with (release / name).open("ab") as file:
            file.write(b" ")
        assert Source.of(release).digest != before
        before = Source.of(release).digest


def test_a_folder_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"(?s)no file to read.*some of llm.pt"):
        Source.of(tmp_path)


def test_a_corpus_that_was_edited_is_not_built_from(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*arguments: Any) -> None:
        pytest.fail("it is built from")

    corpus = standin.write_corpus(tmp_path / "tokens.jsonl")
    config = replace(PAPER, model=Source.of(release), corpus=Source.of(corpus))
    assert config.corpus is not None
    config.corpus.require_unchanged()
    corpus.write_text(corpus.read_text().replace("happy", "sad"))
    with pytest.raises(InputError, match=r"(?s)changed while the command ran.*tokens\.jsonl"):
        config.corpus.require_unchanged()
    monkeypatch.setattr(run, "begin", built)
    monkeypatch.setattr(run.Start, "load", built)
    for build in (run.build_start, run.build):
        with pytest.raises(InputError, match="changed while the command ran"):
            build(config, {"start": tmp_path}, tmp_path / "out", Context())
