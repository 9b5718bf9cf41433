"""Judge decoded samples of CosyVoice2 on audio, beside the judge on tokens: emotion, phone errors and naturalness.

The audio judge of emotion is the project's network on log-mel frames. It is trained on recordings of the texts of the held-out
token judge, so neither a reward model nor a policy was trained on them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rrpo.config import OFF, FinetuneConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import BATCH, frames_of, wave_of
from rrpo.corpus.manifest import Utterance, read_manifest
from rrpo.cosyvoice import tokens
from rrpo.cosyvoice.audio import MANIFEST
from rrpo.cosyvoice.config import Source
from rrpo.cosyvoice.reward import LabelledFrames, accuracy, read_parts, train_reward_model
from rrpo.errors import InputError
from rrpo.judges import content, naturalness
from rrpo.judges.config import CONTENT
from rrpo.models.reward_model import RewardModel
from rrpo.models.signals import LOG_MEL
from rrpo.packages import present
from rrpo.pipeline.stages import Context
from rrpo.training.data import Frames

TRAINING = FinetuneConfig(steps=400, lr=1e-3, regularizers=OFF)
"""Training of the audio judge; declared defaults."""
AUDIO = AudioConfig()
TEXTS: dict[str, Callable[[Any], Any]] = {
    "seed": lambda settings: settings["pretrain"]["seed"],
    "emotions": lambda settings: settings["emotions"],
    "number of evaluation prompts": lambda settings: settings["optimize"]["final_prompts"],
}
"""What decides, beside the corpus, on which texts a run is evaluated: name -> its value in the run's settings."""


def judge(
    corpus: Path,
    manifest: Path,
    runs: Sequence[Path],
    config: FinetuneConfig = TRAINING,
    context: Context | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Return one row for the recordings of the evaluation texts, then one for each run's decoded samples.

    Columns: number of samples, accuracy by the held-out reward model on tokens, unweighted average recall by the audio judge,
    mean phone error rate by Whisper, mean DNSMOS; NaN where a package is not installed or the judge does not apply.

    Args:
        corpus: Labelled tokens on which the runs were trained.
        manifest: The recordings.
        runs: Output folders of `rrpo.cosyvoice.run.train`, with the folder ``audio`` or ``recordings`` of `rrpo.cosyvoice.audio`.
        config: Training of the audio judge.
        context: Device and callbacks.
        tell: Called with lines of progress.

    Raises:
        InputError: A run is not finished or has no decoded samples, the runs have different evaluation texts or another corpus,
            or a recording is missing, has another emotion, or cannot be used.
    """
    context = context or Context()
    folders = [(run, part) for run in runs for part in ("audio", "recordings") if (run / part / MANIFEST).is_file()]
    if undecoded := [str(run) for run in runs if run not in {run for run, _ in folders}]:
        fix = "decode them first: python -m rrpo.cosyvoice decode"
        raise InputError("a run has no decoded samples", got=", ".join(undecoded), fix=fix)
    if unfinished := [str(run) for run in runs if not (run / tokens.SCALARS).is_file()]:
        fix = "finish it with the same command as before, and decode its samples"
        raise InputError("a run is not finished", got=", ".join(unfinished), fix=fix)
    settings = [json.loads((run / "settings.json").read_text("utf-8")) for run in runs]
    first, digest = settings[0], Source.of(corpus).digest
    for own in settings:
        differing = [name for name, read in TEXTS.items() if read(own) != read(first)]
        if differing:
            fix = "judge runs with the same corpus, emotions, seed and evaluation prompts"
            raise InputError("the runs have different evaluation texts", got=f"different {differing[0]}", fix=fix)
        if own.get("corpus") and own["corpus"]["digest"] != digest:
            fix = "give the labelled tokens on which the runs were trained: others have other texts of the judge"
            raise InputError("the runs were trained on another corpus", got=str(corpus), fix=fix)
    emotions, parts = read_parts(corpus, first["emotions"], first["pretrain"]["seed"])
    recorded = {utterance.id: utterance for utterance in read_manifest(manifest, None)}
    if missing := [utterance.id for part in parts for utterance in part if utterance.id not in recorded]:
        fix = "give the manifest from which the tokens were extracted"
        raise InputError("utterances without a recording", got=", ".join(missing[:5]), fix=fix)
    differ = [u.id for part in parts for u in part if recorded[u.id].emotion != u.emotion]
    if differ:
        fix = "give the manifest from which the tokens were extracted, with the same labels"
        raise InputError("utterances whose recording has another emotion", got=", ".join(differ[:5]), fix=fix)
    _, judged, evaluation = ([recorded[utterance.id] for utterance in part] for part in parts)
    data = analyzed(judged, context.device)
    tell(f"training the audio judge on {len(judged)} recordings")
    audio_judge = train_reward_model(data, emotions, config, model=RewardModelConfig(), context=context, signal=LOG_MEL)
    recogniser = cache(content.whisper) if all(map(present, CONTENT["whisper"])) else None
    evaluated = evaluation[: first["optimize"]["final_prompts"]]
    sets = [("recordings", evaluated, math.nan)]
    for run, part in folders:
        by_tokens = json.loads((run / tokens.SCALARS).read_text("utf-8"))["end_val_accuracy"]
        name, shown = (str(run), by_tokens) if part == "audio" else (f"{run}: recordings, decoded", math.nan)
        sets.append((name, [*read_manifest(run / part / MANIFEST, None)], shown))
    rows = []
    for name, utterances, shown in sets:
        tell(f"judging {name}: {len(utterances)} samples")
        rows.append(measured(utterances, audio_judge, recogniser, shown, context))
    return pd.DataFrame(rows, index=[name for name, *_ in sets])


def analyzed(utterances: Sequence[Utterance], device: str) -> LabelledFrames:
    """Return the log-mel frames of recordings. Raises `ManifestError` if a file cannot be used."""
    batches = (frames_of(utterances[start : start + BATCH], AUDIO) for start in range(0, len(utterances), BATCH))
    rows = [torch.from_numpy(mel).float().to(device) for batch in batches for mel in batch]
    return LabelledFrames(Frames(rows, AUDIO.floor), tuple(utterance.emotion for utterance in utterances))


def measured(
    utterances: Sequence[Utterance],
    judge: RewardModel,
    recogniser: Callable[[str], content.Hear] | None,
    by_tokens: float,
    context: Context,
) -> dict[str, float]:
    """Return all measurements of one set of utterances; ``recogniser`` gives the recognizer of a language, None if there is
    none. Each recognized utterance is reported."""
    waves = [wave_of(utterance, content.RATE).numpy() for utterance in utterances]
    errors = predicted = np.array([np.nan])
    if recogniser is not None:
        errors = np.empty(len(utterances))
        for i, (utterance, wave) in enumerate(zip(utterances, waves, strict=True)):
            errors[i] = content.phone_errors(recogniser(utterance.language), wave, utterance.phones)
            context.report(i + 1, len(utterances))
    if naturalness.available():
        predicted = naturalness.predicted("dnsmos", waves, content.RATE)
    return {
        "samples": len(utterances),
        "token judge": by_tokens,
        "audio judge": accuracy(judge, analyzed(utterances, context.device)),
        "phone errors": float(errors.mean()),
        "DNSMOS": float(predicted.mean()),
    }
