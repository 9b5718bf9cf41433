"""Stage ``score``: held-out judges on every stored sample of a cell's policy optimization, and audio of some.

It writes a table with one row per sample, and derives the checkpoints' numbers from it. Within a cell only this stage and
``intensity`` use the ``test`` judge (the validation report does too): nothing that trains, tunes or selects reads their
results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from rrpo.corpus.prompts import Prompt
from rrpo.judges.config import ScoreConfig
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
"""Predictions in the table: the held-out judge's, and those of the seed's pre-trained reward model, which all arms share."""


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
    """Write `TABLE`, ``test_points.parquet`` (one row per checkpoint), ``scalars.json`` and ``audio/NN_emotion.wav`` of the last
    checkpoint. Reads the inputs of `tabulate`."""
    samples, prompts = load_samples(inputs)
    models = load_models(inputs, context.device)
    table = tabulate(samples, prompts, inputs, models, context.report)
    table.to_parquet(out / TABLE, index=False)
    last = samples.at(samples.steps[-1])
    write_audio(
        out / "audio", last, prompts, choose_audio_prompts(last.of(prompts), config.audio_prompts), models.codec
    )
    points = by_checkpoint(table, models.emotions, GOLD, [COMMON])
    points.to_parquet(out / "test_points.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps(summary(points, GOLD)))


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
