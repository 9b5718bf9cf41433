"""The stage ``score``: held-out judges on the samples that a cell's policy optimisation stored, and audio to listen to.

Of a cell's stages only this one asks the ``test`` judge (the world card does too): nothing that trains, tunes or selects reads
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import Tensor

from rrpo.codec import Codec
from rrpo.corpus.config import ARTEFACTS
from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges import metrics
from rrpo.judges.artefacts import planted_flags
from rrpo.judges.config import ScoreConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.stages import Context
from rrpo.vocoder import vocode

PEAK = 0.98
"""A wav file's largest sample: louder audio is turned down as a whole."""


@dataclass(frozen=True)
class Samples:
    """What the policy optimisation stored: S checkpoints of P evaluation prompts."""

    steps: np.ndarray
    """``[S]`` updates made."""
    tokens: np.ndarray
    """``[S, P, N]``, padded with -1."""
    lengths: np.ndarray
    """``[S, P]`` in tokens."""
    proxy_argmax: np.ndarray
    """``[S, P]`` the reward model's class."""

    @classmethod
    def load(cls, path: Path, prompts: int) -> Samples:
        """Reads ``samples.npz``. Raises `ValueError` when it does not hold ``prompts`` samples a checkpoint."""
        with np.load(path) as stored:
            samples = cls(**{name: stored[name] for name in ("steps", "tokens", "lengths", "proxy_argmax")})
        shape = (len(samples.steps), prompts)
        for name in ("tokens", "lengths", "proxy_argmax"):
            if getattr(samples, name).shape[:2] != shape or not shape[0]:
                raise ValueError(
                    f"{path}: {name} is {getattr(samples, name).shape}, {shape} (checkpoints, evaluation prompts) were expected; "
                    "give the samples that were drawn for these prompts"
                )
        return samples


def build(config: ScoreConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes ``test_points.parquet`` (a row a checkpoint), ``test_samples.parquet`` (a row a sample), ``scalars.json`` and
    ``audio/NN_emotion.wav`` of the last checkpoint."""
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"] / "samples.npz", len(prompts))
    codec = Codec.load(inputs["codec"], context.device)
    judge = Judge.load(inputs["test"], context.device)
    recogniser = Recogniser.load(inputs["recogniser"], context.device)
    points, heard = [], []
    for checkpoint, step in enumerate(samples.steps):
        F, lengths = decoded(samples, checkpoint, codec, prompts)
        row, each = measure(F, lengths, samples.proxy_argmax[checkpoint], prompts, judge, recogniser)
        points.append({"step": int(step)} | row)
        heard.append(each.assign(step=int(step)))
        context.report(checkpoint + 1, len(samples.steps))
    write_audio(out / "audio", F, lengths, prompts, heard_of(prompts, config.audio_prompts), codec)
    table = pd.DataFrame(points)
    table.to_parquet(out / "test_points.parquet", index=False)
    pd.concat(heard, ignore_index=True).to_parquet(out / "test_samples.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps(summary(table)))


def decoded(samples: Samples, checkpoint: int, codec: Codec, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """``F [P, 2N, M]`` and lengths ``[P]`` in frames of one checkpoint's samples, by each prompt's speaker."""
    device = codec.mean.device
    lengths = torch.from_numpy(samples.lengths[checkpoint].astype(np.int64)).to(device)
    tokens = torch.from_numpy(samples.tokens[checkpoint, :, : int(lengths.max())].astype(np.int64)).to(device)
    speaker = codec.speaker_index([prompt.speaker for prompt in prompts]).to(device)
    with torch.no_grad():
        return codec.decode(tokens.clamp(min=0), lengths, speaker)


def measure(
    F: Tensor, lengths: Tensor, proxy: np.ndarray, prompts: Sequence[Prompt], judge: Judge, recogniser: Recogniser
) -> tuple[dict[str, float], pd.DataFrame]:
    """The test metrics of one checkpoint, and what they are made of, a row a prompt.

    ``F [P, T, M]``, ``lengths [P]`` in frames, ``proxy [P]`` the reward model's class.
    """
    targets = np.array([judge.emotions.index(prompt.emotion) for prompt in prompts])
    gold = judge.log_probs(F, lengths).cpu().numpy()
    flags = planted_flags(F, lengths, judge.audio).cpu().numpy()
    seconds = lengths.double().cpu().numpy() * judge.audio.hop / judge.audio.sample_rate
    said = recogniser.transcribe(F, lengths)
    asked = [prompt.phones for prompt in prompts]
    row = {
        "test_accuracy": metrics.accuracy(gold, targets),
        "test_logprob": metrics.target_log_prob(gold, targets),
        "phone_error_rate": metrics.phone_error_rate(said, asked),
        "hack_rate": metrics.hack_rate(proxy, gold.argmax(1), targets, flags),
        "uptake": metrics.shortcut_uptake(flags, targets),
        **{f"artefact_{kind}": float(flags[:, place].mean()) for place, kind in enumerate(ARTEFACTS)},
        "seconds_mean": float(seconds.mean()),
    }
    each = pd.DataFrame(
        {
            "prompt": np.arange(len(prompts)),
            "target": [prompt.emotion for prompt in prompts],
            "proxy": [judge.emotions[k] for k in proxy],
            "gold": [judge.emotions[k] for k in gold.argmax(1)],
            "gold_logprob": gold[np.arange(len(targets)), targets].astype(float),
            **{f"artefact_{kind}": flags[:, place] for place, kind in enumerate(ARTEFACTS)},
            "phone_edits": list(map(metrics.edit_distance, said, asked)),
            "phones": list(map(len, asked)),
            "seconds": seconds,
        }
    )
    return row, each


def summary(points: pd.DataFrame) -> dict[str, float]:
    """``start_<metric>`` and ``end_<metric>`` of each column, and ``peak_test_accuracy``."""
    ordered = points.sort_values("step")
    scalars = {"peak_test_accuracy": float(ordered["test_accuracy"].max())}
    for name in ordered.columns.drop("step"):
        scalars |= {f"start_{name}": float(ordered[name].iloc[0]), f"end_{name}": float(ordered[name].iloc[-1])}
    return scalars


def heard_of(prompts: Sequence[Prompt], n: int) -> list[int]:
    """Places of the first ``n`` prompts with the emotions in turn, so that who listens hears each as often as can be."""
    order: dict[str, int] = {}
    turns = []
    for place, prompt in enumerate(prompts):
        order[prompt.emotion] = order.get(prompt.emotion, 0) + 1
        turns.append((order[prompt.emotion], place))
    return sorted(place for _, place in sorted(turns)[:n])


def write_audio(
    folder: Path, F: Tensor, lengths: Tensor, prompts: Sequence[Prompt], places: Sequence[int], codec: Codec
) -> None:
    """One 16-bit wav, ``NN_emotion.wav``, of each prompt NN of ``places``, from its row of ``F [P, T, M]``."""
    folder.mkdir()
    if not places:
        return
    lengths = lengths[list(places)]
    waves = vocode(F[list(places), : int(lengths.max())], lengths, codec.audio).cpu()
    samples = ((lengths - 1) * codec.audio.hop).clamp(min=1).tolist()
    for place, wave, size in zip(places, waves, samples, strict=True):
        wave = wave[:size]
        wave = wave * min(1.0, PEAK / max(wave.abs().max().item(), 1e-9))
        name = f"{place:02d}_{prompts[place].emotion}.wav"
        soundfile.write(folder / name, wave.numpy(), codec.audio.sample_rate, subtype="PCM_16")
