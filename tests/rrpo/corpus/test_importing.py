"""Import of corpora: labels, splits by speaker, skipped entries, and messages of the command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rrpo.corpus import importing
from rrpo.corpus.__main__ import app
from rrpo.corpus.importing import Summary, assign, import_corpus
from rrpo.corpus.manifest import ManifestError, read_manifest
from rrpo.corpus.readers import READERS
from rrpo.testing.corpora import CorpusReaderContract, write_tone


class TestFolders(CorpusReaderContract):
    reader = READERS["folders"]

    def corpus(self, folder: Path) -> None:
        for index, name in enumerate(("anna/joy", "anna/anger", "ben/joy")):
            write_tone(folder / name / "1.wav", 200 + 20 * index)
        (folder / "anna/joy/1.txt").write_text("the girls buy milk")


def run(*arguments: object):
    return CliRunner().invoke(app, ["import", *map(str, arguments)], env={"COLUMNS": "200"})


def test_a_text_beside_the_audio_gets_phones_and_none_is_told(tmp_path: Path) -> None:
    TestFolders().corpus(tmp_path / "c")
    summary = import_corpus(READERS["folders"], tmp_path / "c", tmp_path / "m.jsonl", labels={}, language="en")
    lines = {(u.speaker, u.emotion): u for u in read_manifest(tmp_path / "m.jsonl", None)}
    assert lines["anna", "joy"].text == "the girls buy milk"
    assert "m" in lines["anna", "joy"].phones
    assert lines["ben", "joy"].phones == ("?",)
    assert summary.without_text == 2
    assert summary.seconds["joy"] == pytest.approx(0.6)
    assert summary.speakers["joy"] == {"anna", "ben"}


def test_every_fault_is_skipped_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write_tone(folder / "anna/joy/good.wav")
    write_tone(folder / "anna/joy/twin.wav")
    write_tone(folder / "anna/joy/slow.wav", rate=8000)
    write_tone(folder / "anna/joy/mute.wav", 300)
    (folder / "anna/joy/mute.txt").write_text("...")
    write_tone(folder / "loose.wav", 400)
    (folder / "anna/joy/.hidden.wav").write_bytes(b"")
    (folder / "anna/joy/text.wav").write_bytes(b"text")
    soundfile.write(folder / "anna/joy/silent.wav", np.zeros(100), 16000)
    soundfile.write(folder / "anna/joy/empty.wav", np.zeros(0), 16000)
    summary = import_corpus(READERS["folders"], folder, tmp_path / "m.jsonl", labels={}, language="en")
    assert summary.utterances == {"joy": 1}
    reasons = {Path(entry.entry).stem: entry.reason for entry in summary.skipped}
    assert reasons == {
        "mute": "espeak-ng finds no phones in the text",
        "twin": "the same bytes as another file",
        "slow": "sampled at 8000 Hz, needs 16000",
        "loose": "not in a folder named after an emotion",
        "text": "not readable as audio",
        "silent": "silent",
        "empty": "the audio file is empty",
    }


def test_odd_files_are_converted_or_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joy = tmp_path / "c/anna/joy"
    write_tone(joy / "stereo at 48 kHz.WAV", 210, rate=48000)
    mono, rate = soundfile.read(joy / "stereo at 48 kHz.WAV")
    soundfile.write(joy / "stereo at 48 kHz.WAV", np.stack([mono, mono], 1), rate)
    write_tone(joy / "Ärger 怒 \n.wav", 220)
    write_tone(joy / "three.flac", 230)
    write_tone(joy / "whole.wav", 240)
    content = (joy / "whole.wav").read_bytes()
    (joy / "truncated.wav").write_bytes(content[:3000])
    (joy / "piped.wav").write_bytes(content[:40] + b"\xff\xff\xff\xff" + content[44:6000])
    (joy / "header.wav").write_bytes(content[:20])
    write_tone(joy / "broken.flac", 250)
    (joy / "broken.flac").write_bytes((joy / "broken.flac").read_bytes()[:-500])
    write_tone(joy / "huge.wav", 260, seconds=61)
    antiphase = np.stack([mono, -mono], 1)
    soundfile.write(joy / "antiphase.wav", antiphase, rate)
    soundfile.write(joy / "faint.wav", 1e-4 * mono, rate, subtype="FLOAT")
    soundfile.write(joy / "infinite.wav", np.full(800, np.inf), 16000, subtype="FLOAT")
    (joy / "folder.wav").mkdir()
    (joy / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    write_tone(tmp_path / "bytes.wav", 270)
    odd = os.fsencode(joy) + b"/\xff.wav"
    os.rename(os.fsencode(tmp_path / "bytes.wav"), odd)
    summary = import_corpus(READERS["folders"], tmp_path / "c", tmp_path / "m.jsonl", labels={}, language="en")
    reasons = {Path(entry.entry).stem: entry.reason for entry in summary.skipped}
    assert reasons == {
        "truncated": "truncated",
        "header": "not readable as audio",
        "broken": "not readable as audio",
        "huge": "longer than 60 s",
        "antiphase": "silent",
        "faint": "silent",
        "infinite": "holds NaN or infinite samples",
        "dangling": "not a regular file",
        "folder": "not a regular file",
        "?": "its name is not UTF-8",
    }
    used = {Path(u.audio or "").name for u in read_manifest(tmp_path / "m.jsonl", None)}
    assert used == {"stereo at 48 kHz.WAV", "Ärger 怒 \n.wav", "three.flac", "whole.wav", "piped.wav"}
    assert run("folders", tmp_path / "c", "--out", tmp_path / "m.jsonl", "--language", "en").exit_code == 0


def test_the_same_audio_has_the_same_checksum_wherever_it_lies(tmp_path: Path) -> None:
    TestFolders().corpus(tmp_path / "c")
    TestFolders().corpus(tmp_path / "d")

    def checksum(name: str) -> str:
        summary = import_corpus(READERS["folders"], tmp_path / name, tmp_path / "m.jsonl", labels={}, language="en")
        return summary.checksum

    first = checksum("c")
    assert first == checksum("d")
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert len({json.loads(line)["sha256"] for line in lines}) == len(lines) == 3
    write_tone(tmp_path / "d/anna/joy/1.wav", 999)
    assert first != checksum("d")


def test_loudness_is_one_gain_a_speaker(tmp_path: Path) -> None:
    for speaker, scale in (("anna", 1.0), ("ben", 0.1)):
        for label, level in (("anger", 0.4), ("sadness", 0.1)):
            folder = tmp_path / "c" / speaker / label
            folder.mkdir(parents=True)
            wave = level * scale * np.sin(2 * np.pi * 200 * np.arange(48000) / 48000)
            soundfile.write(folder / "1.wav", np.stack([wave, wave], 1), 48000, subtype="FLOAT")
    out = tmp_path / "m.jsonl"
    for _ in range(2):
        result = run("folders", tmp_path / "c", "--out", out, "--language", "en", "--loudness", "-20")
        assert result.exit_code == 0, result.output
    assert f"wrote converted copies to {tmp_path / 'm.audio'}" in result.output
    assert len(list((tmp_path / "m.audio").iterdir())) == 4
    power = {}
    for utterance in read_manifest(out, None):
        wave, rate = soundfile.read(str(utterance.audio))
        assert (rate, wave.ndim) == (16000, 1)
        power[utterance.speaker, utterance.emotion] = float(np.mean(wave**2))
    for speaker in ("anna", "ben"):
        angry, sad = power[speaker, "anger"], power[speaker, "sadness"]
        assert 10 * np.log10((angry + sad) / 2) == pytest.approx(-20, abs=0.05)
        assert angry / sad == pytest.approx(16, rel=0.01), "who shouts still shouts"


@pytest.mark.parametrize("level", ["nan", "inf", "3", "-300"])
def test_a_loudness_that_is_no_level_is_refused(tmp_path: Path, level: str) -> None:
    TestFolders().corpus(tmp_path / "c")
    result = run("folders", tmp_path / "c", "--out", tmp_path / "m.jsonl", "--language", "en", "--loudness", level)
    assert (result.exit_code, "--loudness takes a level in dBFS from -100 to 0" in result.output) == (2, True)
    assert not (tmp_path / "m.jsonl").exists()


def test_a_copy_that_cannot_be_written_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"RIFF")
        raise soundfile.LibsndfileError(2, "No space left: ")

    TestFolders().corpus(tmp_path / "c")
    monkeypatch.setattr(importing.soundfile, "write", full)
    result = run("folders", tmp_path / "c", "--out", tmp_path / "m.jsonl", "--language", "en", "--loudness", "-20")
    assert (result.exit_code, "cannot be converted to" in result.output) == (2, True), result.output
    assert list((tmp_path / "m.audio").iterdir()) == []


def test_labels_that_are_in_no_map_are_counted_and_left_out(tmp_path: Path) -> None:
    TestFolders().corpus(tmp_path / "c")
    (tmp_path / "map.json").write_text('{"joy": "happy", "fear": "fearful"}')
    out = tmp_path / "m.jsonl"
    result = run("folders", tmp_path / "c", "--out", out, "--labels", tmp_path / "map.json", "--language", "en")
    assert result.exit_code == 0, result.output
    rows = {cells[1]: cells[2:4] for line in result.output.splitlines() if len(cells := line.split("│")) > 4}
    assert {name.strip(): [cell.strip() for cell in cells] for name, cells in rows.items()} == {
        "joy": ["happy", "2"],
        "fear": ["fearful", "0"],
        "anger": ["(not in the map, left out)", "1"],
    }
    assert {u.emotion for u in read_manifest(out, ["happy"])} == {"happy"}
    assert f"wrote 2 lines to {out}" in result.output


def test_splits_are_by_speaker_and_stay_as_they_are() -> None:
    speakers = {f"s{i}" for i in range(20)}
    split_of = assign(speakers, {"train": 0.8, "valid": 0.1, "test": 0.1}, 0)
    assert [sum(split == name for split in split_of.values()) for name in ("train", "valid", "test")] == [16, 2, 2]
    assert split_of == assign(set(sorted(speakers, reverse=True)), {"train": 0.8, "valid": 0.1, "test": 0.1}, 0)
    assert split_of != assign(speakers, {"train": 0.8, "valid": 0.1, "test": 0.1}, 1)
    with_new = assign(speakers | {"new"}, {"train": 0.8, "valid": 0.1, "test": 0.1}, 0)
    assert sum(with_new[name] != split for name, split in split_of.items()) <= 2, (
        "a new speaker moves those at the cuts alone"
    )
    assert sorted(assign({"a", "b"}, {"train": 0.99, "test": 0.01}, 0).values()) == ["test", "train"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch", "c", "--out", "m.jsonl"], "no corpus reader named 'nosuch'; there are esd, casia, crema-d"),
        (["folders", "none", "--out", "m.jsonl"], "none: no such folder"),
        (["folders", "list.json", "--out", "m.jsonl"], "list.json: a file; give the folder"),
        (["emodb", "c", "--out", "m.jsonl"], "or use the reader of its layout"),
        (["folders", "c", "--out", "c", "--language", "en"], "c: a folder, not a manifest to write; give a file"),
        (["folders", "c", "--out", "list.json/m.jsonl", "--language", "en"], "check the path, its permissions"),
        (["folders", "c", "--out", "m.jsonl"], "does not give the language; set --language"),
        (["folders", "c", "--out", "m.jsonl", "--labels", "none.json"], "none.json cannot be read"),
        (["folders", "c", "--out", "m.jsonl", "--labels", "list.json"], "is not a label map"),
        (["folders", "c", "--out", "m.jsonl", "--labels", "map.json", "--language", "en"], "the corpus has joy (2)"),
        (["folders", "c", "--out", "m.jsonl", "--language", "en", "--split", "train"], "--split takes NAME=SHARE"),
        (["folders", "c", "--out", "m.jsonl", "--language", "en", "--split", "train=.5"], "that add up to 1"),
        (["folders", "no folder", "--out", "m.jsonl", "--language", "en", "--split", "train=.5"], "that add up to 1"),
        (
            [
                "folders",
                "c",
                "--out",
                "m.jsonl",
                "--language",
                "en",
                *("--split", "a=.4", "--split", "b=.3", "--split", "c=.3"),
            ],
            "2 speaker(s) are too few for 3 splits",
        ),
        (["folders", "c", "--out", "m.jsonl", "--plugin", "none.py"], "plugin file not found"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    TestFolders().corpus(tmp_path / "c")
    Path("list.json").write_text("[1]")
    Path("map.json").write_text(json.dumps({"bliss": "happy"}))
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not [path for path in tmp_path.iterdir() if "m.jsonl" in path.name]


def test_a_failed_import_leaves_the_manifest_of_before(tmp_path: Path) -> None:
    out = tmp_path / "m.jsonl"
    out.write_text("before")
    (tmp_path / "c").mkdir()
    with pytest.raises(ManifestError, match="no audio file below it"):
        import_corpus(READERS["folders"], tmp_path / "c", out, labels={}, language="en")
    assert out.read_text() == "before"


def test_an_interrupted_import_leaves_the_manifest_of_before_and_starts_over(tmp_path: Path) -> None:
    TestFolders().corpus(tmp_path / "c")
    out = tmp_path / "m.jsonl"
    out.write_text("before")

    def stop(summary: Summary) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_corpus(READERS["folders"], tmp_path / "c", out, labels={}, language="en", report=stop)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "m.jsonl"]
    (tmp_path / ".m.jsonl.1").write_text("left by a killed import")
    summary = import_corpus(READERS["folders"], tmp_path / "c", out, labels={}, language="en")
    assert len(out.read_text().splitlines()) == summary.utterances.total() > 1


def test_folds_test_every_speaker_once_and_train_on_the_others(tmp_path: Path) -> None:
    for index, speaker in enumerate("abcde"):
        write_tone(tmp_path / "c" / speaker / "joy" / "1.wav", 200 + 20 * index)
    result = run("folders", tmp_path / "c", "--out", tmp_path / "m.jsonl", "--language", "en", "--folds", 3)
    assert result.exit_code == 0, result.output
    speakers = {path.name: {u.speaker for u in read_manifest(path, None)} for path in tmp_path.glob("m.fold*.jsonl")}
    tested = [speakers[f"m.fold{k}.test.jsonl"] for k in (1, 2, 3)]
    assert sorted(speaker for speakers in tested for speaker in speakers) == list("abcde")
    for k in (1, 2, 3):
        assert speakers[f"m.fold{k}.train.jsonl"] == set("abcde") - tested[k - 1]
    for arguments in (("--folds", 3, "--split", "a=1"), ("--folds", 1)):
        refused = run("folders", tmp_path / "c", "--out", tmp_path / "m.jsonl", *arguments)
        assert refused.exit_code == 2
        assert "--folds takes 2 or more, and no --split" in refused.output


def test_other_languages_are_left_out(tmp_path: Path) -> None:
    TestFolders().corpus(tmp_path / "c")
    result = run("folders", tmp_path / "c", "--out", tmp_path / "m.jsonl", "--language", "en", "--only", "de")
    assert result.exit_code == 2
    assert "3 x in another language" in result.output
