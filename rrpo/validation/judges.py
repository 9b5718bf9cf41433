"""Reliability of the emotion judges: accuracy as a share of the ideal observer's, calibration, and agreement."""

from __future__ import annotations

from collections.abc import Mapping
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
from rrpo.validation.hearing import common, decoded_frames, heard, ideal_hits, labels, renditions
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


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> list[Line]:
    """Measure the section *Judges*."""
    device = context.device
    codec = Codec.load(inputs["codec"], device)
    sets = {name: SpeechSet.load(inputs[name]) for name in ("clean", "unheard", "artefacts")}
    emotions = sets["clean"].emotions
    clean, again = renditions(sets["clean"], codec, device)
    frames = {"clean": clean, "codec": again} | {
        name: TrainingFrames(sets[name], None, device).originals for name in ("unheard", "artefacts")
    }
    sets["codec"] = sets["clean"]
    answers: dict[str, dict[str, np.ndarray]] = {}
    judges = {name: Judge.load(inputs[name], device) for name in ("val", "test")}
    for done, (name, judge) in enumerate(judges.items()):
        answers[name] = {what: heard(judge, frames[what]) for what in OF_IDEAL}
        context.report(done + 1, len(NAMES))
    truth = {name: labels(speech, emotions) for name, speech in sets.items()}
    ideal = {name: ideal_hits(speech, config.world.cue_spread) for name, speech in sets.items()}
    found: list[Line] = []
    for name in ("test", "val"):
        found += of_ideal(name, answers[name], truth, ideal, config.card.resamples)
    found += [calibration(name, answers[name], truth, config.card.resamples) for name in ("test", "val")]
    found.append(differences(judges, inputs))
    stored, prompts = load_samples(inputs)
    samples = decoded_frames(stored.at(stored.steps[-1]), codec, prompts)  # of vanilla DiffRO
    ends = {name: heard(judge, samples).argmax(1) for name, judge in judges.items()}
    if phonetics.available():
        third = PhoneticJudge.load(inputs["third"])
        x = {name: measures(part, third.audio) for name, part in (("clean", clean), ("codec", again), ("end", samples))}
        third_answers = {name: third.of_measures(part).numpy() for name, part in x.items()}
        answers["third"], ends["third"] = {"clean": third_answers["clean"]}, third_answers["end"].argmax(1)
        right, after = (third_answers[name].argmax(1) == truth["clean"] for name in ("clean", "codec"))
        found.append(Line(section=SECTION, name="third (not neural): accuracy", at_least=0.75, **share(right)))
        found.append(Line(section=SECTION, name="third (not neural): accuracy through the codec", **share(after)))
        found += pitch(x["clean"], x["codec"], config.card.resamples)
    else:
        found.append(Line(section=SECTION, name="third (not neural): accuracy", at_least=0.75, note=NOT_INSTALLED))
    context.report(len(NAMES), len(NAMES))
    real = {name: answer["clean"].argmax(1) for name, answer in answers.items()}
    for what, predictions in (("real speech", real), ("end-of-training samples", ends)):
        found += agreement(what, predictions, len(emotions), config.card.resamples)
    confusion(out / "confusion.csv", emotions, truth["clean"], real)
    return found


def of_ideal(
    name: str,
    answers: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    ideal: Mapping[str, np.ndarray],
    resamples: int,
) -> list[Line]:
    """Return each accuracy divided by the ideal observer's on the same utterances; only ``test`` has thresholds."""
    lines = []
    for what, (title, least) in OF_IDEAL.items():
        right = answers[what].argmax(1) == truth[what]
        lines.append(
            Line(
                section=SECTION,
                name=f"{name} / ideal observer, {title}",
                at_least=least if name == "test" else None,
                note=f"accuracy {right.mean():.3f}, ideal observer {ideal[what].mean():.3f}, n = {len(right)}",
                **ratio(right, ideal[what], resamples),
            )
        )
    return lines


