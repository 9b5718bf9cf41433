"""Stages of a judge registered by a plugin: ``judge_training``, once per world, and ``opinion``, once per cell."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrpo.corpus.features import SpeechSet
from rrpo.judges import metrics, sample_table
from rrpo.judges.protocol import JUDGES, Judge, JudgeTrainingConfig, OpinionConfig
from rrpo.judges.samples import Samples, load_samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.training.data import TrainingFrames


def samples_file(name: str) -> str:
    """Return the file name of the table with one row per sample: ``step, prompt, <name>, <name>_logprob``."""
    return f"{name}_samples.parquet"


def train(config: JudgeTrainingConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``judge_training``: train on ``speech``; measure accuracy on ``heldout``, as analyzed and re-synthesized by
    ``codec``."""
    speech, heldout = SpeechSet.load(inputs["speech"]), SpeechSet.load(inputs["heldout"])
    frames = TrainingFrames.load(speech, inputs["codec"], context.device).both
    labels = speech.labels(speech.emotions).repeat(2).to(context.device)
    judge_class = JUDGES.chosen(config.judge)
    judge = judge_class.train(frames, labels, speech.emotions, speech.audio, config.seed)
    _require(judge, heldout.emotions, "which occurs in the held-out speech")
    judge.save(out)
    heldout_frames = TrainingFrames.load(heldout, inputs["codec"], context.device).both
    batches = heldout_frames.batches(sample_table.CHUNK)
    with torch.no_grad():
        log_probs = torch.cat([judge.log_probs(*batch).cpu() for batch in batches]).numpy()
    targets = heldout.labels(judge.emotions).numpy()
    scalars = {
        "accuracy_original": metrics.accuracy(log_probs[: len(targets)], targets),
        "accuracy_resynthesised": metrics.accuracy(log_probs[len(targets) :], targets),
    }
    (out / "scalars.json").write_text(json.dumps(scalars))


@torch.no_grad()
def build(config: OpinionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``opinion``: write ``<name>_samples.parquet``, ``<name>_points.parquet`` and ``scalars.json``.

    Reads ``judge``, ``samples``, ``eval_prompts``, ``codec`` and, except for SFT, ``sft`` and ``sft_samples``. The scalars are
    the first and last accuracy and log-probability, and the judge's own accuracy on held-out speech.
    """
    name = config.judge.name
    samples, prompts = load_samples(inputs)
    judge = JUDGES.chosen(config.judge).load(inputs["judge"])
    codec = Codec.load(inputs["codec"], context.device)

    _require(judge, {prompt.emotion for prompt in prompts}, "which is the target of a prompt")

    def predict(chunk: Samples, rows: np.ndarray, F: Tensor, lengths: Tensor) -> pd.DataFrame:
        return pd.DataFrame(sample_table.opinion(name, judge, F, lengths, chunk.of(prompts)))

    predictions = sample_table.evaluate_once(
        samples,
        sample_table.first_of_sft(samples, len(prompts), inputs),
        inputs["sft"] / samples_file(name) if "sft" in inputs else None,
        [name, f"{name}_logprob"],
        lambda new: sample_table.in_chunks(new, prompts, codec, predict, context.report),
    )
    table = pd.concat([pd.DataFrame({"step": samples.step, "prompt": samples.prompt}), predictions], axis=1)
    table.to_parquet(out / samples_file(name), index=False)
    targets = table.assign(target=[prompt.emotion for prompt in samples.of(prompts)])
    points = sample_table.per_step(targets, lambda rows: sample_table.agreement(rows, name))
    points.to_parquet(out / f"{name}_points.parquet", index=False)
    heldout_scalars = json.loads((inputs["judge"] / "scalars.json").read_text())
    scalars = {f"{name}_heldout_{key}": value for key, value in heldout_scalars.items()}
    (out / "scalars.json").write_text(json.dumps(sample_table.first_and_last(points) | scalars))


def _require(judge: Judge, emotions: Collection[str], where: str) -> None:
    """Raise ValueError for an emotion that is not one of the judge's classes."""
    if unknown := sorted(set(emotions) - set(judge.emotions)):
        raise ValueError(
            f"the {judge.label} does not know the emotion {unknown[0]!r}, {where}; it knows "
            f"{', '.join(judge.emotions)}. Train it on speech that contains all emotions, or omit its plugin"
        )
