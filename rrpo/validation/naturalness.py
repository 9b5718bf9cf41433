"""Validity of the naturalness predictors: use the first one that ranks clean above clicked re-synthesis, on fixed prompts, or
none.

The criterion and the utterances are those of `rrpo.judges.yardsticks`, here with intervals. Insensitivity to clicks is a fault
of the predictor, not of the world, so that line reports it and counts neither as passed nor as failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rrpo.judges import naturalness
from rrpo.judges.samples import decoded, load_samples
from rrpo.judges.spoken import waves_of
from rrpo.judges.yardsticks import clean_and_clicked
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.validation.config import SectionConfig
from rrpo.validation.lines import NOT_INSTALLED, Line, mean

SECTION = "Naturalness"


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *Naturalness* with one vocoder throughout. These values must not be called N-MOS."""
    title = "clean re-synthesis above clicked"
    least = config.predictor.separation
    if not naturalness.available():
        yield Line(SECTION, title, at_least=least, note=NOT_INSTALLED)
        return
    codec = Codec.load(inputs["codec"], context.device)
    rate, n = codec.audio.sample_rate, config.predictor.planted
    clean, clicked = clean_and_clicked(inputs["speech"], n, codec)
    for done, name in enumerate(naturalness.MEASURES):
        last = name == naturalness.MEASURES[-1]
        clean_scores, clicked_scores = (naturalness.predicted(name, waves, rate) for waves in (clean, clicked))
        gap = mean(clean_scores - clicked_scores, config.card.resamples)
        valid = gap["value"] >= least
        consequence = "no naturalness is reported" if last else f"next: {naturalness.MEASURES[done + 1]}"
        note = "used" if valid else f"not used, {least} asked; {consequence}"
        yield Line(SECTION, f"{name}: {title}", at_least=least if valid else None, note=note, **gap)
        context.report(done + 1, len(naturalness.MEASURES))
        if valid:
            samples, prompts = load_samples(inputs)
            sft_samples = samples.select((samples.step == samples.steps[0]) & (samples.prompt < n))
            policy = naturalness.predicted(name, waves_of(*decoded(sft_samples, codec, prompts), codec.audio), rate)
            for source, scores in (("codec re-synthesis", clean_scores), ("SFT policy", policy)):
                yield Line(SECTION, f"{name}: {source}", **mean(scores, config.card.resamples))
            break
