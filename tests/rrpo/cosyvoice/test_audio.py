"""Decoding samples by an installed CosyVoice (here a package with its interface that makes tones), and judging them on audio."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rrpo.config import OFF, FinetuneConfig
from rrpo.corpus.manifest import Utterance, read_manifest, write_manifest
from rrpo.cosyvoice import standin, tokens
from rrpo.cosyvoice.__main__ import app
from rrpo.cosyvoice.audio import MANIFEST, CosyVoiceDecoder, acoustic_prompt, decode
from rrpo.cosyvoice.config import Source
from rrpo.cosyvoice.judging import judge
from rrpo.cosyvoice.reward import SHARES, split
from rrpo.cosyvoice.table import render
from rrpo.errors import InputError
from rrpo.judges.config import CONTENT
from rrpo.testing.corpora import write_tone

PITCHES = {"angry": 300, "happy": 900, "sad": 2000}
NEWER = ("self, source_speech_16k, prompt_wav, resample_rate", "soundfile.read(prompt_wav)[0]", "tts")
OLDER = ("self, source_speech_16k, prompt_speech_16k, resample_rate", "prompt_speech_16k[0].numpy()", "vc")
PACKAGE = """
import numpy as np, soundfile, torch
class Frontend:
    def frontend_vc({signature}):
        wave = {read}
        return dict(source_speech_token=None, flow_prompt_speech_token=torch.zeros(1, len(wave)), prompt_speech_feat=None,
                    flow_embedding=None, prompt_speech_feat_len=None)
