"""Modify recorded or neural speech to the cues of an emotion with PSOLA, as espeak-ng's parameters do for rendered speech.

Praat (extra ``judges``: praat-parselmouth) changes the rate and the level and range of F0 by pitch-synchronous overlap-add
(Moulines & Charpentier 1990); `rrpo.corpus.render.finish` applies the other cues, as it does to rendered speech. WORLD is not
used because its F0 tracker (harvest) finds only a third of the voiced frames of Piper's low voice that Praat finds.
"""

from __future__ import annotations

import numpy as np

from rrpo.corpus.render import PEAK, finish, pace_and_pitch

F0_RANGE = (60.0, 600.0)
"""Hz, range in which F0 is tracked and to which it is clipped."""
STEP = 0.01
"""Seconds between F0 measurements."""


def shift_cues(wave: np.ndarray, sample_rate: int, cues: tuple[float, ...], noise: np.random.Generator) -> np.ndarray:
    """Return neutral speech ``wave [S]`` modified to ``cues`` z (in the order of `rrpo.corpus.emotions.CUES`), within
    +-`PEAK`."""
    wave = overlap_add(wave, sample_rate, *pace_and_pitch(cues))
    wave = finish(wave, sample_rate, cues, noise)
    return (wave * min(1.0, PEAK / np.abs(wave).max())).astype(np.float32)


def overlap_add(wave: np.ndarray, sample_rate: int, pace: float, semitones: float, excursion: float) -> np.ndarray:
    """Return ``wave [S]`` ``pace`` times as fast, with F0 raised by ``semitones`` and its log deviations from the mean scaled."""
    from parselmouth import Sound
    from parselmouth.praat import call, run

    sound = Sound(np.asarray(wave, dtype=np.float64), sampling_frequency=sample_rate)
    run("random_initializeWithSeedUnsafelyButPredictably (1)")  # overlap-add is random in unvoiced speech
    manipulation = call(sound, "To Manipulation", STEP, *F0_RANGE)
    tier = call(manipulation, "Extract pitch tier")
    if call(tier, "Get number of points"):
        centre = call(tier, "Get mean (points)", 0, 0)
        scaled = f"{centre} * (self / {centre}) ^ {excursion} * 2 ^ ({semitones} / 12)"
        call(tier, "Formula", f"min(max({scaled}, {F0_RANGE[0]}), {F0_RANGE[1]})")
        call([manipulation, tier], "Replace pitch tier")
    duration = call("Create DurationTier", "pace", 0, sound.duration)
    call(duration, "Add point", 0, 1 / pace)
    call([manipulation, duration], "Replace duration tier")
    return np.asarray(call(manipulation, "Get resynthesis (overlap-add)").values[0])
