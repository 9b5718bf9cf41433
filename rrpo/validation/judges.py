"""Reliability of the emotion judges: accuracy as a share of the ideal observer's, calibration, and agreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.judges import phonetics
from rrpo.judges.emotion import Judge
from rrpo.judges.metrics import expected_calibration_error
from rrpo.judges.phonetic_judge import CHUNK, PhoneticJudge, features
from rrpo.judges.samples import load_samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.training.data import Frames, TrainingFrames
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import common, decoded_frames, ideal_hits, labels, predict_log_probs, renditions
from rrpo.validation.lines import NOT_INSTALLED, Line, bootstrap, ratio, share

SECTION = "Judges"
OF_IDEAL = {
    "clean": ("on unseen texts by the policy's speakers", 0.95),
    "unheard": ("on speakers never heard", 0.85),
    "codec": ("through the codec", 0.90),
    "artefacts": ("under artefacts uncorrelated with emotion", 0.92),
}
"""Test sets of the judges, and the minimum share of the ideal observer's accuracy that ``test`` must reach."""
BINS = 10
"""Confidence bins of the calibration error."""
VOICED = 0.95
"""Minimum share of samples that must keep a voiced frame through the codec."""
HEARD = 0.1
"""Minimum share of voiced frames for an utterance's F0 to be used."""
PITCH = {"f0_level": ("F0 level", 0.9), "f0_spread": ("F0 spread", 0.5)}
"""Measures of F0 that must survive the codec, and the minimum rank correlation before and after."""
NAMES = ("val", "test", "third")
"""Names of the judges; ``third`` only if Praat is installed."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *Judges*."""
    device = context.device
    codec = Codec.load(inputs["codec"], device)
    sets = {name: SpeechSet.load(inputs[name]) for name in ("clean", "unheard", "artefacts")}
    emotions = sets["clean"].emotions
    clean, resynthesized = renditions(sets["clean"], codec, device)
    frames = {"clean": clean, "codec": resynthesized} | {
        name: TrainingFrames(sets[name], None, device).originals for name in ("unheard", "artefacts")
    }
    sets["codec"] = sets["clean"]
    log_probs: dict[str, dict[str, np.ndarray]] = {}
    judges = {name: Judge.load(inputs[name], device) for name in ("val", "test")}
    for done, (name, judge) in enumerate(judges.items()):
        log_probs[name] = {subset: predict_log_probs(judge, frames[subset]) for subset in OF_IDEAL}
        context.report(done + 1, len(NAMES))
    truth = {name: labels(speech, emotions) for name, speech in sets.items()}
    ideal = {name: ideal_hits(speech, config.world.cue_spread) for name, speech in sets.items()}
    for name in ("test", "val"):
        yield from of_ideal(name, log_probs[name], truth, ideal, config.card.resamples)
    for name in ("test", "val"):
        yield calibration(name, log_probs[name], truth, config.card.resamples)
    yield differences(judges, inputs)
    samples, prompts = load_samples(inputs)
    end_frames = decoded_frames(samples.at(samples.steps[-1]), codec, prompts)  # of vanilla DiffRO
    end_classes = {name: predict_log_probs(judge, end_frames).argmax(1) for name, judge in judges.items()}
    if phonetics.available():
        third = PhoneticJudge.load(inputs["third"])
        parts = {"clean": clean, "codec": resynthesized, "end": end_frames}
        x = {name: measures(part, third.audio) for name, part in parts.items()}
        third_log_probs = {name: third.of_measures(part).numpy() for name, part in x.items()}
        log_probs["third"], end_classes["third"] = {"clean": third_log_probs["clean"]}, third_log_probs["end"].argmax(1)
        correct, after_codec = (third_log_probs[name].argmax(1) == truth["clean"] for name in ("clean", "codec"))
        yield Line(SECTION, "third (not neural): accuracy", at_least=0.75, **share(correct))
        yield Line(SECTION, "third (not neural): accuracy through the codec", **share(after_codec))
        yield from pitch(x["clean"], x["codec"], config.card.resamples)
    else:
        yield Line(SECTION, "third (not neural): accuracy", at_least=0.75, note=NOT_INSTALLED)
    context.report(len(NAMES), len(NAMES))
    real_classes = {name: by_subset["clean"].argmax(1) for name, by_subset in log_probs.items()}
    for subset, predictions in (("real speech", real_classes), ("end-of-training samples", end_classes)):
        yield from agreement(subset, predictions, len(emotions), config.card.resamples)
    confusion(out / "confusion.csv", emotions, truth["clean"], real_classes)


