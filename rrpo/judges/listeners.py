"""Optional listeners: evaluations of vocoded samples that need an optional package. Each is a stage that no other stage and no
cell's hash depends on. ``vocode`` stores the waves for all of them.

``phonetics``: the third, non-neural judge, and prosody (praat-parselmouth). ``voice``: similarity to the speaker (resemblyzer's
weights). ``naturalness``: the published predictor that is valid in this world (speechmos, onnxruntime). ``content``: the
phone error rate by a published recogniser, ``whisper`` or ``hama`` (`rrpo.judges.content`). Each writes
``<name>_samples.parquet``, ``<name>_points.parquet`` and ``scalars.json``; rows of step 0 are the SFT policy's, measured once per
seed (without updates, as in guided decoding, the arm's own). Nothing that trains, tunes or selects reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from rrpo.audio import resampled
from rrpo.corpus.prompts import load_prompts
from rrpo.judges import speaker
from rrpo.judges.config import ContentConfig, NaturalnessConfig, NoSettings, VocodeConfig
from rrpo.judges.content import RATE, RECOGNISERS, phone_errors
from rrpo.judges.naturalness import predicted
from rrpo.judges.phonetic_judge import PhoneticJudge
from rrpo.judges.phonetics import MEASURES, measure
from rrpo.judges.sample_table import first_and_last, per_step
from rrpo.judges.samples import decoded, load_samples
from rrpo.judges.spoken import peak_scale, waves_of
from rrpo.judges.yardsticks import VOICES
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context

TABLE = "waves.parquet"
"""One row per wave: ``step, prompt, target, speaker``, its ``size`` in `WAVES`, and its stored ``scale``."""
WAVES = "waves.flac"
"""The waves, concatenated, 16 bit."""
PROSODY = ("f0_level", "f0_spread", "tempo", "intensity", "voiced")
"""The measures of `rrpo.judges.phonetics.MEASURES` that are stored."""


@dataclass(frozen=True)
class Vocoded:
    """Waves of samples."""

    table: pd.DataFrame
    """``step, prompt, target, speaker`` of each wave."""
    waves: list[np.ndarray]
    """``[S]`` each, at their original level."""
    rate: int
    """Hz."""

    @classmethod
    def load(cls, folder: Path) -> Vocoded:
        """Load the waves written by `vocode`."""
        table = pd.read_parquet(folder / TABLE)
        samples, rate = soundfile.read(folder / WAVES, dtype="float32")
        waves = np.split(samples, np.cumsum(table["size"])[:-1])
        scaled = [wave / scale for wave, scale in zip(waves, table["scale"], strict=True)]
        return cls(table[["step", "prompt", "target", "speaker"]], scaled, rate)


def vocode(config: VocodeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``samples``, ``eval_prompts`` and ``codec``; write `TABLE` and `WAVES` of the middle and the last checkpoint."""
    samples, prompts = load_samples(inputs)
    middle, last = samples.steps[len(samples.steps) // 2], samples.steps[-1]
    samples = samples.select(np.isin(samples.step, (middle, last)) & (samples.prompt < config.prompts))
    codec = Codec.load(inputs["codec"], context.device)
    waves = waves_of(*decoded(samples, codec, prompts), codec.audio)
    scales = list(map(peak_scale, waves))
    sample_prompts = samples.of(prompts)
    pd.DataFrame(
        {
            "step": samples.step,
            "prompt": samples.prompt,
            "target": [prompt.emotion for prompt in sample_prompts],
            "speaker": [prompt.speaker for prompt in sample_prompts],
            "size": list(map(len, waves)),
            "scale": scales,
        }
    ).to_parquet(out / TABLE, index=False)
    concatenated = np.concatenate([wave * scale for wave, scale in zip(waves, scales, strict=True)])
    soundfile.write(out / WAVES, concatenated, codec.audio.sample_rate, subtype="PCM_16")


def phonetics(config: NoSettings, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``waves``, ``third`` (the stage ``phonetic_judge``) and, except for SFT, ``sft``."""
    vocoded, third = Vocoded.load(inputs["waves"]), PhoneticJudge.load(inputs["third"])
    x = np.array([measure(wave, vocoded.rate) for wave in vocoded.waves])
    log_probs = third.of_measures(x).numpy()
    target = [third.emotions.index(emotion) for emotion in vocoded.table["target"]]
    table = vocoded.table.assign(
        third=[third.emotions[k] for k in log_probs.argmax(1)],
        third_logprob=log_probs[np.arange(len(x)), target].astype(float),
        **{name: x[:, MEASURES.index(name)] for name in PROSODY},
    )
    table.loc[table["voiced"] == 0, ["f0_level", "f0_spread"]] = np.nan

    def summarize(rows: pd.DataFrame) -> dict[str, float]:
        level = rows["f0_level"].groupby(rows["target"]).mean()
        return {
            "third_accuracy": float((rows["third"] == rows["target"]).mean()),
            **{name: float(rows[name].mean()) for name in ("third_logprob", "voiced", "f0_spread")},
            "f0_contrast": float(level.std(ddof=0)),
        }

    _write("phonetics", table, summarize, inputs, out)


def voice(config: NoSettings, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``waves``, ``speakers`` and, except for SFT, ``sft``; write NaN for a speaker without a voice in ``speakers``."""
    vocoded = Vocoded.load(inputs["waves"])
    with np.load(inputs["speakers"] / VOICES) as stored:
        names, voices = stored["speakers"].tolist(), stored["voices"]
    vectors = speaker.embeddings([resampled(wave, vocoded.rate, speaker.RATE) for wave in vocoded.waves])
    similarity = vectors @ voices.T
    voice_index = np.array([names.index(name) if name in names else -1 for name in vocoded.table["speaker"]])
    table = vocoded.table.assign(
        speaker_similarity=np.where(voice_index < 0, np.nan, similarity[np.arange(len(voice_index)), voice_index]),
        speaker_right=np.where(voice_index < 0, np.nan, similarity.argmax(1) == voice_index),
    )
    _write("voice", table, lambda rows: _means(rows, ("speaker_similarity", "speaker_right")), inputs, out)


def naturalness(config: NaturalnessConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``waves``, ``predictor`` and, except for SFT, ``sft``; write only the samples' own columns if no predictor is
    valid."""
    vocoded = Vocoded.load(inputs["waves"])
    name = json.loads((inputs["predictor"] / "scalars.json").read_text())["naturalness"]
    rows = _last(vocoded.table, config.prompts)
    table = vocoded.table.iloc[rows]
    if name:
        table = table.assign(**{name: predicted(name, [vocoded.waves[row] for row in rows], vocoded.rate)})
    _write("naturalness", table, lambda rows: _means(rows, (name,) if name else ()), inputs, out)


def content(config: ContentConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``waves``, ``eval_prompts`` and, except for SFT, ``sft``; write the phone error rates of a published recogniser."""
    vocoded, prompts = Vocoded.load(inputs["waves"]), load_prompts(inputs["eval_prompts"])
    rows = _last(vocoded.table, config.prompts)
    hear, column = RECOGNISERS[config.recogniser](config.language), f"{config.recogniser}_phone_errors"
    table = vocoded.table.iloc[rows]
    waves = [np.asarray(resampled(vocoded.waves[row], vocoded.rate, RATE)) for row in rows]
    errors = [phone_errors(hear, wave, prompts[i].phones) for wave, i in zip(waves, table["prompt"], strict=True)]
    _write(config.recogniser, table.assign(**{column: errors}), lambda rows: _means(rows, (column,)), inputs, out)


def _last(table: pd.DataFrame, prompts: int) -> np.ndarray:
    """Return the row numbers of the first ``prompts`` of the last checkpoint."""
    return np.flatnonzero((table["step"] == table["step"].max()) & (table["prompt"] < prompts))


def _means(rows: pd.DataFrame, names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(rows[name].mean()) for name in names}


def _write(
    name: str,
    table: pd.DataFrame,
    summarize: Callable[[pd.DataFrame], dict[str, float]],
    inputs: Mapping[str, Path],
    out: Path,
) -> None:
    """Write a listener's tables: ``table`` of the cell's own waves, after the same listener's of SFT."""
    samples = f"{name}_samples.parquet"
    parts = [pd.read_parquet(inputs["sft"] / samples)] if "sft" in inputs else []
    combined = pd.concat([*parts, table], ignore_index=True).drop_duplicates(["step", "prompt"])
    combined.to_parquet(out / samples, index=False)
    points = per_step(combined, summarize)
    points.to_parquet(out / f"{name}_points.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps(first_and_last(points)))
