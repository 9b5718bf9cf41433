"""Quality of the SFT policy: gold accuracy, phone errors and length of its samples on unseen texts, and its loss curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from rrpo.corpus.features import SpeechSet
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.samples import load_samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import decoded_frames, labels, phone_errors, predict_log_probs, renditions
from rrpo.validation.lines import LEVEL, Estimate, Line, ratio

SECTION = "SFT policy"
TOLERANCE = 0.02
"""Maximum rise of a held-out loss above its minimum, in nats per token."""
TINY = 1e-9
"""Lower bound of a denominator."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *SFT policy* on the stored samples of the evaluation prompts before policy optimization."""
    device, resamples = context.device, config.card.resamples
    codec = Codec.load(inputs["codec"], device)
    samples, prompts = load_samples(inputs)
    samples = samples.at(samples.steps[0])
    frames = decoded_frames(samples, codec, prompts)
    clean = SpeechSet.load(inputs["clean"])
    _, resynthesized = renditions(clean, codec, device)
    targets = np.array([clean.emotions.index(prompt.emotion) for prompt in samples.of(prompts)])
    for done, (role, minimum) in enumerate((("val", 0.80), ("test", None))):
        judge = Judge.load(inputs[role], device)
        correct = predict_log_probs(judge, frames).argmax(1) == targets
        real_correct = predict_log_probs(judge, resynthesized).argmax(1) == labels(clean, clean.emotions)
        title = f"gold accuracy ({role}) / accuracy on re-synthesised real speech"
        note = f"{correct.mean():.3f} / {real_correct.mean():.3f}"
        yield Line(SECTION, title, at_least=minimum, note=note, **two_samples(correct, real_correct, resamples))
        context.report(done + 1, 3)
    references = [prompt.phones for prompt in samples.of(prompts)]
    sizes = np.array([len(phones) for phones in references])
    recogniser = Recogniser.load(inputs["recogniser_judge"], device)
    errors = phone_errors(recogniser, frames, references)
    real_errors = phone_errors(recogniser, resynthesized, [u.phones for u in clean.utterances])
    clean_sizes = np.array([len(u.phones) for u in clean.utterances])
    note = f"re-synthesised real speech {real_errors.sum() / clean_sizes.sum():.3f}"
    yield Line(SECTION, "phone error rate", at_most=0.15, note=note, **ratio(errors, sizes, resamples))
    pace = samples.lengths.astype(float) / sizes
    real_pace = resynthesized.lengths.cpu().numpy() / 2 / clean_sizes
    note, value = f"{pace.mean():.2f} / {real_pace.mean():.2f}", two_samples(pace, real_pace, resamples)
    yield Line(SECTION, "tokens a phone / real speech's", at_least=0.9, at_most=1.1, note=note, **value)
    for stream, role in (("base", "base"), ("sft", "policy")):
        yield over_fitting(pd.read_parquet(inputs[role] / f"{stream}_curves.parquet"), stream)
    context.report(3, 3)


def two_samples(top: np.ndarray, bottom: np.ndarray, resamples: int) -> Estimate:
    """Return the mean of ``top [n]`` over the mean of ``bottom [m]``, two independent samples that are resampled separately."""
    rng = np.random.default_rng(0)
    tops, bottoms = (rng.choice(x, (resamples, len(x))).mean(1) for x in (top, bottom))
    low, high = np.quantile(tops / np.maximum(bottoms, TINY), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {"value": float(top.mean() / max(bottom.mean(), TINY)), "low": float(low), "high": float(high)}


def over_fitting(curve: pd.DataFrame, stream: str) -> Line:
    """Return how far the final held-out loss lies above its minimum, in nats per token."""
    heldout = curve[f"{stream}_heldout_loss"].dropna().to_numpy()
    train = curve[f"{stream}_loss"].to_numpy()[-50:].mean()
    title = f"{stream}: end of the held-out loss above its lowest, nats a token"
    note = f"held-out {heldout[0]:.2f} -> {heldout[-1]:.2f}, train {train:.2f} at the end"
    return Line(SECTION, title, float(heldout[-1] - heldout.min()), at_most=TOLERANCE, note=note)