class Model:
    def tts(self, text=None, **kwargs):
        raise AssertionError("no text is spoken")
    def {name}(self, source_speech_token, flow_prompt_speech_token, prompt_speech_feat, flow_embedding, stream, speed):
        assert flow_prompt_speech_token.shape[1] == 8000
        digit = int((source_speech_token[0] % 3).mode().values)
        pitch, n = (300, 900, 2000)[digit], 960 * source_speech_token.shape[1]
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(n) / 24000)
        yield dict(tts_speech=torch.from_numpy(wave[: n // 2])[None])
        yield dict(tts_speech=torch.from_numpy(wave[n // 2 :])[None])
class CosyVoice2:
    sample_rate = 24000
    def __init__(self, folder):
        open(folder + "/flow.pt").close()
        self.frontend, self.model = Frontend(), Model()
"""


@pytest.fixture(params=[NEWER, OLDER], ids=["newer", "older"])
def release(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a release's folder, with a package of CosyVoice's interface on the path."""
    signature, read, name = request.param
    package = tmp_path / "path" / "cosyvoice" / "cli"
    package.mkdir(parents=True)
    (package / "cosyvoice.py").write_text(PACKAGE.format(signature=signature, read=read, name=name))
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setattr("rrpo.cosyvoice.audio.present", lambda name: True)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "flow.pt").touch()
    yield tmp_path / "release"
    for module in [name for name in sys.modules if name.split(".")[0] == "cosyvoice"]:
        del sys.modules[module]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder with labelled tokens and the manifest of their recordings, tones whose pitch is the emotion's."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    for index, u in enumerate(tokens.read(standin.write_corpus(folder / "tokens.jsonl", 60))):
        write_tone(folder / f"{u.id}.wav", PITCHES[u.emotion] * (1 + 0.001 * index), seconds=0.5, rate=16000)
        rows.append(utterance(id=u.id, text=u.text, emotion=u.emotion, audio=f"{u.id}.wav"))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def utterance(**values: str) -> Utterance:
    emotion = {"true_emotion": values["emotion"]}
    row = {"text": "a", "speaker": "anna", "audio": "a.wav"} | values | emotion
    return Utterance(phones=("a",), language="en", split="manifest", **row)


def finished(folder: Path, trained_on: Path, samples: dict[str, list[int]], **changes: Any) -> Path:
    """Write what `judge` and `decode` read of a finished run."""
    folder.mkdir()
    settings = {"pretrain": {"seed": 0}, "optimize": {"final_prompts": 1200}, "emotions": None} | changes
    settings = {"corpus": {"digest": Source.of(trained_on / "tokens.jsonl").digest}} | settings
    tokens.write(folder / tokens.SAMPLES, samples)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "scalars.json").write_text(json.dumps({"end_val_accuracy": 0.75}))
    return folder


@pytest.mark.parametrize("release", [NEWER], indirect=True)
def test_samples_are_decoded_and_judged_on_audio(
    release: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run speaks the recordings' tokens, the other those of the next emotion: recalls near 1 and 0."""
    monkeypatch.setitem(CONTENT, "whisper", ())
    monkeypatch.setattr("rrpo.judges.naturalness.predicted", lambda measure, waves, rate: np.array([3.0]))
    monkeypatch.setattr("rrpo.judges.naturalness.available", lambda: True)
    monkeypatch.setattr("rrpo.judges.content.whisper", lambda language: lambda wave: ["a", "b"])
    *_, evaluated = split(tokens.read(corpus / "tokens.jsonl"), list(SHARES.values()), 0)
    samples = {row.id: list(row.tokens) for row in evaluated}
    wrong = {name: [token + 1 if token % 3 < 2 else token - 2 for token in row] for name, row in samples.items()}
    first = next(iter(wrong))
    runs = [finished(tmp_path / "right", corpus, samples), finished(tmp_path / "wrong", corpus, {**wrong, first: []})]
    run, manifest = CliRunner().invoke, str(corpus / "manifest.jsonl")
    for folder in runs:
        result = run(app, ["decode", str(release), str(folder), manifest])
        assert result.exit_code == 0, result.output
    assert f"{first}: left out" in result.output
    result = run(app, ["decode", str(release), str(runs[1]), manifest, "--recordings", str(corpus / "tokens.jsonl")])
    assert result.exit_code == 0, result.output
    table = judge(
        corpus / "tokens.jsonl", corpus / "manifest.jsonl", runs, FinetuneConfig(steps=60, lr=1e-3, regularizers=OFF)
    )
    right, wrong_run = map(str, runs)
    assert table.index.tolist() == ["recordings", right, wrong_run, f"{wrong_run}: recordings, decoded"]
    assert table["samples"].tolist() == [len(samples), len(samples), len(samples) - 1, len(samples)]
    assert table["audio judge"].round().tolist() == [1, 1, 0, 1]
    assert (table["token judge"] == 0.75).tolist() == [False, True, True, False]
    assert table["phone errors"].tolist() == [1.0] * 4, "one letter too many of one"
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text("utf-8").splitlines()]
    labelled = "\n".join(json.dumps(row | {"emotion": "other"} if row["id"] == first else row) for row in rows)
    (tmp_path / "other.jsonl").write_text(labelled, "utf-8")
    with pytest.raises(InputError, match=rf"recording has another emotion\n  got: {first}"):
        judge(corpus / "tokens.jsonl", tmp_path / "other.jsonl", runs)
    lines = render(table).splitlines()
    assert lines[0].split() == ["samples", "token", "judge", "audio", "judge", "phone", "errors", "DNSMOS"]
    assert lines[1].split()[:3] == ["recordings", str(len(samples)), "-"]
    assert lines[2].split()[:3] + lines[2].split()[4:] == [right, str(len(samples)), "0.750", "1.000", "3.000"]


def test_what_was_decoded_is_kept_and_the_wave_is_the_tokens(release: Path, corpus: Path, tmp_path: Path) -> None:
    recorded = read_manifest(corpus / "manifest.jsonl", None)
    decoder = CosyVoiceDecoder(release)
    samples = {recorded[0].id: [3, 6, 9], recorded[1].id: [4]}
    decode(decoder, samples, recorded, tmp_path / "out")
    decoded = read_manifest(tmp_path / "out" / MANIFEST, None)
    wave, rate = soundfile.read(decoded[0].audio)
    assert (rate, len(wave)) == (24000, 3 * 960)
    assert np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave) == pytest.approx(300, abs=10)
    assert (decoded[0].text, decoded[0].emotion) == (recorded[0].text, recorded[0].emotion)

    calls: list[list[int]] = []

    def counted(tokens: list[int], prompt: Utterance) -> np.ndarray:
        calls.append(tokens)
        return np.zeros(10)

    counted.rate, counted.digest = 24000, decoder.digest  # type: ignore[attr-defined]
    decode(counted, samples | {recorded[2].id: [5]}, recorded, tmp_path / "out")  # type: ignore[arg-type]
    assert calls == [[5]], "only what is new is decoded"
    assert len(read_manifest(tmp_path / "out" / MANIFEST, None)) == 3
    (release / "flow.pt").write_text("other weights")
    counted.digest = CosyVoiceDecoder(release).digest  # type: ignore[attr-defined]
    calls.clear()
    decode(counted, samples, recorded, tmp_path / "out")  # type: ignore[arg-type]
    assert calls == [[3, 6, 9], [4]], "another decoder's audio is not its own"


def test_the_prompt_is_another_text_in_the_same_emotion() -> None:
    target = utterance(id="m", text="one", emotion="sad", speaker="ben")
    same, other = (
        utterance(id=name, text="two", emotion="sad", speaker=who) for name, who in (("z", "ben"), ("a", "anna"))
    )
    happy = utterance(id="b", text="two", emotion="happy", speaker="ben")
    assert acoustic_prompt(target, [target, happy, other, same]) is same
    assert acoustic_prompt(target, [target, happy, other, replace(other, id="b")]) is other
    with pytest.raises(InputError, match="no other text of at most 30 s in the emotion sad"):
        acoustic_prompt(target, [target, happy])


def test_a_recording_that_the_tokenizer_does_not_take_is_no_prompt(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * 8000), 8000)
    target, *others = (
        utterance(id=name, text=name, emotion="sad", audio=str(tmp_path / f"{name}.wav"))
        for name in ("target", "long", "short")
    )
    assert acoustic_prompt(target, others).id == "short"


def test_what_cannot_be_decoded_or_judged_is_told(corpus: Path, tmp_path: Path) -> None:
    recorded = read_manifest(corpus / "manifest.jsonl", None)
    with pytest.raises(InputError, match="put it"):
        CosyVoiceDecoder(tmp_path)
    with pytest.raises(InputError, match="manifest does not have"):
        decode(lambda tokens, prompt: np.zeros(1), {"nobody": [1]}, recorded, tmp_path / "out")  # type: ignore[arg-type]
    own = {"other corpus": {"corpus": {"digest": "0"}}, "seed": {"pretrain": {"seed": 1}}, "first": {}}
    own |= {"emotions": {"emotions": ["sad", "angry"]}, "number": {"optimize": {"final_prompts": 9}}}
    folders = {name: finished(tmp_path / name, corpus, {"u0": [1]}, **changes) for name, changes in own.items()}
    runs = list(folders.values())
    inputs = corpus / "tokens.jsonl", corpus / "manifest.jsonl"
    with pytest.raises(InputError, match="decode them first"):
        judge(*inputs, runs)
    for run in runs:
        (run / "audio").mkdir()
        (run / "audio" / MANIFEST).touch()
    for name in ("seed", "emotions", "number"):
        with pytest.raises(InputError, match=rf"different evaluation texts\n  got: different {name}"):
            judge(*inputs, [folders["first"], folders[name]])
    with pytest.raises(InputError, match="the runs were trained on another corpus"):
        judge(*inputs, [folders["other corpus"]])
    write_manifest(
        corpus / "few.jsonl", [replace(utterance, audio=Path(str(utterance.audio)).name) for utterance in recorded[:9]]
    )
    with pytest.raises(InputError, match="without a recording"):
        judge(inputs[0], corpus / "few.jsonl", [folders["first"]])
    (folders["first"] / tokens.SCALARS).unlink()
    with pytest.raises(InputError, match="a run is not finished"):
        judge(*inputs, [folders["first"]])
    assert CliRunner().invoke(app, ["decode", str(tmp_path), str(corpus), str(inputs[1])]).exit_code == 2


def test_a_release_that_cosyvoice_cannot_load_is_told(release: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FileNotFoundError"):
        CosyVoiceDecoder(tmp_path / "path")
