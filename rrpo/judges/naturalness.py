"""Naturalness by two published predictors (extra ``judges``: speechmos, onnxruntime; the wheel contains their weights).

DNSMOS (Reddy et al. 2022) and PLCMOS (Diener et al. 2023) were trained on telephony. Neither is an N-MOS, and neither detects
wrong words, so results must be read with an intelligibility judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from rrpo.audio import resampled
from rrpo.judges.config import LISTENERS
from rrpo.judges.spoken import peak_scale
from rrpo.packages import onnx_session, package_folder, present

RATE = 16000
"""Sample rate in Hz that both expect."""
SECONDS = 9.01
"""Input length of DNSMOS in seconds; a shorter clip is repeated."""
OVERALL = (-0.06766283, 1.11546468, 0.04602535)
"""Microsoft's polynomial from DNSMOS' raw overall score to its scale."""
RATERS = 3
"""Simulated raters whose mean is PLCMOS, always the same ones. They differ by little more than a constant: over 26 clips the mean
of three is .08 above that of the wheel's fifteen and correlates with it at .9998, at a fifth of the cost."""
MEASURES = ("dnsmos", "plcmos")
"""Predictors in order of preference."""


def available() -> bool:
    """Return whether speechmos and onnxruntime are installed."""
    return all(map(present, LISTENERS["naturalness"]))


def limited(wave: np.ndarray) -> np.ndarray:
    """Return ``wave [S]`` within +-`rrpo.judges.spoken.PEAK`, padded to at least a tenth of a second."""
    wave = np.pad(wave, (0, max(0, RATE // 10 - len(wave))))
    return wave * peak_scale(wave)


def predicted(measure: str, waves: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
    """Return predictions ``[n]`` of the predictor ``measure``, one of `MEASURES`, for waves ``[S]``."""
    predictor = {"dnsmos": dnsmos, "plcmos": plcmos}[measure]
    return np.array([predictor(limited(resampled(wave, sample_rate, RATE))) for wave in waves])


def dnsmos(wave: np.ndarray) -> float:
    """Return DNSMOS P.835, overall quality on 1..5, of ``wave [S]`` at `RATE` within +-1. The wheel's own code needs librosa."""
    size = int(SECONDS * RATE)
    clip = np.tile(wave, -(-size // max(1, len(wave))))[:size].astype(np.float32)
    _, _, overall = _network("dnsmos_models/sig_bak_ovr.onnx").run(None, {"input_1": clip[None]})[0][0]
    return float(np.polyval(OVERALL, overall))


def plcmos(wave: np.ndarray) -> float:
    """Return PLCMOS v2 on 1..5 of ``wave [S]`` at `RATE` within +-1; the simulated raters are seeded."""
    model = _plcmos()
    features = np.asarray(model.stft_transform(np.asarray(wave, dtype=np.float64)), dtype=np.float32)[None, None]
    raters = np.random.default_rng(0).standard_normal((RATERS, 1, 64)).astype(np.float32)
    scores = [model.session.run(None, {"degraded_audio": features, "rater_embed": rater})[0] for rater in raters]
    return float(np.mean(scores))


@lru_cache(maxsize=1)
def _plcmos() -> Any:
    from speechmos.plcmos import PLCMOS

    model = PLCMOS()
    model.session = _network("plcmos_models/plcmos_v2.onnx")  # the wheel's own session uses all cores
    return model


@lru_cache(maxsize=2)
def _network(name: str) -> Any:
    return onnx_session(package_folder("speechmos") / name)
