"""The stage ``diagnose``: what else can be heard in a cell's stored samples, beside the ``test`` judge of the stage ``score``.

On every sample of every checkpoint: the seed's pre-trained reward model, which is one ruler for all arms of a seed, loops,
silences, drawls, and lengths that left the SFT policy's. At the first, the middle and the last checkpoint, on the first
prompts, vocoded: the third judge, which is not neural, prosody and voice; on fewer, naturalness by the predictor that is valid
in this world. What is not installed, not valid or not asked at a checkpoint is NaN. Nothing that trains, tunes or selects
reads this stage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrpo.audio import resampled
from rrpo.codec import Codec
from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges import metrics, naturalness, phonetics, speaker
from rrpo.judges.artefacts import OTHERS, detect
from rrpo.judges.config import DiagnoseConfig
from rrpo.judges.degenerate import looping, odd_length
from rrpo.judges.phonetic_judge import PhoneticJudge
from rrpo.judges.score import Samples, decoded
from rrpo.judges.spoken import waves_of
from rrpo.judges.yardsticks import VOICES
from rrpo.reward_model import RewardModel
from rrpo.stages import Context

PROSODY = ("f0_level", "f0_spread", "tempo", "intensity", "voiced")
"""Of `rrpo.judges.phonetics.MEASURES`, those that are kept."""


@dataclass(frozen=True)
class Listeners:
    """What hears waves; None where it is not installed or not valid."""

    third: PhoneticJudge | None
    voices: Mapping[str, np.ndarray] | None
    """Unit vector ``[256]`` of each speaker."""
    predictor: str
    """The valid predictor of naturalness, empty for none."""

    @classmethod
    def load(cls, inputs: Mapping[str, Path]) -> Listeners:
        """Reads the stages ``phonetic_judge`` (where Praat is installed) and ``yardsticks``."""
        third = PhoneticJudge.load(inputs["third"]) if "third" in inputs else None
        path, voices = inputs["yardsticks"] / VOICES, None
        if path.is_file():
            with np.load(path) as stored:
                voices = dict(zip(stored["speakers"].tolist(), stored["voices"], strict=True))
        return cls(third, voices, json.loads((inputs["yardsticks"] / "scalars.json").read_text())["naturalness"])


def build(config: DiagnoseConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes ``diagnosis_points.parquet`` (a row a checkpoint), ``diagnosis_samples.parquet`` (a sample), ``scalars.json``."""
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"] / "samples.npz", len(prompts))
    codec = Codec.load(inputs["codec"], context.device)
    common = RewardModel.load(inputs["common"], context.device)
    listeners = Listeners.load(inputs)
    size = len(samples.steps)
    points, heard = [], []
    for checkpoint, step in enumerate(samples.steps):
        F, lengths = decoded(samples, checkpoint, codec, prompts)
        row, each = on_frames(F, lengths, prompts, common, codec)
        row |= on_tokens(samples, checkpoint)
        n = config.spoken if checkpoint in (0, size // 2, size - 1) else 0
        spoken = on_waves(F[:n], lengths[:n], prompts, codec, listeners, config.naturalness)
        points.append({"step": int(step)} | row | means(spoken, prompts))
        heard.append(each.join(spoken).assign(step=int(step)))
        context.report(checkpoint + 1, len(samples.steps))
    table = pd.DataFrame(points)
    table.to_parquet(out / "diagnosis_points.parquet", index=False)
    pd.concat(heard, ignore_index=True).to_parquet(out / "diagnosis_samples.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps(summary(table)))


@torch.no_grad()
def on_frames(
    F: Tensor, lengths: Tensor, prompts: Sequence[Prompt], common: RewardModel, codec: Codec
) -> tuple[dict[str, float], pd.DataFrame]:
    """The common reward model's opinion of ``F [P, T, M]``, ``lengths [P]`` in frames, and shares of silences and drawls."""
    log_probs = common.log_probs(F, lengths).cpu().numpy()
    targets = np.array([common.emotions.index(prompt.emotion) for prompt in prompts])
    flags = detect(F, lengths, codec.audio)
    row = {
        "common_accuracy": metrics.accuracy(log_probs, targets),
        "common_logprob": metrics.target_log_prob(log_probs, targets),
        **{kind: float(flags[kind].float().mean()) for kind in OTHERS},
    }
    each = pd.DataFrame(
        {
            "prompt": np.arange(len(prompts)),
            "target": [prompt.emotion for prompt in prompts],
            "common": [common.emotions[k] for k in log_probs.argmax(1)],
        }
    )
    return row, each


def on_tokens(samples: Samples, checkpoint: int) -> dict[str, float]:
    """Shares of samples that loop, and whose length left that of the SFT policy's sample of the same prompt."""
    tokens = torch.from_numpy(samples.tokens[checkpoint].astype(np.int64))
    lengths, before = (torch.from_numpy(samples.lengths[k].astype(np.int64)) for k in (checkpoint, 0))
    return {
        "looping": float(looping(tokens, lengths).float().mean()),
        "odd_length": float(odd_length(lengths, before).float().mean()),
    }


def on_waves(
    F: Tensor, lengths: Tensor, prompts: Sequence[Prompt], codec: Codec, listeners: Listeners, asked: int
) -> pd.DataFrame:
    """What the listeners hear of ``F [n, T, M]``, a row a sample; naturalness of the first ``asked`` alone."""
    n, rate = len(F), codec.audio.sample_rate
    found = pd.DataFrame(index=range(n))
    if not n:
        return found
    waves = waves_of(F, lengths, codec.audio)
    if listeners.third is not None:
        x = np.array([phonetics.measure(wave, rate) for wave in waves])
        log_probs = listeners.third.of_measures(x).numpy()
        target = [listeners.third.emotions.index(prompt.emotion) for prompt in prompts[:n]]
        found["third"] = [listeners.third.emotions[k] for k in log_probs.argmax(1)]
        found["third_logprob"] = log_probs[np.arange(n), target].astype(float)
        found[list(PROSODY)] = x[:, [phonetics.MEASURES.index(name) for name in PROSODY]]
        found.loc[found["voiced"] == 0, ["f0_level", "f0_spread"]] = np.nan
    if listeners.voices is not None:
        names = sorted(listeners.voices)
        vectors = speaker.embeddings([resampled(wave, rate, speaker.RATE) for wave in waves])
        similarity = vectors @ np.array([listeners.voices[name] for name in names]).T
        own = [names.index(p.speaker) if p.speaker in listeners.voices else -1 for p in prompts[:n]]
        found["speaker_similarity"] = [row[k] if k >= 0 else np.nan for row, k in zip(similarity, own, strict=True)]
        found["speaker_right"] = np.where(np.array(own) < 0, np.nan, similarity.argmax(1) == own)
    if listeners.predictor and asked:
        found[listeners.predictor] = pd.Series(naturalness.predicted(listeners.predictor, waves[:asked], rate))
    return found


def means(spoken: pd.DataFrame, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Of `on_waves`: the checkpoint's metrics, NaN for those that were not measured."""
    row = dict.fromkeys(("third_accuracy", "third_logprob", "f0_spread", "f0_contrast", "voiced"), np.nan)
    row |= dict.fromkeys(("speaker_similarity", "speaker_right", *naturalness.MEASURES), np.nan)
    row |= {name: float(spoken[name].mean()) for name in row if name in spoken}
    if "third" in spoken:
        targets = pd.Series([prompt.emotion for prompt in prompts[: len(spoken)]])
        row["third_accuracy"] = float((spoken["third"] == targets).mean())
        row["f0_contrast"] = float(spoken["f0_level"].groupby(targets).mean().std(ddof=0))
    return row


def summary(points: pd.DataFrame) -> dict[str, float]:
    """``start_<metric>`` and ``end_<metric>`` of each column that was measured there."""
    ordered = points.sort_values("step").drop(columns="step")
    ends = {"start": ordered.iloc[0], "end": ordered.iloc[-1]}
    return {f"{when}_{name}": float(row[name]) for when, row in ends.items() for name in row.dropna().index}
