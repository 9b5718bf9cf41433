"""FSQ digits as a codec, and token files."""

import json
import math
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from rrpo.corpus.__main__ import app as importing
from rrpo.corpus.manifest import Utterance
from rrpo.cosyvoice import tokens
from rrpo.cosyvoice.__main__ import app
from rrpo.cosyvoice.extraction import SpeechTokenizer, extract, whisper_log_mel
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.errors import InputError
from rrpo.models.protocols import TokenCodec
from rrpo.models.signals import TOKEN_DIGITS
from rrpo.regularizers.energy_mixup import EnergyMixup
from rrpo.testing.codecs import CodecContract
from rrpo.testing.corpora import write_tone


class TestFsqDigits(CodecContract):
    make = FsqDigits
    speakers: ClassVar[tuple[str, str]] = ("anna", "ben")

    def test_the_speaker_changes_the_frames(self, codec: TokenCodec) -> None:
        """Not applicable: tokens have no voice."""
        inputs = self.tokens(codec)
        assert codec.speaker_index(["anna", "ben"]).tolist() == [0, 0]
        assert torch.equal(codec.decode(*inputs[:2], inputs[2] + 1)[0], codec.decode(*inputs)[0])

    def test_an_unknown_speaker_is_rejected(self, codec: TokenCodec) -> None:
        """There are no speakers: the digits are the same for every speaker."""
        assert codec.speaker_index(["no-such-speaker"]).tolist() == [0]


def test_digits_by_hand() -> None:
    """0 is all -1; 6560 all +1; 5 = 2 + 1 x 3: +1, 0, then -1."""
    codec = FsqDigits()
    assert codec.codebook[0].tolist() == [-1.0] * 8
    assert codec.codebook[6560].tolist() == [1.0] * 8
    assert codec.codebook[5].tolist() == [1.0, 0.0] + [-1.0] * 6
    ids = torch.arange(6561)[None]
    F, lengths = codec.decode(ids, torch.tensor([6561]), torch.tensor([0]))
    assert torch.equal(codec.encode(F, lengths)[0], ids)


def test_relaxed_tokens_give_expected_digits() -> None:
    """Half of 0 and half of 6560 is 0 everywhere."""
    relaxed = torch.zeros(1, 1, 6561)
    relaxed[0, 0, [0, 6560]] = 0.5
    F, _ = FsqDigits().decode(relaxed, torch.tensor([1]), torch.tensor([0]))
    assert F.tolist() == [[[0.0] * 8]]


def test_tokens_are_mixed_by_their_share_of_the_power() -> None:
    """At 0 dB a token is half the partner's; at 10 log10(3) dB three quarters. The mixture is a relaxed token's digits."""
    codec = FsqDigits()
    F, lengths = codec.decode(torch.tensor([[0, 0], [6560, 6560]]), torch.tensor([2, 2]), torch.tensor([0, 0]))
    for ratio, share in ((1.0, 0.5), (3.0, 0.75)):
        decibels = 10 * math.log10(ratio)
        mix = EnergyMixup(mix_probability=1.0, mix_db_low=decibels, mix_db_high=decibels)
        draws = torch.full((2, 6), 0.1)  # segments of one token, at the start
        mixture = mix.mixture(F, lengths, draws, codec.audio.floor, TOKEN_DIGITS)
        relaxed = torch.zeros(1, 2, 6561)
        relaxed[0, 0, 0], relaxed[0, 0, 6560], relaxed[0, 1, 0] = 1 - share, share, 1.0
        expected, _ = codec.decode(relaxed, torch.tensor([2]), torch.tensor([0]))
        assert torch.allclose(mixture.F[0], expected[0], atol=1e-6)
        assert mixture.weight.tolist() == pytest.approx([share / 2] * 2)
        assert mixture.partner.tolist() == [1, 0]


ROWS = [
    {"utt": "b", "text": "go on", "spk": "ben", "emotion": "sad", "speech_token": [1, 2]},
    {"utt": "a", "text": "今天", "spk": "anna", "emotion": "happy", "speech_token": [0, 6560, 3]},
    {"utt": "c", "text": "too long", "spk": "anna", "emotion": "happy", "speech_token": []},
]


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def folder(path: Path) -> Path:
    """Write a folder in the format of CosyVoice's recipe, with labels."""
    path.mkdir()
    torch.save({row["utt"]: row["speech_token"] for row in ROWS}, path / "utt2speech_token.pt")
    for name, column in {"text": "text", "utt2spk": "spk", "utt2emotion": "emotion"}.items():
        (path / name).write_text("".join(f"{row['utt']} {row[column]}\n" for row in ROWS))
    return path


