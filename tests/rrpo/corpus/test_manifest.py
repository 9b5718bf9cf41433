"""Manifests: written ones are read back unchanged; errors name the line and the problem."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rrpo.corpus import features, intake, prompts
from rrpo.corpus.config import EMOTIONS, AudioConfig, PromptConfig, SpeechConfig, SplitConfig, WorldConfig
from rrpo.corpus.intake import check_apart, check_manifest, check_speakable
from rrpo.corpus.manifest import Manifest, ManifestError, phone_inventory, read_manifest, write_manifest
from rrpo.corpus.splits import draw_split
from rrpo.experiment.world import models_trained_on
from rrpo.identity import content_hash
from rrpo.pipeline.stages import Context
from rrpo.testing.corpora import write_tone

AUDIO = AudioConfig()
GOOD = {"audio": "a.wav", "text": "我今天买书", "speaker": "li", "language": "cmn", "emotion": "sad"}


def write(folder, *rows) -> str:
    path = folder / "user.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_our_own_manifest_comes_back_as_it_was(tmp_path):
    split = SplitConfig(name="annotated", size=20, raters=3, artefact_rate=0.5)
    utterances = draw_split(WorldConfig(), split)
    write_manifest(tmp_path / "manifest.jsonl", utterances)
    assert read_manifest(tmp_path / "manifest.jsonl", EMOTIONS) == utterances
    assert phone_inventory(utterances) == tuple(sorted({p for u in utterances for p in u.phones}))


def test_a_users_line_gets_phones_and_an_id(tmp_path):
    path = write(tmp_path, GOOD, {**GOOD, "id": "x", "phones": ["a"], "votes": ["sad", "angry", "sad"]})
    first, second = read_manifest(path, EMOTIONS, "annotated")
    assert first.phones[:2] == ("w", "o")
    assert first.audio == str(tmp_path / "a.wav")
    assert (first.true_emotion, first.split, first.votes) == ("sad", "annotated", None)
    assert (second.id, second.phones, second.votes) == ("x", ("a",), ("sad", "angry", "sad"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ({k: v for k, v in GOOD.items() if k != "text"}, "lacks text"),
        ({**GOOD, "emotion": "bored"}, "unknown emotion 'bored'"),
        ({**GOOD, "votes": ["sad", "bored"]}, "unknown emotion 'bored'"),
        ({**GOOD, "emotion": "sad/angry"}, "the emotion 'sad/angry' contains '/'"),
        ({**GOOD, "votes": ["sad", "a\\b"]}, "files are named after emotions"),
        ({**GOOD, "speaker": 3}, "speaker is 3"),
        ({**GOOD, "text": " "}, "text is ' '"),
        ({**GOOD, "phones": "abc"}, "phones is 'abc'"),
        ({**GOOD, "language": "xx"}, "no phones"),
        ({**GOOD, "spec": {"text": "a"}}, "not a RenderSpec"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path, GOOD, line)
    with pytest.raises(ManifestError, match=r"user\.jsonl:2: ") as error:
        read_manifest(path, EMOTIONS)
    assert message in str(error.value)


def test_missing_empty_and_repeating_manifests_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl", EMOTIONS)
    with pytest.raises(ManifestError, match="is empty"):
        read_manifest(write(tmp_path, ""), EMOTIONS)
    with pytest.raises(ManifestError, match="was used on line 1"):
        read_manifest(write(tmp_path, {**GOOD, "id": "x"}, {**GOOD, "id": "x"}), EMOTIONS)


def test_a_users_corpus_enters_through_the_same_stage_and_bad_audio_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 10), 16000)
    soundfile.write(tmp_path / "b.wav", np.zeros(16000), 16000)
    out = tmp_path / "out"
    out.mkdir()
    manifest = _checked(write(tmp_path, GOOD))
    split = SplitConfig(name="mine", size=10, manifest=manifest)
    features.build(SpeechConfig(world=WorldConfig(), split=split), {}, out, Context())
    speech = features.SpeechSet.load(out)
    assert speech.frames.tolist() == [51]
    assert speech.labels(EMOTIONS).tolist() == [EMOTIONS.index("sad")]
    edited = write(tmp_path, GOOD, {**GOOD, "audio": "b.wav"})
    with pytest.raises(ManifestError, match=r"user-00002.*b\.wav: silent"):
        _checked(edited)


def test_a_corpus_that_is_edited_after_the_plan_is_not_used(tmp_path, monkeypatch):
    """Neither if a line or a recording changes, nor if one is lost; with many recordings the cached hash is used."""
    write_tone(tmp_path / "a.wav", 300)
    prompt = {name: value for name, value in GOOD.items() if name != "audio"}
    for row, audio in ((GOOD, AUDIO), (prompt, None)):
        manifest = _checked(write(tmp_path, row), audio)
        split = SplitConfig(name="mine", size=10, manifest=manifest)
        speech = SpeechConfig(world=WorldConfig(), split=split)
        wanted = PromptConfig(world=WorldConfig(), texts="eval", size=1, manifest=manifest)
        (stage, config) = (features, speech) if audio else (prompts, wanted)
        stage.build(config, {}, tmp_path, Context())
        write(tmp_path, {**row, "text": "我"})
        with pytest.raises(ManifestError, match="edited after the run was planned"):
            stage.build(config, {}, tmp_path, Context())
    monkeypatch.setattr(intake, "MANY", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = SplitConfig(name="mine", size=10, manifest=_checked(write(tmp_path, GOOD)))
    features.build(SpeechConfig(world=WorldConfig(), split=split), {}, tmp_path, Context())
    write_tone(tmp_path / "a.wav", 400)
    with pytest.raises(ManifestError, match="edited after the run was planned"):
        features.build(SpeechConfig(world=WorldConfig(), split=split), {}, tmp_path, Context())
    (tmp_path / "a.wav").unlink()
    with pytest.raises(ManifestError, match=r"user-00001.*No such file"):
        features.build(SpeechConfig(world=WorldConfig(), split=split), {}, tmp_path, Context())


def test_a_corpus_is_its_content_wherever_it_lies(tmp_path):
    """Moving a corpus keeps its digest; a different text, label or audio sample changes it."""
    digests = []
    for name, row, pitch in (("one", {}, 10), ("two", {}, 10), ("text", {"text": "我"}, 10), ("audio", {}, 11)):
        folder = tmp_path / name
        folder.mkdir()
        soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / pitch), 16000)
        manifest = _checked(write(folder, {**GOOD, **row}))
        digests.append(content_hash(SplitConfig(name="mine", size=1, manifest=manifest)))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def _checked(path, audio=AUDIO):
    return check_manifest(Path(path), read_manifest(path, EMOTIONS, audio=audio is not None), audio)


def _tone(folder) -> str:
    soundfile.write(folder / "tone.wav", np.sin(np.arange(16000) / 10), 16000)
    return "tone.wav"


def test_another_encoding_is_refused_and_any_separator_may_stand_in_a_text(tmp_path):
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(json.dumps({**GOOD, "text": "Größe"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ManifestError, match=r"latin\.jsonl: cannot be read .* UTF-8"):
        read_manifest(latin, EMOTIONS)
    (read,) = read_manifest(write(tmp_path, {**GOOD, "text": "我今天\u2028买书", "phones": ["a"]}), EMOTIONS)
    write_manifest(tmp_path / "again.jsonl", [read])
    assert read_manifest(tmp_path / "again.jsonl", EMOTIONS) == [read]


def test_what_the_policy_never_learns_is_named():
    learnt = draw_split(WorldConfig(), SplitConfig(name="base", size=40))
    check_speakable("rl", learnt[:5], learnt)
    for field, value, words in (("speaker", "li", "speaker 'li'"), ("phones", ("a", "Q!"), "phone 'Q!'")):
        with pytest.raises(
            ManifestError, match=rf"split 'rl' has the {words}, which the policy never learns; it knows"
        ):
            check_speakable("rl", [replace(learnt[0], **{field: value})], learnt)


def test_a_sound_is_heard_by_one_judge_or_learner_alone(tmp_path):
    """Sounds are compared by bytes, not by file name; splits of the same model may share sounds."""
    learnt = read_manifest(write(tmp_path, {**GOOD, "audio": _tone(tmp_path)}), EMOTIONS)
    (tmp_path / "copy.wav").write_bytes((tmp_path / "tone.wav").read_bytes())
    copied = read_manifest(write(tmp_path, {**GOOD, "audio": "copy.wav", "id": "c"}), EMOTIONS)
    check_apart({"base": learnt, "sft": copied}, models_trained_on)
    check_apart({"judge_test": learnt, "words_judge": copied}, models_trained_on)
    for first, second in (
        ("annotated", "rm_valid"),
        ("judge_val", "judge_test"),
        ("words_reward", "words_judge"),
        ("base", "sft_heldout"),
        ("rm_pretrain", "rm_test_English"),
    ):
        with pytest.raises(ManifestError, match=rf"'c' of the split '{second}' .* sounds the same.* of '{first}'"):
            check_apart({first: learnt, second: copied}, models_trained_on)


def test_a_manifest_of_prompts_asks_for_every_line_and_needs_no_audio(tmp_path):
    prompt = {name: value for name, value in GOOD.items() if name != "audio"}
    manifest = _checked(write(tmp_path, prompt, {**prompt, "emotion": "happy"}), None)
    prompts.build(PromptConfig(world=WorldConfig(), texts="eval", size=300, manifest=manifest), {}, tmp_path, Context())
    assert [(p.speaker, p.emotion) for p in prompts.load_prompts(tmp_path)] == [("li", "sad"), ("li", "happy")]


def test_a_long_manifest_streams_in_constant_memory(tmp_path):
    """20,000 lines: about 20 MB as a list; one byte per line detects duplicate ids."""
    path = tmp_path / "long.jsonl"
    row = json.dumps({**GOOD, "phones": ["a"] * 30})
    with path.open("w") as out:
        for _ in range(20_000):
            out.write(row + "\n")
    manifest = Manifest(path=path, emotions=EMOTIONS)
    tracemalloc.start()
    assert sum(1 for _ in manifest) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize(
    ("ids", "first"),
    [
        ([None, "user-00001"], 1),
        (["user-00002", None], 1),
        ([None, "a", "a"], 2),
        ([7, "7"], 1),
        (["user-00000", "user-00001", "user-00002"], None),
        (["user-2", "user-00003", "user-00002", None], None),
    ],
)
def test_given_and_default_ids_are_unique_together(tmp_path, ids, first):
    path = write(tmp_path, *(GOOD if id is None else {**GOOD, "id": id} for id in ids))
    if first is None:
        assert len(list(Manifest(path=Path(path), emotions=EMOTIONS))) == len(ids)
        return
    with pytest.raises(ManifestError, match=rf":{len(ids)}: id '.*' was used on line {first}; give"):
        list(Manifest(path=Path(path), emotions=EMOTIONS))


def test_a_manifest_is_read_anew_each_time(tmp_path):
    manifest = Manifest(path=Path(write(tmp_path, GOOD)), emotions=EMOTIONS)
    assert list(manifest) == list(manifest) == read_manifest(manifest.path, EMOTIONS)
    write(tmp_path, GOOD, GOOD)
    assert len(list(manifest)) == 2


def test_many_recordings_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest equals that of a plain check. It is cached until a file changes; an unwritable cache is ignored."""
    for index in range(3):
        write_tone(tmp_path / f"{index}.wav", 200 + 100 * index)
    row = {"text": "a", "phones": ["a"], "speaker": "s", "language": "en", "emotion": EMOTIONS[0]}
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(row | {"audio": f"{index}.wav"}) for index in range(3)))
    lines, decoded = Manifest(path=path, emotions=None), []
    plain = check_manifest(path, lines, AudioConfig())
    monkeypatch.setattr(intake, "load_wave", lambda audio, rate: decoded.append(audio))
    monkeypatch.setattr(intake, "MANY", 3)
    monkeypatch.setattr(intake, "BATCH", 2)
    monkeypatch.setattr(intake, "usable_cpus", lambda: 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counts: list[int] = []
    for times in (3, 3):
        config = check_manifest(path, lines, AudioConfig(), tell=lambda utterances, seconds: counts.append(utterances))
        assert config == plain
        assert len(decoded) == times
    monkeypatch.chdir(tmp_path)
    assert check_manifest(Path("m.jsonl"), Manifest(path=Path("m.jsonl"), emotions=None), AudioConfig()) == plain
    assert len(decoded) == 3, "also from where paths are relative"
    assert counts == [2, 3, 3], "after every batch, and at the end"
    write_tone(tmp_path / "1.wav", 900)
    assert check_manifest(path, lines, AudioConfig()) != plain
    assert len(decoded) == 6
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        check_manifest(path, lines, AudioConfig())
    assert len(decoded) == 12


@pytest.mark.parametrize("many", [2, 1], ids=["few", "many"])
def test_a_user_without_a_home_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    path = write(tmp_path, {**GOOD, "audio": _tone(tmp_path)})
    cached = _checked(path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr(intake, "MANY", many)
    assert _checked(path) == cached


@pytest.mark.long
def test_several_processes_find_the_first_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        write_tone(tmp_path / f"{index}.wav", 200 + 100 * index)
    (tmp_path / "1.wav").write_text("no audio")
    row = {"text": "a", "phones": ["a"], "speaker": "s", "language": "en", "emotion": EMOTIONS[0]}
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(row | {"audio": f"{index}.wav", "id": str(index)}) for index in range(3)))
    for name, value in (("MANY", 3), ("BATCH", 1), ("usable_cpus", lambda: 2)):
        monkeypatch.setattr(intake, name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ManifestError, match=r"utterance '1'.*not readable"):
        check_manifest(path, Manifest(path=path, emotions=None), AudioConfig())
