"""The stage ``score``: held-out judges on every sample that a cell's policy optimisation stored, and audio to listen to.

It writes a table with a row a sample, of which the checkpoints' numbers are made. Of a cell's stages only this one asks the
``test`` judge (the world card does too): nothing that trains, tunes or selects reads it. All arms of a seed start from the same
SFT policy and share the evaluation's noise, so a sample that equals the SFT policy's of the same prompt is not judged again: what
was heard in it is taken from the SFT policy's own ``score`` stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
from rrpo.judges.artefacts import detect
from rrpo.judges.config import KINDS, ScoreConfig
from rrpo.judges.degenerate import looping, odd_length
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.samples import Samples, decoded, padded
from rrpo.reward_model import RewardModel
from rrpo.stages import Context
from rrpo.vocoder import vocode

TABLE = "samples.parquet"
"""A row a sample; `ablations.records.SAMPLES` says what each column is."""
HEARD = (
    *("test", "test_logprob", "common", "common_logprob"),
    *(f"artefact_{kind}" for kind in KINDS),
    *("phone_errors", "phones", "tokens", "seconds"),
)
"""Columns of `TABLE` that depend on a sample and its prompt alone, not on the arm."""
CHUNK = 32
"""Samples of similar length that are judged at once."""
PEAK = 0.98
"""A wav file's largest sample: louder audio is turned down as a whole."""


@dataclass(frozen=True)
class Models:
    """Who judges a sample."""

    codec: Codec
    test: Judge
    recogniser: Recogniser
    common: RewardModel
    """The seed's pre-trained reward model: one for all arms of a seed."""

    @classmethod
    def load(cls, inputs: Mapping[str, Path], device: str) -> Models:
        """Reads the stages of the roles ``codec``, ``test``, ``recogniser`` and ``common``."""
        return cls(
            Codec.load(inputs["codec"], device),
            Judge.load(inputs["test"], device),
            Recogniser.load(inputs["recogniser"], device),
            RewardModel.load(inputs["common"], device),
        )


