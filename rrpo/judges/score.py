"""Stages ``score`` and ``assess``: judges on every stored sample of a cell's policy optimization.

Both write a table with one row per sample, and derive the checkpoints' numbers from it. ``score`` uses held-out judges and also
stores audio. Within a cell only it and the stage ``intensity`` use the ``test`` judge (the validation report does too): nothing
that trains, tunes or selects reads their results. ``assess`` is for a search, or for choosing a regime: gold is the ``val``
judge, whose predictions were stored with the samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from rrpo.corpus.prompts import Prompt
from rrpo.judges.config import NoSettings, ScoreConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.sample_table import TABLE, Models, by_checkpoint, summary, tabulate
from rrpo.judges.samples import Samples, decoded, load_samples
from rrpo.judges.spoken import peak_scale
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.models.vocoder import vocode
from rrpo.pipeline.stages import Context

GOLD, COMMON = "test", "common"
"""Predictions in the table of ``score``: the held-out judge's, and those of the seed's pre-trained reward model, which all arms
share."""
TUNING = "val"
"""Judge that ``assess`` takes for gold."""


def load_models(inputs: Mapping[str, Path], device: str) -> Models:
    """Load the models of the roles ``codec``, ``recogniser``, `GOLD` and `COMMON`."""
    test = Judge.load(inputs[GOLD], device)
    return Models(
        codec=Codec.load(inputs["codec"], device),
        recogniser=Recogniser.load(inputs["recogniser"], device),
        emotions=test.emotions,
        opinions={GOLD: test, COMMON: RewardModel.load(inputs[COMMON], device)},
    )


def build(config: ScoreConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``score``: write `TABLE`, ``test_points.parquet`` (one row per checkpoint), ``scalars.json`` and
    ``audio/NN_emotion.wav`` of the last checkpoint. Reads the inputs of `tabulate`."""
    models = load_models(inputs, context.device)
    samples, prompts, points = _write(inputs, models, GOLD, [COMMON], out, context)
    points.to_parquet(out / "test_points.parquet", index=False)
    last = samples.at(samples.steps[-1])
    rows = choose_audio_prompts(last.of(prompts), config.audio_prompts)
    write_audio(out / "audio", last, prompts, rows, models.codec)


def assess(config: NoSettings, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``assess``: write `TABLE` without the held-out judge, and ``scalars.json``. Reads the inputs of `tabulate`."""
    codec = Codec.load(inputs["codec"], context.device)
    recogniser = Recogniser.load(inputs["recogniser"], context.device)
    emotions = Judge.load(inputs[TUNING], context.device).emotions
    _write(inputs, Models(codec, recogniser, emotions, opinions={}), TUNING, [], out, context)


def _write(
    inputs: Mapping[str, Path], models: Models, gold: str, others: Sequence[str], out: Path, context: Context
) -> tuple[Samples, tuple[Prompt, ...], pd.DataFrame]:
    """Write `TABLE`, and ``scalars.json`` with the checkpoints' first and last numbers. Return samples, prompts and numbers."""
    samples, prompts = load_samples(inputs)
    table = tabulate(samples, prompts, inputs, models, context.report)
    table.to_parquet(out / TABLE, index=False)
    points = by_checkpoint(table, gold, others)
    (out / "scalars.json").write_text(json.dumps(summary(points, gold)))
    return samples, prompts, points


def choose_audio_prompts(prompts: Sequence[Prompt], n: int) -> list[int]:
    """Return the indices of ``n`` early prompts, balanced over emotions."""
    counts: dict[str, int] = {}
    ranked = []
    for index, prompt in enumerate(prompts):
        counts[prompt.emotion] = counts.get(prompt.emotion, 0) + 1
        ranked.append((counts[prompt.emotion], index))
    return sorted(index for _, index in sorted(ranked)[:n])


def write_audio(folder: Path, samples: Samples, prompts: Sequence[Prompt], rows: Sequence[int], codec: Codec) -> None:
    """Write a 16-bit WAV, ``NN_emotion.wav``, of each index NN of ``rows`` among the samples of one checkpoint."""
    folder.mkdir()
    if not rows:
        return
    selected = samples.select(np.array(rows))
    F, lengths = decoded(selected, codec, prompts)
    waves = vocode(F, lengths, codec.audio).cpu().numpy()
    sizes = ((lengths - 1) * codec.audio.hop).clamp(min=1).tolist()
    for index, prompt, wave, size in zip(selected.prompt, selected.of(prompts), waves, sizes, strict=True):
        wave = wave[:size]
        path = folder / f"{index:02d}_{prompt.emotion}.wav"
        soundfile.write(path, wave * peak_scale(wave), codec.audio.sample_rate, subtype="PCM_16")