def calibration(name: str, answers: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], resamples: int) -> Line:
    """Return the ECE on real speech and its re-synthesis together; each utterance is resampled with both renditions."""
    both, n = np.stack([answers["clean"], answers["codec"]]), len(truth["clean"])

    def error(rows: np.ndarray) -> float:
        chosen = both[:, rows].reshape(-1, both.shape[2])
        return expected_calibration_error(chosen, np.tile(truth["clean"][rows], 2), bins=BINS)

    value = bootstrap(error, n, resamples)
    return Line(section=SECTION, name=f"{name}: calibration error (ECE, {BINS} bins)", at_most=0.05, **value)


def differences(judges: Mapping[str, Judge], inputs: Mapping[str, Path]) -> Line:
    """Return the number of aspects (architecture, data, input) in which ``val`` and ``test`` differ."""
    val, test = judges["val"], judges["test"]
    shared, texts = common(*(SpeechSet.load(inputs[f"data_{name}"]) for name in ("val", "test")))
    differ = (
        type(val.network) is not type(test.network),
        not shared and not texts,
        val.on_wave != test.on_wave,
    )
    title = "val and test differ in architecture, data and input"
    note = f"{shared} utterances in common, {texts} texts"
    return Line(section=SECTION, name=title, value=float(sum(differ)), at_least=3, note=note)


def measures(frames: Frames, audio: AudioConfig) -> np.ndarray:
    """Return Praat's measures ``[n, 11]`` of vocoded frames, the features of the third judge."""
    return np.concatenate([features(*batch, audio) for batch in frames.batches(CHUNK)])


def pitch(before: np.ndarray, after: np.ndarray, resamples: int) -> list[Line]:
    """Measure how much of voice and F0 survives the codec, by Praat's measures ``[n, 11]`` before and after.

    Correlations are rank correlations over utterances in which at least a tenth of the frames is voiced both times. With fewer
    voiced frames, an octave error in one frame would change an utterance's whole F0 and dominate a correlation of values.
    """
    place = {name: i for i, name in enumerate(phonetics.MEASURES)}
    voiced, still = before[:, place["voiced"]] > 0, after[:, place["voiced"]] > 0
    shares = [f"{np.median(x[:, place['voiced']]):.2f}" for x in (before, after)]
    note = f"before: {voiced.mean():.3f}; median share of voiced frames {shares[0]} before, {shares[1]} after"
    title = "samples with a voiced frame after the codec"
    lines = [Line(section=SECTION, name=title, at_least=VOICED, note=note, **share(still))]
    enough = np.minimum(before[:, place["voiced"]], after[:, place["voiced"]]) >= HEARD
    for name, (title, least) in PITCH.items():
        x, y = (part[enough, place[name]] for part in (before, after))

        def correlation(rows: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
            return float(spearmanr(x[rows], y[rows]).statistic)

        title = f"{title} before and after the codec (rank correlation)"
        known = bootstrap(correlation, len(x), min(resamples, 300)) if len(x) > 2 else {}
        note = f"n = {len(x)} with {HEARD:.0%} of their frames voiced in both"
        lines.append(Line(section=SECTION, name=title, at_least=least, note=note, **known))
    return lines


def agreement(what: str, predictions: Mapping[str, np.ndarray], classes: int, resamples: int) -> list[Line]:
    """Return Cohen's kappa of every pair of judges."""
    lines = []
    for one, other in combinations(predictions, 2):

        def kappa(rows: np.ndarray, a: np.ndarray = predictions[one], b: np.ndarray = predictions[other]) -> float:
            return float(cohen_kappa_score(a[rows], b[rows], labels=range(classes)))

        value = bootstrap(kappa, len(predictions[one]), min(resamples, 300))
        lines.append(Line(section=SECTION, name=f"kappa of {one} and {other} on {what}", **value))
    return lines


def confusion(path: Path, emotions: tuple[str, ...], truth: np.ndarray, predictions: Mapping[str, np.ndarray]) -> None:
    """Write the share of each predicted emotion by true emotion and judge as CSV."""
    rows = [
        {"judge": name, "emotion": emotion}
        | {other: float((answer[truth == k] == j).mean()) for j, other in enumerate(emotions)}
        for name, answer in predictions.items()
        for k, emotion in enumerate(emotions)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
