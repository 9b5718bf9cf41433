"""Readers of public corpora, each on a small stand-in with the layout, names and faults of the corpus."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from rrpo.corpus import espeak
from rrpo.corpus.importing import import_corpus
from rrpo.corpus.manifest import ManifestError, read_manifest
from rrpo.corpus.readers import READERS, Recording, Skipped
from rrpo.corpus.readers.hedgewars import CLASSES
from rrpo.corpus.readers.named import NamedFiles
from rrpo.testing.corpora import CorpusReaderContract, write_tone


def write_tones(folder: Path, *names: str, rate: int = 16000) -> None:
    """Write one file per name, each with a different tone."""
    for index, name in enumerate(names):
        write_tone(folder / name, 150 + 10 * index, rate=rate)


def read_entries(reader: str, folder: Path) -> dict[str, Recording | Skipped]:
    """Return the entries of a reader by file name without suffix."""
    entries = READERS[reader].read(folder)
    return {Path(entry.audio if isinstance(entry, Recording) else entry.entry).stem: entry for entry in entries}


def facts(entry: Recording | Skipped) -> tuple[str, ...]:
    """Return speaker, label, text and language, or the reason if the entry was skipped."""
    if isinstance(entry, Skipped):
        return (entry.reason,)
    return entry.speaker, entry.label, entry.text, entry.language


class TestEsd(CorpusReaderContract):
    reader = READERS["esd"]

    def corpus(self, folder: Path) -> None:
        write_tones(
            folder,
            "0001/Angry/0001_000351.wav",
            "0001/Neutral/0001_000001.wav",
            "0011/Happy/train/0011_000702.wav",
            "0011/Surprise/evaluation/0011_001402.wav",
            "0011/Sad/test/0011_001052.wav",
            "0011/Sad/test/notes.wav",
        )
        mandarin = "0001_000351\t打远一看。\t生气\n0001_000001\t打远一看。\t中立\n"
        (folder / "0001/0001.txt").write_text(mandarin, encoding="gb18030")
        english = "0011_000702\tThe nine the eggs, I keep.\tHappy \n0011_001402\tI did go.\tSurprise\n0011_001052\tNo.\tHappy\n"
        (folder / "0011/0011.txt").write_text(english, encoding="utf-16")

    def test_texts_languages_and_labels(self, written: Path) -> None:
        entries = read_entries("esd", written)
        assert facts(entries["0001_000351"]) == ("0001", "Angry", "打远一看。", "cmn")
        assert facts(entries["0001_000001"]) == ("0001", "Neutral", "打远一看。", "cmn")
        assert facts(entries["0011_000702"]) == ("0011", "Happy", "The nine the eggs, I keep.", "en")
        assert facts(entries["0011_001402"]) == ("0011", "Surprise", "I did go.", "en")
        assert facts(entries["0011_001052"]) == ("its folder and the speaker's text file name different emotions",)
        assert "its name is not" in facts(entries["notes"])[0]

    def test_chinese_labels_serve_where_folders_tell_nothing(self, tmp_path: Path) -> None:
        write_tones(tmp_path, "wav/0002_000351.wav", "wav/0003_000001.wav")
        (tmp_path / "0002.txt").write_text("0002_000351\t打远一看\t惊喜\n", encoding="utf-8-sig")
        entries = read_entries("esd", tmp_path)
        assert facts(entries["0002_000351"]) == ("0002", "Surprise", "打远一看", "cmn")
        assert facts(entries["0003_000001"]) == ("0003", "wav", "", "cmn")


class TestRavdess(CorpusReaderContract):
    reader = READERS["ravdess"]

    def corpus(self, folder: Path) -> None:
        write_tones(
            folder,
            "Actor_01/03-01-05-01-01-01-01.wav",
            "Actor_01/03-01-02-01-02-01-01.wav",
            "Actor_12/03-01-03-02-02-02-12.WAV",
            "Actor_12/03-02-03-02-02-02-12.wav",
            rate=48000,
        )

    def test_numbers(self, written: Path) -> None:
        entries = read_entries("ravdess", written)
        assert facts(entries["03-01-05-01-01-01-01"]) == ("01", "angry", "Kids are talking by the door.", "en")
        assert facts(entries["03-01-02-01-02-01-01"]) == ("01", "calm", "Dogs are sitting by the door.", "en")
        assert facts(entries["03-01-03-02-02-02-12"])[:2] == ("12", "happy")
        assert facts(entries["03-02-03-02-02-02-12"]) == (
            "a song, or its name is not seven numbers joined by hyphens, such as 03-01-05-01-02-01-12",
        )


class TestCremaD(CorpusReaderContract):
    reader = READERS["crema-d"]

    def corpus(self, folder: Path) -> None:
        write_tones(
            folder,
            "AudioWAV/1001_IEO_ANG_HI.wav",
            "AudioWAV/1002_MTI_FEA_XX.wav",
            "AudioWAV/1002_MTI_DIS_XX.wav",
            "AudioWAV/1076_MTI_SAD_XX.wav",
        )

    def test_codes_and_the_silent_file(self, written: Path, tmp_path: Path) -> None:
        entries = read_entries("crema-d", written)
        assert facts(entries["1001_IEO_ANG_HI"]) == ("1001", "ANG", "It's eleven o'clock.", "en")
        assert facts(entries["1002_MTI_FEA_XX"]) == ("1002", "FEA", "Maybe tomorrow it will be cold.", "en")
        noise = np.random.default_rng(0).integers(-1, 2, 16000).astype(np.int16)
        soundfile.write(written / "AudioWAV/1076_MTI_SAD_XX.wav", noise, 16000)
        summary = import_corpus(self.reader, written, tmp_path / "m.jsonl", labels=self.reader.labels)
        assert [(Path(entry.entry).stem, entry.reason) for entry in summary.skipped] == [("1076_MTI_SAD_XX", "silent")]
        assert summary.unmapped == {"DIS": 1}


class TestEmoDb(CorpusReaderContract):
    reader = READERS["emodb"]

    def corpus(self, folder: Path) -> None:
        write_tones(folder, "wav/03a01Wa.wav", "wav/08b09Fb.wav", "wav/16a07La.wav", "wav/16a07.wav")

    def test_letters(self, written: Path) -> None:
        entries = read_entries("emodb", written)
        assert facts(entries["03a01Wa"]) == ("03", "anger", "Der Lappen liegt auf dem Eisschrank.", "de")
        assert facts(entries["08b09Fb"])[:2] == ("08", "happiness")
        assert facts(entries["16a07La"])[:2] == ("16", "boredom")
        assert "its name is not" in facts(entries["16a07"])[0]


class TestIemocap(CorpusReaderContract):
    reader = READERS["iemocap"]

    def corpus(self, folder: Path) -> None:
        wavs = "Session1/sentences/wav"
        write_tones(
            folder,
            f"{wavs}/Ses01F_impro01/Ses01F_impro01_F000.wav",
            f"{wavs}/Ses01F_impro01/Ses01F_impro01_M000.wav",
            f"{wavs}/Ses01F_impro01/Ses01F_impro01_MXX0.wav",
            f"{wavs}/Ses01M_script01_1/Ses01M_script01_1_F001.wav",
            f"{wavs}/Ses01M_script01_1/Ses01M_script01_1_M002.wav",
            "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav",
            "Session2/dialog/wav/Ses02F_impro01.wav",
        )
        for session, dialog, lines in (
            (1, "Ses01F_impro01", (("F000", "neu"), ("M000", "exc"))),
            (1, "Ses01M_script01_1", (("F001", "xxx"), ("M002", "ang"))),
            (2, "Ses02F_impro01", (("F000", "sad"),)),
        ):
            place = folder / f"Session{session}/dialog"
            for name in ("EmoEvaluation", "transcriptions"):
                (place / name).mkdir(parents=True, exist_ok=True)
            blocks = [
                f"[6.2901 - 8.2357]\t{dialog}_{actor}\t{label}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
                for actor, label in lines
            ]
            head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            (place / f"EmoEvaluation/{dialog}.txt").write_text(head + "\n".join(blocks))
        texts = "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me. [LAUGHTER] Yeah.\nM: what\n"
        (folder / "Session1/dialog/transcriptions/Ses01F_impro01.txt").write_text(texts)

    def test_speakers_labels_and_texts(self, written: Path, tmp_path: Path) -> None:
        entries = read_entries("iemocap", written)
        assert facts(entries["Ses01F_impro01_F000"]) == ("Ses01F", "neu", "Excuse me. Yeah.", "en")
        assert facts(entries["Ses01F_impro01_M000"]) == ("Ses01M", "exc", "", "en")
        assert facts(entries["Ses01M_script01_1_F001"])[:2] == ("Ses01F", "xxx")
        assert facts(entries["Ses01F_impro01_MXX0"]) == ("no label in EmoEvaluation",)
        assert facts(entries["Ses02F_impro01_F000"])[:2] == ("Ses02F", "sad")
        assert "Ses02F_impro01" not in entries, "the dialog's own recording"
        import_corpus(self.reader, written, tmp_path / "m.jsonl", labels=self.reader.labels)
        assert {(u.speaker, u.emotion) for u in read_manifest(tmp_path / "m.jsonl", None)} == {
            ("Ses01F", "neutral"),
            ("Ses01M", "happy"),
            ("Ses01M", "angry"),
            ("Ses02F", "sad"),
        }

    def test_audio_without_evaluations_is_refused(self, tmp_path: Path) -> None:
        write_tones(tmp_path, "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav")
        with pytest.raises(ManifestError, match="EmoEvaluation"):
            list(self.reader.read(tmp_path))


class TestCasia(CorpusReaderContract):
    reader = READERS["casia"]

    def corpus(self, folder: Path) -> None:
        write_tones(folder, "liuchanhg/angry/201.wav", "wangzhe/surprise/202.wav", "wangzhe/surprise/read me.wav")
        (folder / "wangzhe/surprise/202.txt").write_text("就是下雨也去", encoding="gb18030")

    def test_folders(self, written: Path) -> None:
        entries = read_entries("casia", written)
        assert facts(entries["201"]) == ("liuchanhg", "angry", "", "cmn")
        assert facts(entries["202"]) == ("wangzhe", "surprise", "就是下雨也去", "cmn")
        assert "not a number" in facts(entries["read me"])[0]


class TestSavee(CorpusReaderContract):
    reader = READERS["savee"]

    def corpus(self, folder: Path) -> None:
        write_tones(folder, "DC_a01.wav", "JE_sa03.wav", "JE_su03.wav", "KL/n30.wav", "KL/d02.wav", rate=44100)

    def test_letters(self, written: Path) -> None:
        entries = read_entries("savee", written)
        assert facts(entries["DC_a01"]) == ("DC", "anger", "", "en")
        assert facts(entries["JE_sa03"])[:2] == ("JE", "sadness")
        assert facts(entries["JE_su03"])[:2] == ("JE", "surprise")
        assert facts(entries["n30"])[:2] == ("KL", "neutral")
        assert facts(entries["d02"])[:2] == ("KL", "disgust")


class TestEmovo(CorpusReaderContract):
    reader = READERS["emovo"]

    def corpus(self, folder: Path) -> None:
        write_tones(folder, "f1/gio-f1-b1.wav", "m2/rab-m2-l1.wav", "m2/dis-m2-d2.wav", rate=48000)

    def test_italian_words_and_sentences(self, written: Path, tmp_path: Path) -> None:
        entries = read_entries("emovo", written)
        assert facts(entries["gio-f1-b1"]) == ("f1", "joy", "Gli operai si alzano presto.", "it")
        assert facts(entries["rab-m2-l1"])[:2] == ("m2", "anger")
        assert facts(entries["dis-m2-d2"])[:2] == ("m2", "disgust")


@pytest.mark.parametrize("name", ["ravdess", "crema-d", "emodb", "emovo"])
def test_every_fixed_sentence_has_phones(name: str) -> None:
    reader = READERS[name]
    assert isinstance(reader, NamedFiles)
    assert all(len(phones) > 5 for phones in espeak.phones(list(reader.sentences.values()), reader.language))


class TestHedgewars(CorpusReaderContract):
    reader = READERS["hedgewars"]

    def corpus(self, folder: Path) -> None:
        write_tones(
            folder,
            "Pirate/Traitor.ogg",
            "Pirate/Ow3.ogg",
            "Default_pl/Uh-oh.ogg",
            "Default_pl/Jump1.ogg",
            rate=44100,
        )

    def test_barks(self, written: Path) -> None:
        entries = read_entries("hedgewars", written)
        assert facts(entries["Traitor"]) == ("Pirate", "Traitor", "", "en")
        assert facts(entries["Ow3"]) == ("Pirate", "Ow", "", "en")
        assert facts(entries["Uh-oh"]) == ("Default_pl", "Uh-oh", "", "pl")
        assert self.reader.labels["Ow"] == "pained"
        assert "Jump" not in self.reader.labels

    def test_no_bark_is_in_two_classes(self) -> None:
        assert max(Counter(bark for barks in CLASSES.values() for bark in barks).values()) == 1


def hugging_face_table(rows: list[dict[str, object]], names: list[str]) -> pa.Table:
    """Return a table in the format of ``datasets``, with its features described in the schema's metadata."""
    schema = pa.schema(
        [
            ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("emotion", pa.int64()),
            ("speaker_id", pa.int64()),
            ("transcription", pa.string()),
        ]
    )
    features = {
        "audio": {"sampling_rate": 16000, "_type": "Audio"},
        "emotion": {"names": names, "_type": "ClassLabel"},
        "speaker_id": {"dtype": "int64", "_type": "Value"},
        "transcription": {"dtype": "string", "_type": "Value"},
    }
    described = json.dumps({"info": {"features": features}}).encode()
    return pa.Table.from_pylist(rows, schema.with_metadata({b"huggingface": described}))


