"""The stage ``reference_probe``: what the vectors that represent a zero-shot policy's speakers encode.

The vectors of unseen speakers should encode the speaker, but not the emotion (chance: one in K).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score

from rrpo.config import ReferenceProbeConfig
from rrpo.corpus.tags import NEUTRAL
from rrpo.pipeline.stages import Context
from rrpo.training.zero_shot import VECTORS


def build(config: ReferenceProbeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``policy``, a stage ``zero_shot``; write ``scalars.json``."""
    with np.load(inputs["policy"] / VECTORS) as arrays:
        scalars = read_off(arrays["vectors"], arrays["speakers"], arrays["emotions"], config.folds)
    (out / "scalars.json").write_text(json.dumps(scalars))


def read_off(vectors: np.ndarray, speakers: np.ndarray, emotions: np.ndarray, folds: int) -> dict[str, float]:
    """Return the accuracies with which emotion and speaker can be predicted from ``vectors [U, D]``.

    ``reference_emotion``: logistic regression, cross-validated over speakers. ``reference_speaker``: share of the non-neutral
    utterances that are closest (by cosine) to the mean of their own speaker's neutral utterances.
    """
    probe = LogisticRegression(max_iter=1000)
    split = GroupKFold(min(folds, len(set(speakers.tolist()))))
    emotion = cross_val_score(probe, vectors, emotions, groups=speakers, cv=split)
    neutral, names = emotions == NEUTRAL, np.array(sorted(set(speakers.tolist())))
    means = np.array([vectors[neutral & (speakers == name)].mean(0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = names[(vectors[~neutral] @ means.T).argmax(1)]
    return {
        "reference_emotion": float(emotion.mean()),
        "reference_speaker": float((nearest == speakers[~neutral]).mean()),
    }