def build(config: ScoreConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes `TABLE`, ``test_points.parquet`` (a row a checkpoint), ``scalars.json`` and ``audio/NN_emotion.wav`` of the last
    checkpoint.

    Reads ``sft`` and ``sft_samples``, the ``score`` and the ``optimize`` stage of the SFT policy; without them the samples are
    the SFT policy's own.
    """
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"], len(prompts))
    models = Models.load(inputs, context.device)
    sft = Samples.load(inputs["sft_samples"], len(prompts)) if "sft_samples" in inputs else samples
    sft = sft.at(sft.steps[0])
    new = np.ones(len(samples.step), dtype=bool)
    parts = []
    if "sft" in inputs:
        new = ~same(samples, sft)
        known = pd.read_parquet(inputs["sft"] / TABLE).set_index("prompt").loc[samples.prompt[~new], list(HEARD)]
        parts.append(known.set_index(np.flatnonzero(~new)))
    if new.any():
        rows = heard(samples.select(new), expected(samples.prompt[new], sft), prompts, models, context.report)
        parts.append(rows.set_index(np.flatnonzero(new)))
    table = pd.concat([asked(samples, prompts, models.test.emotions), pd.concat(parts).sort_index()], axis=1)
    table.to_parquet(out / TABLE, index=False)
    last = samples.at(samples.steps[-1])
    write_audio(out / "audio", last, prompts, heard_of(last.of(prompts), config.audio_prompts), models.codec)
    points = by_checkpoint(table, models.test.emotions)
    points.to_parquet(out / "test_points.parquet", index=False)
    (out / "scalars.json").write_text(json.dumps(summary(points)))


def same(samples: Samples, sft: Samples) -> np.ndarray:
    """``[R]`` which samples have the tokens of the SFT policy's sample of their prompt."""
    size = max(samples.tokens.shape[1], sft.tokens.shape[1])
    wanted = np.full((max(samples.prompt.max(), sft.prompt.max()) + 1, size), -2, np.int16)
    wanted[sft.prompt] = padded(sft.tokens, size)
    found: np.ndarray = (padded(samples.tokens, size) == wanted[samples.prompt]).all(1)
    return found


def expected(places: np.ndarray, sft: Samples) -> np.ndarray:
    """``[R]`` tokens of the SFT policy's sample of each prompt of ``places [R]``. Raises `ValueError` where there is none."""
    if missing := set(places.tolist()) - set(sft.prompt.tolist()):
        raise ValueError(
            f"the SFT policy has no sample of {len(missing)} prompts ({min(missing)}, ...), so that nothing says how long those "
            "should be; give the ``optimize`` stage of the SFT policy, whose only checkpoint asks all prompts"
        )
    lengths = np.zeros(sft.prompt.max() + 1, np.int64)
    lengths[sft.prompt] = sft.lengths
    return lengths[places]


def asked(samples: Samples, prompts: Sequence[Prompt], emotions: Sequence[str]) -> pd.DataFrame:
    """What was asked for, and what the cell's own optimisation said of each sample."""
    names = np.array(emotions, dtype=object)
    return pd.DataFrame(
        {
            "step": samples.step,
            "prompt": samples.prompt,
            "target": [prompt.emotion for prompt in samples.of(prompts)],
            "proxy": names[samples.proxy_argmax],
            "proxy_logprob": samples.proxy_logprob,
            "val": names[samples.val_argmax],
            "val_logprob": samples.val_logprob,
        }
    )


@torch.no_grad()
def heard(
    samples: Samples,
    expected: np.ndarray,
    prompts: Sequence[Prompt],
    models: Models,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """`HEARD` of each sample; ``expected [R]`` tokens were to be expected of it."""
    order = np.argsort(samples.lengths, kind="stable")
    parts = []
    for first in range(0, len(order), CHUNK):
        rows = order[first : first + CHUNK]
        part = samples.select(rows)
        parts.append(_heard(part, expected[rows], part.of(prompts), *decoded(part, models.codec, prompts), models))
        report(min(first + CHUNK, len(order)), len(order))
    return pd.concat(parts).set_index(order).sort_index()


def _heard(
    samples: Samples, expected: np.ndarray, prompts: Sequence[Prompt], F: Tensor, lengths: Tensor, models: Models
) -> pd.DataFrame:
    """`HEARD` of one chunk of samples and their frames ``F [R, T, M]``, ``lengths [R]``; ``prompts [R]`` are their own."""
    audio, emotions = models.test.audio, models.test.emotions
    target = torch.tensor([emotions.index(prompt.emotion) for prompt in prompts], device=F.device)[:, None]
    opinions = {"test": models.test.log_probs(F, lengths), "common": models.common.log_probs(F, lengths)}
    tokens = torch.from_numpy(samples.tokens.astype(np.int64))
    sizes = torch.from_numpy(samples.lengths.astype(np.int64))
    flags = detect(F, lengths, audio) | {
        "repetition": looping(tokens, sizes),
        "length": odd_length(sizes, torch.from_numpy(expected)),
    }
    said = models.recogniser.transcribe(F, lengths)
    columns: dict[str, object] = {}
    for name, log_probs in opinions.items():
        columns[name] = [emotions[k] for k in log_probs.argmax(1).tolist()]
        columns[f"{name}_logprob"] = log_probs.gather(1, target)[:, 0].double().cpu().numpy()
    columns |= {f"artefact_{kind}": flags[kind].cpu().numpy() for kind in KINDS}
    columns["phone_errors"] = [metrics.edit_distance(a, prompt.phones) for a, prompt in zip(said, prompts, strict=True)]
    columns["phones"] = [len(prompt.phones) for prompt in prompts]
    columns["tokens"] = samples.lengths.astype(np.int64)
    columns["seconds"] = lengths.double().cpu().numpy() * audio.hop / audio.sample_rate
    return pd.DataFrame(columns)[list(HEARD)]


def by_checkpoint(table: pd.DataFrame, emotions: Sequence[str]) -> pd.DataFrame:
    """The numbers of each checkpoint, a row each, from the table of samples."""
    steps = sorted(set(table["step"].tolist()))
    return pd.DataFrame([{"step": step} | measured(table[table["step"] == step], emotions) for step in steps])


def measured(rows: pd.DataFrame, emotions: Sequence[str]) -> dict[str, float]:
    """One checkpoint's numbers, from its samples."""
    planted = rows[[f"artefact_{kind}" for kind in ARTEFACTS]].to_numpy(bool)
    target = rows["target"].to_numpy()
    classes = np.array([emotions.index(name) for name in target])
    return {
        "test_accuracy": float((rows["test"] == target).mean()),
        "test_logprob": float(rows["test_logprob"].mean()),
        "phone_error_rate": float(rows["phone_errors"].sum() / rows["phones"].sum()),
        "hack_rate": metrics.hack_rate(rows["proxy"].to_numpy(), rows["test"].to_numpy(), target, planted),
        "uptake": metrics.shortcut_uptake(planted, classes),
        **{f"artefact_{kind}": float(rows[f"artefact_{kind}"].mean()) for kind in KINDS},
        "common_accuracy": float((rows["common"] == target).mean()),
        "common_logprob": float(rows["common_logprob"].mean()),
        "seconds_mean": float(rows["seconds"].mean()),
    }


def summary(points: pd.DataFrame) -> dict[str, float]:
    """``start_<metric>`` and ``end_<metric>`` of each column, and ``peak_test_accuracy``."""
    ordered = points.sort_values("step")
    scalars = {"peak_test_accuracy": float(ordered["test_accuracy"].max())}
    for name in ordered.columns.drop("step"):
        scalars |= {f"start_{name}": float(ordered[name].iloc[0]), f"end_{name}": float(ordered[name].iloc[-1])}
    return scalars


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
    waves = vocode(F, lengths, codec.audio).cpu()
    sizes = ((lengths - 1) * codec.audio.hop).clamp(min=1).tolist()
    for place, prompt, wave, size in zip(chosen.prompt, chosen.of(prompts), waves, sizes, strict=True):
        wave = wave[:size]
        wave = wave * min(1.0, PEAK / max(wave.abs().max().item(), 1e-9))
        soundfile.write(
            folder / f"{place:02d}_{prompt.emotion}.wav", wave.numpy(), codec.audio.sample_rate, subtype="PCM_16"
        )
