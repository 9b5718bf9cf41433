"""Emotion recognition by a linear model of MFCC statistics: a reference for reward models on a user's corpus.

    python tests/benchmarks/linear_recognition.py barks.f0.jsonl barks.f1.jsonl ...

Each manifest in turn is the test set, and the model is trained on the others. With one manifest, each speaker is one fold.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rrpo.audio import load_wave, log_mel
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.manifest import read_manifest

COEFFICIENTS = 20


def statistics(path: str) -> np.ndarray:
    """Return mean and standard deviation of 20 MFCC and of their slopes, and the logarithm of the length, ``[81]``."""
    wave = load_wave(path, AudioConfig().sample_rate)
    mel, _ = log_mel(wave[None], torch.tensor([len(wave)]), AudioConfig())
    frames = dct(mel[0].numpy().T, axis=0, norm="ortho")[:COEFFICIENTS]
    slopes = np.gradient(frames, axis=1)
    parts = [of(x, axis=1) for x in (frames, slopes) for of in (np.mean, np.std)]
    return np.concatenate([*parts, [np.log(frames.shape[1])]])


def main(paths: list[Path]) -> None:
    torch.set_num_threads(1)
    utterances = [(number, one) for number, path in enumerate(paths) for one in read_manifest(path, None)]
    x = np.stack([statistics(str(one.audio)) for _, one in utterances])
    y = np.array([one.emotion for _, one in utterances])
    fold = np.array([str(number) if len(paths) > 1 else one.speaker for number, one in utterances])
    predicted = y.copy()
    for name in sorted(set(fold)):
        test = fold == name
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
        predicted[test] = model.fit(x[~test], y[~test]).predict(x[test])
        wa, ua = accuracy_score(y[test], predicted[test]), balanced_accuracy_score(y[test], predicted[test])
        print(f"{name:12} {test.sum():4} utterances  WA {wa:.3f}  UA {ua:.3f}")
    wa, ua = accuracy_score(y, predicted), balanced_accuracy_score(y, predicted)
    print(f"{'pooled':12} {len(y):4} utterances  WA {wa:.3f}  UA {ua:.3f}  chance {1 / len(set(y)):.3f}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
