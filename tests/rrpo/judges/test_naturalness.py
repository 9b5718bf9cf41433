"""DNSMOS and PLCMOS through the wheel's own networks."""

import numpy as np
import pytest

pytest.importorskip("speechmos", reason="extra judges")
pytest.importorskip("onnxruntime", reason="extra judges")

from rrpo.corpus.render import RenderSpec, render
from rrpo.corpus.speakers import speaker_table
from rrpo.judges.naturalness import RATE, available, dnsmos, plcmos
from rrpo.profiles import SMOKE


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    speaker = speaker_table(SMOKE.world)[0]
    return render(RenderSpec(text="我今天买书", speaker=speaker, cues=(0.0,) * 8, seed=1), RATE)


def test_noise_lowers_dnsmos(speech: np.ndarray) -> None:
    assert available()
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    loud = float(np.sqrt(np.mean(speech**2)))
    scores = [dnsmos(np.clip(speech + share * loud * noise, -1, 1)) for share in (0.0, 0.3, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert 1 <= scores[2] < scores[0] - 0.1 <= 5


def test_gaps_lower_plcmos(speech: np.ndarray) -> None:
    broken = speech.copy()
    for start in range(RATE // 10, len(broken) - RATE // 20, RATE // 8):
        broken[start : start + RATE // 20] = 0
    assert plcmos(broken) < plcmos(speech) - 0.1


def test_both_are_repeatable(speech: np.ndarray) -> None:
    assert dnsmos(speech) == dnsmos(speech)
    assert plcmos(speech) == plcmos(speech)
