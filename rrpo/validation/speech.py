"""Does rendered speech follow the published directions, and does intensity control its strength?

Every speaker says the same sentences neutrally and with each emotion's mean cues (no spread). The change of a measure from
neutral is compared with the sign in the literature (`rrpo.corpus.emotions` gives it). For intensity, the policy's speakers say
a sentence with an emotion's cues scaled from the weakest to the strongest that the world draws. The measured strength is the
change of the five measures and of the final rise (surprise has little else), each in cue units, projected on the emotion's
mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rrpo.corpus.draws import key
from rrpo.corpus.emotions import CUES, INTENSITY, draw_cues, ideal_observer, means, offset
from rrpo.corpus.render import UNITS, RenderSpec, render
from rrpo.corpus.speakers import Speaker, group_speakers
from rrpo.corpus.texts import draw_texts
from rrpo.judges import phonetics
from rrpo.pipeline.stages import Context
from rrpo.validation.config import SectionConfig
from rrpo.validation.lines import NOT_INSTALLED, Line, bootstrap, share

TITLES = {"f0_level": "F0 level", "f0_range": "F0 spread", "rate": "rate", "intensity": "intensity", "tilt": "tilt"}
"""Cues whose measured direction is tested."""
STRENGTH = (*TITLES, "final_rise")
"""Cues that determine an emotion's measured strength."""
STATED = 0.7
"""Minimum absolute mean of a cue, in units of the spread, that claims a direction."""
FLAT = 0.1
"""Lower bound of the spread of F0, in semitones."""
OBSERVED = 20_000
"""Draws for the ideal observer."""
TABLE = "phonetics.csv"
"""One row per speaker, emotion and sentence: language, speaker, emotion, and the change of each measure from neutral."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the sections *Speech* and *Ideal observer*; write `TABLE`."""
    if not phonetics.available():
        yield from (ideal_line(config), Line("Speech", "published directions", note=NOT_INSTALLED, at_least=1.0))
        return
    table = directions(config, context)
    table.to_csv(out / TABLE, index=False)
    yield from direction_lines(table)
    yield from intensity_lines(config)
    yield ideal_line(config)


def measured(spec: RenderSpec, cues: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Return Praat's measures of ``spec`` rendered with ``cues``."""
    wave = render(replace(spec, cues=tuple(float(cue) for cue in cues)), sample_rate)
    return dict(zip(phonetics.MEASURES, phonetics.measure(wave, sample_rate), strict=True))


def change(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the difference between two sets of measures of one sentence, in units of the cues."""
    raw = {
        "f0_level": after["f0_level"] - before["f0_level"],
        "f0_range": np.log(max(after["f0_spread"], FLAT) / max(before["f0_spread"], FLAT)),
        "rate": np.log(before["seconds"] / after["seconds"]),
        "intensity": after["intensity"] - before["intensity"],
        "tilt": after["tilt"] - before["tilt"],
        "final_rise": after["f0_rise"] - before["f0_rise"],
    }
    return {cue: float(value / UNITS[cue]) for cue, value in raw.items()}


def directions(config: SectionConfig, context: Context) -> pd.DataFrame:
    """Return the changes from neutral of every speaker, emotion and sentence, in cue units, at the emotion's mean cues."""
    world = config.world
    speakers, mu = group_speakers(world, "all"), means(world.emotions)
    rows = []
    for done, speaker in enumerate(speakers):
        neutral = offset(speaker.language)
        for spec in _neutral(config, speaker, config.card.sentences):
            before = measured(spec, neutral, world.audio.sample_rate)
            for k, emotion in enumerate(world.emotions):
                changes = change(before, measured(spec, mu[k] + neutral, world.audio.sample_rate))
                rows.append({"language": speaker.language, "speaker": speaker.id, "emotion": emotion} | changes)
        context.report(done + 1, len(speakers))
    return pd.DataFrame(rows)


def _neutral(config: SectionConfig, speaker: Speaker, sentences: int) -> list[RenderSpec]:
    """Return sentences of one speaker with the language's default cues."""
    seed, cues = config.world.seed, tuple(offset(speaker.language))
    texts = draw_texts(sentences, "judge_heldout", speaker.language, seed, "card", speaker.id)
    return [RenderSpec(text=t, speaker=speaker, cues=cues, seed=key(seed, "card", speaker.id, t)) for t in texts]


def direction_lines(table: pd.DataFrame) -> Iterator[Line]:
    """Return the share of means, by (emotion, language) and by (emotion, speaker), that change as published; one line per cue."""
    for by, least in (("language", 1.0), ("speaker", 0.95)):
        for cue, title in TITLES.items():
            column = CUES.index(cue)
            published = {emotion: means([emotion])[0, column] for emotion in table["emotion"].unique()}
            stated = {emotion: mean for emotion, mean in published.items() if abs(mean) >= STATED}
            claimed = table[table["emotion"].isin(stated)]
            changes = claimed.groupby(["emotion", by])[cue].mean()
            emotions = changes.index.get_level_values("emotion")
            hits = [bool(np.sign(stated[e]) * value > 0) for e, value in zip(emotions, changes, strict=True)]
            yield Line("Speech", f"{title} as published, by emotion and {by}", at_least=least, **share(hits))


def intensity_lines(config: SectionConfig) -> Iterator[Line]:
    """Return Spearman's correlation of an emotion's intensity with its measured strength, one line per emotion."""
    world = config.world
    levels = np.linspace(*INTENSITY, config.card.levels)
    columns = [CUES.index(cue) for cue in STRENGTH]
    specs = [
        spec for speaker in group_speakers(world, "policy") for spec in _neutral(config, speaker, config.card.sentences)
    ]
    before = [measured(spec, np.array(spec.cues), world.audio.sample_rate) for spec in specs]
    for emotion, mu in zip(world.emotions, means(world.emotions), strict=True):
        strengths = np.empty((len(specs), len(levels)))
        for i, spec in enumerate(specs):
            for j, level in enumerate(levels):
                cues = level * mu + offset(spec.speaker.language)
                changes = change(before[i], measured(spec, cues, world.audio.sample_rate))
                strengths[i, j] = np.dot([changes[cue] for cue in STRENGTH], mu[columns]) / np.square(mu[columns]).sum()

        def correlation(rows: np.ndarray, strengths: np.ndarray = strengths) -> float:
            return float(spearmanr(np.tile(levels, len(rows)), strengths[rows].ravel()).statistic)

        value = bootstrap(correlation, len(specs), config.card.resamples)
        yield Line("Speech", f"intensity of {emotion} against its measured strength", at_least=0.9, **value)


def ideal_line(config: SectionConfig) -> Line:
    """Return the accuracy of the ideal observer on cues drawn from the renderer's own distribution."""
    world = config.world
    rng = np.random.default_rng(key(world.seed, "card", "ideal observer"))
    labels = np.arange(OBSERVED) % len(world.emotions)
    languages = [world.language] * OBSERVED
    cues, _ = draw_cues(world.emotions, labels, languages, world.cue_spread, rng)
    posterior = ideal_observer(cues, world.emotions, world.language, world.cue_spread)
    value = share(posterior.argmax(1) == labels)
    return Line("Ideal observer", "accuracy on the renderer's cues", at_least=0.85, at_most=0.97, **value)
