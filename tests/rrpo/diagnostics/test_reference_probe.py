"""What is read off speaker vectors."""

import numpy as np

from rrpo.diagnostics.reference_probe import read_off

SPEAKERS, EMOTIONS, TAKES = ("ann", "ben", "cara", "dan"), ("angry", "neutral", "sad"), 3


def test_the_probe_finds_planted_information() -> None:
    """Vectors that are the speaker tell the speaker alone, vectors that are the emotion the emotion alone; noise is small."""
    rng = np.random.default_rng(0)
    cases = [(s, e) for s in range(4) for e in range(3) for _ in range(TAKES)]
    speaker_of, emotion_of = (np.array(values) for values in zip(*cases, strict=True))
    names, emotions = np.array(SPEAKERS)[speaker_of], np.array(EMOTIONS)[emotion_of]
    noise = 0.01 * rng.standard_normal((len(cases), 4))
    speaker = read_off(np.eye(4)[speaker_of] + noise, names, emotions, 4)
    assert speaker["reference_speaker"] == 1.0
    assert speaker["reference_emotion"] < 0.7
    emotion = read_off(np.eye(4)[emotion_of] + noise, names, emotions, 4)
    assert emotion["reference_emotion"] == 1.0
    assert emotion["reference_speaker"] < 0.7