@pytest.mark.parametrize("kind", ["folder", "jsonl", "parquet", "tar"])
def test_every_kind_of_file_gives_the_same_utterances(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        path = folder(tmp_path / "data")
    elif kind == "jsonl":
        path = jsonl(tmp_path / "data.jsonl", ROWS)
    else:
        path = tmp_path / f"data.{kind}"
        pd.DataFrame(ROWS).assign(audio_data=b"").to_parquet(path)
    utterances = tokens.read(path)
    assert [(u.id, u.text, u.speaker, u.emotion, u.tokens) for u in utterances] == [
        ("b", "go on", "ben", "sad", (1, 2)),
        ("a", "今天", "anna", "happy", (0, 6560, 3)),
    ]
    assert utterances[0].prompt.phones == ("g", "o", "o", "n")
    assert tokens.read(path, ["sad"]) == utterances[:1]


def test_an_utterance_occurs_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)b: occurs 2 times.*occurs once"):
        tokens.read(jsonl(tmp_path / "twice.jsonl", [*ROWS, ROWS[0]]))


def test_what_is_wrong_is_listed(tmp_path: Path) -> None:
    bad = [{**ROWS[0], "speech_token": [1, 6561, -1]}, {k: v for k, v in ROWS[1].items() if k != "emotion"}]
    with pytest.raises(InputError) as caught:
        tokens.read(jsonl(tmp_path / "bad.jsonl", bad))
    assert "b: 2 ids are not codes, the first 6561" in str(caught.value)
    assert "a: no emotion" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"text": "(no text)"}, "b: no transcript"),
        ({"text": " "}, "b: no transcript"),
        ({"text": ["x"]}, "b: text is ['x'], not a string"),
        ({"emotion": 3}, "b: emotion is 3, not a string"),
    ],
)
def test_what_no_policy_can_learn_is_refused(tmp_path: Path, values: dict[str, object], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        tokens.read(jsonl(tmp_path / "bad.jsonl", [{**ROWS[0], **values}]))
    assert fault in str(caught.value)


def test_tables_may_have_tabs_and_several_blanks(tmp_path: Path) -> None:
    path = folder(tmp_path / "data")
    (path / "text").write_text("b\tgo  on\n\na   今天\nc too long\n\n", encoding="utf-8")
    assert [utterance.text for utterance in tokens.read(path)] == ["go  on", "今天"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "{", r"a.jsonl cannot be read.*\n.*line 1 is not a JSON object.*property name"),
        ("a.jsonl", "[]", "line 1 is not a JSON object"),
        ("a.csv", "", "unknown format"),
        ("missing.jsonl", None, r"cannot be read as labelled tokens\n.*No such file"),
        ("a.jsonl", "", "no usable utterance"),
        ("a.jsonl", '{"utt": "a", "text": "b", "spk": "c", "emotion": "d", "speech_token": 7}', "7, not a list of ids"),
        ("a.parquet", "PAR1", "cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        tokens.read(tmp_path / name)


def labelled(name: str) -> tuple[Utterance, list[int]]:
    """Return one utterance of a manifest and its tokens."""
    emotion = {"emotion": "sad", "true_emotion": "sad"}
    row = {"text": "go", "phones": ("g",), "speaker": "anna", "language": "en", "audio": "a.wav", "split": "a"}
    return Utterance(id=name, **row, **emotion), [1, 2]


@pytest.mark.parametrize(
    ("name", "message"), [("tokens.json", "a name that ends in .jsonl"), ("none/tokens.jsonl", "a writable folder")]
)
def test_where_tokens_cannot_be_written_none_is_extracted(tmp_path: Path, name: str, message: str) -> None:
    def extracted(present: Collection[str]) -> Iterator[tuple[Utterance, list[int]]]:
        pytest.fail("an utterance is extracted")
        yield labelled("a")

    with pytest.raises(InputError, match=message):
        tokens.write_labelled(tmp_path / name, extracted, "source")
    assert not list(tmp_path.iterdir())


def test_labelled_tokens_are_written_as_they_come(tmp_path: Path) -> None:
    path, partial = tmp_path / "tokens.jsonl", tmp_path / "tokens.jsonl.partial"
    path.write_text("of before")
    large = 1 << 16

    def extracted(present: Collection[str]) -> Iterator[tuple[Utterance, list[int]]]:
        assert not present
        utterance, ids = labelled("a")
        yield utterance, large * ids
        assert partial.stat().st_size >= large
        assert path.read_text() == "of before"
        yield labelled("b")

    assert tokens.write_labelled(path, extracted, "source") == 2
    assert [(u.id, u.emotion, len(u.tokens)) for u in tokens.read(path)] == [("a", "sad", 2 * large), ("b", "sad", 2)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("source", "extracted"), [("same", ["b", "c"]), ("other", ["a", "b", "c"])])
def test_an_interrupted_extraction_goes_on_if_its_source_is_the_same(
    tmp_path: Path, source: str, extracted: list[str]
) -> None:
    path, asked = tmp_path / "tokens.jsonl", []

    def interrupted(present: Collection[str]) -> Iterator[tuple[Utterance, list[int]]]:
        yield labelled("a")
        raise KeyboardInterrupt

    def others(present: Collection[str]) -> Iterator[tuple[Utterance, list[int]]]:
        for name in ("a", "b", "c"):
            if name not in present:
                asked.append(name)
                yield labelled(name)

    with pytest.raises(KeyboardInterrupt):
        tokens.write_labelled(path, interrupted, "same")
    partial = tmp_path / "tokens.jsonl.partial"
    partial.write_text(partial.read_text() + '{"utt": "b", "te')  # cut off
    assert tokens.write_labelled(path, others, source) == 3
    assert asked == extracted
    assert [u.id for u in tokens.read(path)] == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_without_labels_says_what_is_missing(tmp_path: Path) -> None:
    (folder(tmp_path / "data") / "utt2emotion").unlink()
    with pytest.raises(InputError, match="no utt2emotion"):
        tokens.read(tmp_path / "data")
    (tmp_path / "data" / "utt2emotion").write_text("a angry\n")
    (tmp_path / "data" / "utt2speech_token.pt").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read"):
        tokens.read(tmp_path / "data")


def test_whispers_spectrogram_of_a_tone() -> None:
    """A second has 100 frames of 128 bands in a range of 2; 1 kHz is 15 mel of Slaney's 45.245, so band 128 x 15 / 45.2 = 42."""
    time = torch.arange(16000) / 16000
    (mel,) = whisper_log_mel(torch.sin(2 * math.pi * 1000 * time))
    assert mel.shape == (128, 100)
    assert float(mel.max() - mel.min()) == pytest.approx(2.0)
    assert abs(int(mel[:, 50].argmax()) - 42) <= 1


def field(number: int, value: int | str | bytes) -> bytes:
    """Return one field of a protocol buffer."""

    def varint(n: int) -> bytes:
        return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(number: int, name: str, kind: int, *shape: int | str) -> bytes:
    """Return an input or output of a graph."""
    dims = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape)
    return field(number, field(1, name) + field(2, field(1, field(1, kind) + field(2, dims))))


def stand_in(path: Path) -> Path:
    """An ONNX file with the tokenizer's interface: the loudest band of every four frames; written by hand, byte for byte."""
    ints = [field(5, field(1, name) + field(20, 7) + field(8, 4)) for name in ("kernel_shape", "strides")]
    pool = field(1, "feats") + field(2, "pooled") + field(4, "AveragePool") + b"".join(ints)
    axis = [field(5, field(1, name) + field(20, 2) + field(3, i)) for name, i in (("axis", 1), ("keepdims", 0))]
    best = field(1, "pooled") + field(2, "indices") + field(4, "ArgMax") + b"".join(axis)
    graph = field(1, pool) + field(1, best) + field(2, "stand-in")
    graph += tensor(11, "feats", 1, 1, 128, "T") + tensor(11, "feats_length", 6, 1) + tensor(12, "indices", 7, 1, "N")
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return path


def test_labelled_audio_becomes_labelled_tokens(tmp_path: Path) -> None:
    """A second of 1 kHz at 24 kHz, in stereo: 25 tokens per second, each the tone's band; 31 s give none, broken files are
    reported."""
    pytest.importorskip("onnxruntime")
    time = torch.arange(31 * 24000) / 24000
    tone = torch.sin(2 * math.pi * 1000 * time)[:, None].expand(-1, 2).numpy()
    soundfile.write(tmp_path / "tone.wav", tone[:24000], 24000)
    soundfile.write(tmp_path / "long.wav", tone, 24000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    shutil.copy(tmp_path / "tone.wav", tmp_path / "untranscribed.wav")
    rows = [
        {
            "id": n,
            "audio": f"{n}.wav",
            "text": "(no text)" if n == "untranscribed" else "go",
            "speaker": "anna",
            "language": "en",
            "emotion": "sad",
            "phones": ["g"],
        }
        for n in ("tone", "long", "broken", "untranscribed")
    ]
    manifest, out = jsonl(tmp_path / "manifest.jsonl", rows), tmp_path / "tokens.jsonl"
    result = CliRunner().invoke(app, ["extract", str(stand_in(tmp_path / "t.onnx")), str(manifest), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "left out: utterance 'broken'" in result.output
    assert "long.wav: no tokens" in result.output
    assert "untranscribed.wav: no transcript" in result.output
    (utterance,) = tokens.read(out)
    assert (utterance.id, utterance.emotion, len(utterance.tokens)) == ("tone", "sad", 25)
    assert set(utterance.tokens[2:-2]) <= {41, 42, 43}


@pytest.mark.parametrize("broken", [3, 10])
def test_recordings_on_which_the_tokenizer_fails_are_left_out_until_it_fails_on_ten_in_a_row(
    tmp_path: Path, broken: int
) -> None:
    write_tone(tmp_path / "a.wav", 300.0, seconds=0.5)
    recordings = [replace(labelled(f"{i}")[0], audio=str(tmp_path / "a.wav")) for i in range(12)]
    asked, told, progress = [], [], []

    class Tokenizer:
        def __call__(self, audio: torch.Tensor) -> list[int]:
            asked.append(audio)
            if 2 <= len(asked) < 2 + broken:
                raise RuntimeError("out of memory")
            return [1]

    done = extract(Tokenizer(), recordings, told.append, progress.append)  # type: ignore[arg-type]
    if broken == 10:
        assert next(done)[0].id == "0"
        with pytest.raises(InputError, match=r"10 recordings in a row(.|\n)*out of memory"):
            next(done)
    else:
        assert [u.id for u, _ in done] == ["0", *map(str, range(4, 12))]
        assert progress[-1] == "12 recordings"
    assert len(told) == min(broken, 9)
    assert told[0] == f"left out: {tmp_path / 'a.wav'}: the tokenizer fails: out of memory"


def test_a_folder_of_recordings_becomes_a_table_of_arms(tmp_path: Path) -> None:
    """Import, token extraction, reward models, DiffRO with and without LS and Adv, and the table: all commands, on stand-ins."""
    pytest.importorskip("onnxruntime")
    corpus, manifest, rows, tiny = (str(tmp_path / name) for name in ("c", "m.jsonl", "tokens.jsonl", "tiny"))
    for i in range(12):
        wav = Path(corpus) / "anna" / ("angry", "sad")[i % 2] / f"{i}.wav"
        write_tone(wav, 200.0 + 30 * i, seconds=0.5)
        wav.with_suffix(".txt").write_text(["cat", "dog", "sun", "mat", "hat", "sea"][i // 2])
    train = f"train {tiny} {rows} --batch 2 --content 0 --max-tokens 4 --precision fp32 --steps 1 --reward-steps 1"
    for command, arguments in (
        (importing, f"import folders {corpus} --out {manifest} --language en"),
        (app, f"extract {stand_in(tmp_path / 't.onnx')} {manifest} --out {rows}"),
        (app, f"standin {tiny}"),
        (app, f"{train} --robust-steps 1 --sft-steps 1 --out {tmp_path / 'plain'} --arm diffro"),
        (app, f"{train} --robust-steps 1 --sft-steps 1 --out {tmp_path / 'robust'} --arm ls_adv"),
        (app, f"table {tmp_path / 'plain'} {tmp_path / 'robust'}"),
    ):
        done = CliRunner().invoke(command, arguments.split())
        assert done.exit_code == 0, done.output
    assert "plain (diffro)" in done.output
    assert "robust (ls_adv)" in done.output


def test_a_missing_or_damaged_onnx_file_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=r"speech_tokenizer_v2.onnx"):
        SpeechTokenizer(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="cannot be read as CosyVoice2's speech tokenizer"):
        SpeechTokenizer(tmp_path / "bad.onnx")
