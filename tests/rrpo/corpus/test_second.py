"""Other synthesizers: the effect of PSOLA on a real reading, measured by Praat; the output of the stage, read back."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rrpo.audio import resampled
from rrpo.corpus import neural, prosody, second
from rrpo.corpus.config import EMOTIONS, VoicesConfig, WorldConfig
from rrpo.corpus.emotions import CUES
from rrpo.corpus.features import SpeechSet
from rrpo.experiment import world
from rrpo.judges import words
from rrpo.judges.phonetics import MEASURES, measure
from rrpo.pipeline.stages import Context

RATE = 16000
TEXT = "You must drink coffee on Monday"
ENGINES = world.other_synthesisers()
pytestmark = pytest.mark.skipif(not ENGINES, reason="no other synthesiser is installed")


@cache
def reading(engine: str) -> np.ndarray:
    return resampled(neural.speak(TEXT, engine, neural.ENGINES[engine][0]), neural.RATES[engine], RATE)


def phonetics(wave: np.ndarray) -> dict[str, float]:
    return dict(zip(MEASURES, measure(wave, RATE), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_overlap_add_does_what_it_is_told(engine: str) -> None:
    plain = phonetics(prosody.overlap_add(reading(engine), RATE, 1.0, 0.0, 1.0))
    higher = phonetics(prosody.overlap_add(reading(engine), RATE, 1.0, 4.0, 1.0))
    faster = phonetics(prosody.overlap_add(reading(engine), RATE, 1.25, 0.0, 1.0))
    flatter = phonetics(prosody.overlap_add(reading(engine), RATE, 1.0, 0.0, 0.5))
    assert higher["f0_level"] - plain["f0_level"] == pytest.approx(4, abs=0.7)
    assert plain["seconds"] / faster["seconds"] == pytest.approx(1.25, rel=0.02)
    assert flatter["f0_spread"] < 0.75 * plain["f0_spread"]
    assert plain["seconds"] == pytest.approx(len(reading(engine)) / RATE, rel=0.02)


def test_a_cue_moves_its_own_measure() -> None:
    def moved(**cues: float) -> dict[str, float]:
        z = tuple(cues.get(name, 0.0) for name in CUES)
        return phonetics(prosody.shift_cues(reading(ENGINES[-1]), RATE, z, np.random.default_rng(0)))

    plain = moved()
    for cue, name in (("intensity", "intensity"), ("tilt", "tilt"), ("f0_level", "f0_level")):
        assert moved(**{cue: 2.0})[name] > plain[name] + 1 > moved(**{cue: -2.0})[name] + 2, cue
    assert moved(rate=2.0)["seconds"] < 0.9 * plain["seconds"]


def test_silence_passes_and_an_unknown_voice_is_refused() -> None:
    assert np.isfinite(prosody.overlap_add(np.zeros(RATE), RATE, 1.2, 3.0, 1.5)).all()
    with pytest.raises(ValueError, match="no voice 'piper'/'nobody'"):
        neural.speak(TEXT, "piper", "nobody")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reading_is_repeated_bit_for_bit(engine: str) -> None:
    repeated = neural.speak(TEXT, engine, neural.ENGINES[engine][0])
    assert np.array_equal(resampled(repeated, neural.RATES[engine], RATE), reading(engine))
    assert 1 < len(reading(engine)) / RATE < 4


@pytest.mark.skipif(not words.available(), reason="Whisper is not installed")
def test_whisper_hears_what_was_read_and_no_other_text() -> None:
    waves = [reading(engine) for engine in ENGINES]
    errors = words.word_errors(waves, [TEXT] * len(waves))
    assert errors[:, 1].tolist() == [6] * len(waves)
    assert errors[:, 0].sum() <= 1
    mismatched = words.word_errors(waves[:1], ["they like the park"])
    assert mismatched[0, 0] >= 4


def test_words_are_letters_alone() -> None:
    assert words.words(" They don't, eat -- AN apple! ") == ["they", "don't", "eat", "an", "apple"]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_stage_is_a_speech_set_of_every_emotion(engine: str, tmp_path: Path) -> None:
    config = VoicesConfig(world=WorldConfig(), readings=1, engine=engine)
    second.build(config, {}, tmp_path, Context())
    speech = SpeechSet.load(tmp_path)
    assert [u.emotion for u in speech.utterances] == [*EMOTIONS]
    assert len({u.text for u in speech.utterances}) == 1
    assert np.load(tmp_path / second.CUES).shape == (len(speech), len(CUES))
    for index, utterance in enumerate(speech.utterances):
        wave, rate = soundfile.read(str(utterance.audio))
        assert rate == RATE
        assert speech.mel(index).shape == (1 + len(wave) // speech.audio.hop, speech.audio.n_mels)
        assert np.abs(wave).max() > 0.01
    levels = {u.emotion: 0.0 for u in speech.utterances}
    for index, utterance in enumerate(speech.utterances):
        levels[utterance.emotion] += float(speech.mel(index).exp().mean())
    assert levels["angry"] > levels["sad"], "anger is loud, sadness soft"
