"""espeak-ng through ctypes."""

import subprocess
import sys

import numpy as np
import pytest

from rrpo.corpus import espeak
from rrpo.corpus.texts import draw_texts, words

TEXT = "我今天买书"


def test_speech_does_not_depend_on_what_was_said_before_nor_on_the_process():
    first = espeak.synthesize(TEXT, "cmn", "f2")
    espeak.synthesize("Something else", "en", "m3", rate=300)
    assert np.array_equal(first, espeak.synthesize(TEXT, "cmn", "f2"))
    code = f"from rrpo.corpus import espeak; print(hash(espeak.synthesize({TEXT!r}, 'cmn', 'f2').tolist().__str__()))"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PYTHONHASHSEED": "0"}, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != b""


def test_parameters_take_effect():
    plain = espeak.synthesize(TEXT, "cmn")
    assert len(espeak.synthesize(TEXT, "cmn", rate=300)) < 0.8 * len(plain)
    assert np.abs(espeak.synthesize(TEXT, "cmn", volume=30)).max() < 0.5 * np.abs(plain).max()
    for change in ({"pitch": 80}, {"pitch_range": 90}, {"variant": "f2"}):
        changed = espeak.synthesize(TEXT, "cmn", **change)
        assert len(changed) != len(plain) or not np.array_equal(changed, plain)


def test_phones_are_segmental_and_batched_calls_agree_with_single_ones():
    assert espeak.phones(["Mein Bruder"], "de") == [("m", "aɪ", "n", "b", "ɾ", "uː", "d", "ɜ")]
    assert espeak.phones(["昨天"], "cmn") == [("ts", "uo", "th", "iɛ", "n")]
    texts = draw_texts(30, "random", "cmn", 0)
    assert espeak.phones(texts, "cmn") == [espeak.phones([text], "cmn")[0] for text in texts]


@pytest.mark.parametrize("language", ["cmn", "en", "de"])
def test_every_word_is_read_by_its_own_language_with_few_phones(language):
    phones = espeak.phones(list(words(language)), language)
    assert len({phone for word in phones for phone in word}) <= 50
    assert max(map(len, phones)) <= 12  # a word that is spelled out would be longer


def test_bad_requests_are_refused():
    with pytest.raises(espeak.EspeakError, match="no voice"):
        espeak.synthesize("a", "klingonese")
    with pytest.raises(espeak.EspeakError, match="another language"):
        espeak.phones(["我去 the shop"], "cmn")
    with pytest.raises(espeak.EspeakError, match="no phones"):
        espeak.phones([" "], "cmn")
