"""Manifests: ours come back as they were; a user's bad line is named with its fault."""

import json

import numpy as np
import pytest
import soundfile

from rrpo.config import EMOTIONS, SpeechConfig, SplitConfig, WorldConfig
from rrpo.corpus import features
from rrpo.corpus.manifest import ManifestError, phone_inventory, read_manifest, write_manifest
from rrpo.corpus.splits import draw_split
from rrpo.stages import Context

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
    split = SplitConfig(name="mine", size=10, manifest=write(tmp_path, GOOD))
    features.build(SpeechConfig(world=WorldConfig(), split=split), {}, out, Context())
    speech = features.SpeechSet.load(out)
    assert speech.frames.tolist() == [51]
    assert speech.labels(EMOTIONS).tolist() == [EMOTIONS.index("sad")]
    split = SplitConfig(name="mine", size=10, manifest=write(tmp_path, GOOD, {**GOOD, "audio": "b.wav"}))
    with pytest.raises(ManifestError, match=r"user-00002.*b\.wav: silent"):
        features.build(SpeechConfig(world=WorldConfig(), split=split), {}, out, Context())