def sound(pitch: float) -> bytes:
    """Return a tone as the bytes of a FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(4800) * pitch / 1000), 16000, format="FLAC")
    return file.getvalue()


class TestHuggingFace(CorpusReaderContract):
    reader = READERS["hugging-face"]

    def corpus(self, folder: Path) -> None:
        rows = [
            {
                "audio": {"bytes": sound(30 + 10 * row), "path": f"{row}.flac"},
                "emotion": row % 3,
                "speaker_id": row // 3,
                "transcription": "hello",
            }
            for row in range(6)
        ]
        table = hugging_face_table(rows, ["anger", "joy", "boredom"])
        (folder / "train").mkdir()
        file = pa.OSFile(str(folder / "train/data-00000-of-00001.arrow"), "wb")
        with file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        (folder / "train/cache-1234.arrow").write_bytes(b"a cache")
        (folder / "wavs").mkdir()
        write_tone(folder / "wavs/7.wav", 500)
        more: list[dict[str, object]] = [
            {"audio": {"path": "wavs/7.wav"}, "emotion": 0, "speaker_id": 9, "transcription": None},
            {"audio": {"path": "wavs/8.wav"}, "emotion": 0, "speaker_id": 9, "transcription": None},
            {"audio": {"path": "wavs/7.wav"}, "emotion": None, "speaker_id": 9, "transcription": None},
        ]
        pq.write_table(hugging_face_table(more, ["anger", "joy", "boredom"]), folder / "more.parquet")

    def test_rows(self, written: Path) -> None:
        entries = list(self.reader.read(written))
        assert [facts(entry) for entry in entries] == [
            ("0", "anger", "hello", ""),
            ("0", "joy", "hello", ""),
            ("0", "boredom", "hello", ""),
            ("1", "anger", "hello", ""),
            ("1", "joy", "hello", ""),
            ("1", "boredom", "hello", ""),
            ("9", "anger", "", ""),
            ("no sound in the row, and no such file",),
            ("no label",),
        ]
        audio = [entry.audio for entry in entries if isinstance(entry, Recording)]
        assert {path.parent for path in audio[:6]} == {written.with_name("corpus.audio")}
        assert audio[0].read_bytes() == sound(30)
        assert audio[6] == written / "wavs/7.wav"

    def test_a_table_that_breaks_off_is_told(self, written: Path) -> None:
        file = written / "train/data-00000-of-00001.arrow"
        file.write_bytes(file.read_bytes()[:-3000])
        entries = list(self.reader.read(written))
        assert [entry.reason for entry in entries if isinstance(entry, Skipped)][:1] == [
            "the rest of a table cannot be read"
        ]
        assert "9" in {entry.speaker for entry in entries if isinstance(entry, Recording)}

    def test_audio_without_a_path_is_bytes_or_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "corpus").mkdir()
        table = pa.table({"audio": [sound(30), b""], "emotion": ["joy", "joy"]})
        pq.write_table(table, tmp_path / "corpus" / "bytes.parquet")
        pq.write_table(pa.table({"audio": [[0.1, 0.2]], "emotion": ["joy"]}), tmp_path / "corpus" / "samples.parquet")
        recording, *skipped = self.reader.read(tmp_path / "corpus")
        assert isinstance(recording, Recording)
        assert recording.audio.read_bytes() == sound(30)
        assert [facts(entry) for entry in skipped] == 2 * [("no sound in the row, and no such file",)]

    def test_text_that_is_not_utf8_ends_a_table_and_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "corpus").mkdir()
        text = pa.array([b"joy", b"\xff"]).view(pa.string())
        pq.write_table(pa.table({"audio": [b"", b""], "emotion": text}), tmp_path / "corpus" / "a.parquet")
        (entry,) = self.reader.read(tmp_path / "corpus")
        assert isinstance(entry, Skipped)
        assert entry.reason == "the rest of a table cannot be read"

    def test_audio_that_cannot_be_written_is_no_fault_of_the_table(self, written: Path) -> None:
        written.with_name("corpus.audio").write_text("a file where the folder would be")
        with pytest.raises(FileExistsError):
            list(self.reader.read(written))

    def test_a_table_without_emotions_is_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"audio": ["a.wav"], "intent": ["x"]}), tmp_path / "a.parquet")
        with pytest.raises(ManifestError, match=r"no column of emotions.*it has audio, intent"):
            list(self.reader.read(tmp_path))