def of_ideal(
    name: str,
    log_probs: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    ideal: Mapping[str, np.ndarray],
    resamples: int,
) -> Iterator[Line]:
    """Return each accuracy divided by the ideal observer's on the same utterances; only ``test`` has thresholds."""
    for subset, (title, minimum) in OF_IDEAL.items():
        correct = log_probs[subset].argmax(1) == truth[subset]
        note = f"accuracy {correct.mean():.3f}, ideal observer {ideal[subset].mean():.3f}, n = {len(correct)}"
        least = minimum if name == "test" else None
        value = ratio(correct, ideal[subset], resamples)
        yield Line(SECTION, f"{name} / ideal observer, {title}", at_least=least, note=note, **value)


def calibration(
    name: str, log_probs: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], resamples: int
) -> Line:
    """Return the ECE on real speech and its re-synthesis together; each utterance is resampled with both renditions."""
    both, n = np.stack([log_probs["clean"], log_probs["codec"]]), len(truth["clean"])

    def error(rows: np.ndarray) -> float:
        resample = both[:, rows].reshape(-1, both.shape[2])
        return expected_calibration_error(resample, np.tile(truth["clean"][rows], 2), bins=BINS)

    value = bootstrap(error, n, resamples)
    return Line(SECTION, f"{name}: calibration error (ECE, {BINS} bins)", at_most=0.05, **value)


def differences(judges: Mapping[str, Judge], inputs: Mapping[str, Path]) -> Line:
    """Return the number of aspects (architecture, data, input) in which ``val`` and ``test`` differ."""
    val, test = judges["val"], judges["test"]
    shared, texts = common(*(SpeechSet.load(inputs[f"data_{name}"]) for name in ("val", "test")))
    aspects = (type(val.network) is not type(test.network), not shared and not texts, val.on_wave != test.on_wave)
    title, note = "val and test differ in architecture, data and input", f"{shared} utterances in common, {texts} texts"
    return Line(SECTION, title, float(sum(aspects)), at_least=3, note=note)


def measures(frames: Frames, audio: AudioConfig) -> np.ndarray:
    """Return Praat's measures ``[n, 11]`` of vocoded frames, the features of the third judge."""
    return np.concatenate([features(*batch, audio) for batch in frames.batches(CHUNK)])


def pitch(before: np.ndarray, after: np.ndarray, resamples: int) -> Iterator[Line]:
    """Measure how much of voice and F0 survives the codec, by Praat's measures ``[n, 11]`` before and after.

    Correlations are rank correlations over utterances in which at least a tenth of the frames is voiced both times. With fewer
    voiced frames, an octave error in one frame would change an utterance's whole F0 and dominate a correlation of values.
    """
    column = {name: i for i, name in enumerate(phonetics.MEASURES)}
    voiced, still = before[:, column["voiced"]] > 0, after[:, column["voiced"]] > 0
    shares = [f"{np.median(x[:, column['voiced']]):.2f}" for x in (before, after)]
    note = f"before: {voiced.mean():.3f}; median share of voiced frames {shares[0]} before, {shares[1]} after"
    yield Line(SECTION, "samples with a voiced frame after the codec", at_least=VOICED, note=note, **share(still))
    enough = np.minimum(before[:, column["voiced"]], after[:, column["voiced"]]) >= HEARD
    for name, (title, minimum) in PITCH.items():
        x, y = (part[enough, column[name]] for part in (before, after))

        def correlation(rows: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
            return float(spearmanr(x[rows], y[rows]).statistic)

        title = f"{title} before and after the codec (rank correlation)"
        estimate = bootstrap(correlation, len(x), min(resamples, 300)) if len(x) > 2 else {}
        note = f"n = {len(x)} with {HEARD:.0%} of their frames voiced in both"
        yield Line(SECTION, title, at_least=minimum, note=note, **estimate)


def agreement(subset: str, predictions: Mapping[str, np.ndarray], classes: int, resamples: int) -> Iterator[Line]:
    """Return Cohen's kappa of every pair of judges."""
    for first, second in combinations(predictions, 2):

        def kappa(rows: np.ndarray, a: np.ndarray = predictions[first], b: np.ndarray = predictions[second]) -> float:
            return float(cohen_kappa_score(a[rows], b[rows], labels=range(classes)))

        value = bootstrap(kappa, len(predictions[first]), min(resamples, 300))
        yield Line(SECTION, f"kappa of {first} and {second} on {subset}", **value)


def confusion(path: Path, emotions: tuple[str, ...], truth: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
    """Write the share of each predicted emotion by true emotion and judge as CSV."""
    rows = [
        {"judge": name, "emotion": emotion}
        | {predicted: float((classes[truth == k] == j).mean()) for j, predicted in enumerate(emotions)}
        for name, classes in predictions.items()
        for k, emotion in enumerate(emotions)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
