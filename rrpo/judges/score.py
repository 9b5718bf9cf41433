"""The stage ``score``: held-out judges on every sample that a cell's policy optimisation stored, and audio to listen to.

It writes a table with a row a sample, of which the checkpoints' numbers are made. Of a cell's stages only this one and
``intensity`` ask the ``test`` judge (the world card does too): nothing that trains, tunes or selects reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges.config import ScoreConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.sample_table import TABLE, Models, by_checkpoint, summary, tabulate
from rrpo.judges.samples import Samples, decoded
from rrpo.judges.spoken import peak_scale
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.models.vocoder import vocode
from rrpo.pipeline.stages import Context

GOLD, COMMON = "test", "common"
"""Whose opinions stand in the table: the held-out judge's, and that of the seed's pre-trained reward model, one for all arms."""


def load_models(inputs: Mapping[str, Path], device: str) -> Models:
    """Reads the stages of the roles ``codec``, ``recogniser``, `GOLD` and `COMMON`."""
    test = Judge.load(inputs[GOLD], device)
    return Models(
        codec=Codec.load(inputs["codec"], device),
        recogniser=Recogniser.load(inputs["recogniser"], device),
        emotions=test.emotions,
        opinions={GOLD: test, COMMON: RewardModel.load(inputs[COMMON], device)},
    )


def build(config: ScoreConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes `TABLE`, ``test_points.parquet`` (a row a checkpoint), ``scalars.json`` and ``audio/NN_emotion.wav`` of the last
    checkpoint; reads what `tabulate` does.
    """
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"], len(prompts))
    models = load_models(inputs, context.device)
    table = tabulate(samples, prompts, inputs, models, context.report)
    table.to_parquet(out / TABLE, index=False)
    last = samples.at(samples.steps[-1])
    write_audio(out / "audio", last, prompts, heard_of(last.of(prompts), config.audio_prompts), models.codec)
    points = by_checkpoint(table, models.emotions, GOLD, [COMMON])
    points.to_parquet(out / "test_points.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps(summary(points, GOLD)))


def heard_of(prompts: Sequence[Prompt], n: int) -> list[int]:
    """Places of the first ``n`` prompts with the emotions in turn, which balances how often a listener hears each."""
    order: dict[str, int] = {}
    turns = []
    for place, prompt in enumerate(prompts):
        order[prompt.emotion] = order.get(prompt.emotion, 0) + 1
        turns.append((order[prompt.emotion], place))
    return sorted(place for _, place in sorted(turns)[:n])


def write_audio(folder: Path, samples: Samples, prompts: Sequence[Prompt], places: Sequence[int], codec: Codec) -> None:
    """One 16-bit wav, ``NN_emotion.wav``, of each place NN of ``places`` among the samples of one checkpoint."""
    folder.mkdir()
    if not places:
        return
    chosen = samples.select(np.array(places))
    F, lengths = decoded(chosen, codec, prompts)
    waves = vocode(F, lengths, codec.audio).cpu().numpy()
    sizes = ((lengths - 1) * codec.audio.hop).clamp(min=1).tolist()
    for place, prompt, wave, size in zip(chosen.prompt, chosen.of(prompts), waves, sizes, strict=True):
        wave = wave[:size]
        path = folder / f"{place:02d}_{prompt.emotion}.wav"
        soundfile.write(path, wave * peak_scale(wave), codec.audio.sample_rate, subtype="PCM_16")
