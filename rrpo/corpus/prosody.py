"""Recorded or neural speech moved to an emotion's cues: PSOLA does what espeak-ng does for rendered speech.

Praat (extra ``judges``: praat-parselmouth) changes pace, level and excursions of F0 by pitch-synchronous overlap-add (Moulines
& Charpentier 1990), and `rrpo.corpus.render.finish` does the rest to both: the same cues, another synthesiser. WORLD was
tried first: its F0 tracker (harvest) finds a third of the voiced frames of Piper's low voice that Praat finds.
"""

from __future__ import annotations

import numpy as np

from rrpo.corpus.render import PEAK, finish, pace_and_pitch

F0_RANGE = (60.0, 600.0)
"""Hz, where F0 is sought and kept."""
STEP = 0.01
"""Seconds between F0 measurements."""


def moved(wave: np.ndarray, sample_rate: int, cues: tuple[float, ...], noise: np.random.Generator) -> np.ndarray:
    """``wave [S]``, read plainly, with the cues z of ``cues`` (in the order of `rrpo.corpus.emotions.CUES`), within +-`PEAK`."""
    wave = overlap_add(wave, sample_rate, *pace_and_pitch(cues))
    wave = finish(wave, sample_rate, cues, noise)
    return (wave * min(1.0, PEAK / np.abs(wave).max())).astype(np.float32)


def overlap_add(wave: np.ndarray, sample_rate: int, pace: float, semitones: float, excursion: float) -> np.ndarray:
    """``wave [S]`` ``pace`` times as fast, F0 ``semitones`` higher, its excursions around its mean (in log) scaled."""
    from parselmouth import Sound
    from parselmouth.praat import call, run

    sound = Sound(np.asarray(wave, dtype=np.float64), sampling_frequency=sample_rate)
    run("random_initializeWithSeedUnsafelyButPredictably (1)")  # overlap-add draws where speech is unvoiced
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
