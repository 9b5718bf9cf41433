"""The table of a cell's samples: one row per sample with its target, the outputs of the cell's own optimization, and evaluations.

Stage ``score`` creates it with the held-out judges' predictions, stage ``assess`` without them. All arms of a seed start from
the same SFT policy and share the evaluation's noise. A sample that equals the SFT policy's for the same prompt is therefore not
judged again: its evaluations are copied from the SFT policy's table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchaudio.functional import edit_distance

from rrpo.corpus.config import ARTEFACTS
from rrpo.corpus.prompts import Prompt
from rrpo.judges import metrics
from rrpo.judges.artefacts import detect, looping, odd_length
from rrpo.judges.config import KINDS
from rrpo.judges.emotion import Judge
from rrpo.judges.protocol import TrainedJudge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.samples import Samples, decoded, padded
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel

TABLE = "samples.parquet"
"""One row per sample; ``docs/mlflow.md`` describes the columns."""
CHUNK = 32
"""Samples of similar length that are judged at once."""
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Models:
    """Models that evaluate a sample."""

    codec: Codec
    recogniser: Recogniser
    emotions: Sequence[str]
    """Class names in index order."""
    opinions: Mapping[str, Judge | RewardModel]
    """Emotion classifiers by the column of their prediction; may be empty."""

    @property
    def evaluated_columns(self) -> list[str]:
        """Columns that depend only on a sample and its prompt, not on the arm."""
        opinions = [column for name in self.opinions for column in (name, f"{name}_logprob")]
        return [*opinions, *(f"artefact_{kind}" for kind in KINDS), "phone_errors", "phones", "tokens", "seconds"]


def tabulate(
    samples: Samples, prompts: Sequence[Prompt], inputs: Mapping[str, Path], models: Models, report: Report
) -> pd.DataFrame:
    """Return the table of ``samples``, in their order.

    Reads ``sft_samples``, the ``optimize`` stage of the SFT policy, and from ``sft`` its `TABLE` by the same models. Without
    these inputs, the samples are the SFT policy's own.
    """
    sft = first_of_sft(samples, len(prompts), inputs)

    def evaluate(new: Samples) -> pd.DataFrame:
        return evaluate_samples(new, expected(new.prompt, sft), prompts, models, report)

    sft_file = inputs["sft"] / TABLE if "sft" in inputs else None
    evaluations = evaluate_once(samples, sft, sft_file, models.evaluated_columns, evaluate)
    return pd.concat([requests(samples, prompts, models.emotions), evaluations], axis=1)


def first_of_sft(samples: Samples, prompts: int, inputs: Mapping[str, Path]) -> Samples:
    """Return the SFT policy's samples: those of ``sft_samples``, or else the first checkpoint of ``samples``."""
    sft = Samples.load(inputs["sft_samples"], prompts) if "sft_samples" in inputs else samples
    return sft.at(sft.steps[0])


def evaluate_once(
    samples: Samples,
    sft: Samples,
    sft_file: Path | None,
    columns: Sequence[str],
    evaluate: Callable[[Samples], pd.DataFrame],
) -> pd.DataFrame:
    """Return ``columns`` of ``samples``, in their order, from ``evaluate``.

    For samples that equal the SFT policy's samples ``sft``, copy the values from its table, ``sft_file``; None: there is
    no table yet.
    """
    new = np.ones(len(samples.step), dtype=bool)
    parts = []
    if sft_file is not None:
        new = ~same(samples, sft)
        rows = pd.read_parquet(sft_file).set_index("prompt").loc[samples.prompt[~new], list(columns)]
        parts.append(rows.set_index(np.flatnonzero(~new)))
    if new.any():
        parts.append(evaluate(samples.select(new)).set_index(np.flatnonzero(new)))
    return pd.concat(parts).sort_index()


def same(samples: Samples, sft: Samples) -> np.ndarray:
    """Return ``[R]``: whether a sample has the tokens of the SFT policy's sample for its prompt."""
    size = max(samples.tokens.shape[1], sft.tokens.shape[1])
    sft_tokens = np.full((max(samples.prompt.max(), sft.prompt.max()) + 1, size), -2, np.int16)
    sft_tokens[sft.prompt] = padded(sft.tokens, size)
    equal: np.ndarray = (padded(samples.tokens, size) == sft_tokens[samples.prompt]).all(1)
    return equal


def expected(prompts: np.ndarray, sft: Samples) -> np.ndarray:
    """Return ``[R]``: token counts of the SFT policy's sample of each prompt in ``prompts [R]``.

    Raises:
        ValueError: The SFT policy has no sample of a prompt.
    """
    if missing := set(prompts.tolist()) - set(sft.prompt.tolist()):
        raise ValueError(
            f"the SFT policy has no sample of {len(missing)} prompts ({min(missing)}, ...), so their expected length "
            "is unknown; give the ``optimize`` stage of the SFT policy, whose only checkpoint samples all prompts"
        )
    return pd.Series(sft.lengths, sft.prompt, dtype=np.int64).loc[prompts].to_numpy()


def requests(samples: Samples, prompts: Sequence[Prompt], emotions: Sequence[str]) -> pd.DataFrame:
    """Return each sample's target, and the outputs of the cell's own optimization for it."""
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
def evaluate_samples(
    samples: Samples,
    expected: np.ndarray,
    prompts: Sequence[Prompt],
    models: Models,
    report: Report = lambda done, total: None,
) -> pd.DataFrame:
    """Return `Models.evaluated_columns` of each sample; ``expected [R]`` are the expected token counts."""
    audio = models.codec.audio

    def evaluate(chunk: Samples, rows: np.ndarray, F: Tensor, lengths: Tensor) -> pd.DataFrame:
        own = chunk.of(prompts)
        tokens = torch.from_numpy(chunk.tokens.astype(np.int64))
        sizes = torch.from_numpy(chunk.lengths.astype(np.int64))
        flags = detect(F, lengths, audio) | {
            "repetition": looping(tokens, sizes),
            "length": odd_length(sizes, torch.from_numpy(expected[rows])),
        }
        transcripts = models.recogniser.transcribe(F, lengths)
        columns: dict[str, object] = {}
        for name, judge in models.opinions.items():
            columns |= opinion(name, judge, F, lengths, own)
        columns |= {f"artefact_{kind}": flags[kind].cpu().numpy() for kind in KINDS}
        phones = [prompt.phones for prompt in own]
        columns["phone_errors"] = list(map(edit_distance, transcripts, phones))
        columns["phones"] = list(map(len, phones))
        columns["tokens"] = chunk.lengths.astype(np.int64)
        columns["seconds"] = lengths.double().cpu().numpy() * audio.hop / audio.sample_rate
        return pd.DataFrame(columns)[models.evaluated_columns]

    return in_chunks(samples, prompts, models.codec, evaluate, report)


def in_chunks(
    samples: Samples,
    prompts: Sequence[Prompt],
    codec: Codec,
    evaluate: Callable[[Samples, np.ndarray, Tensor, Tensor], pd.DataFrame],
    report: Report,
) -> pd.DataFrame:
    """Apply ``evaluate`` to chunks of samples of similar length, and return one table in the samples' order.

    ``evaluate`` receives the chunk, its row numbers among the samples, and its frames ``F [R, T, M]``, ``lengths [R]``.
    """
    order = np.argsort(samples.lengths, kind="stable")
    parts = []
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        chunk = samples.select(rows)
        parts.append(evaluate(chunk, rows, *decoded(chunk, codec, prompts)))
        report(min(start + CHUNK, len(order)), len(order))
    return pd.concat(parts).set_index(order).sort_index()


def opinion(
    name: str, judge: TrainedJudge | RewardModel, F: Tensor, lengths: Tensor, prompts: Sequence[Prompt]
) -> dict[str, object]:
    """Return a judge's columns for samples with frames ``F [R, T, M]``, ``lengths [R]``: ``<name>``, the predicted emotion, and
    ``<name>_logprob``, the log-probability of the prompt's.

    Raises:
        ValueError: The judge's output has another shape than ``[R, K]``, or is not a number.
    """
    log_probs = judge.log_probs(F, lengths).double().cpu().numpy()
    if log_probs.shape != (len(F), len(judge.emotions)):
        raise ValueError(f"log_probs of {name} have shape {log_probs.shape}, not {(len(F), len(judge.emotions))}")
    if np.isnan(log_probs).any():
        raise ValueError(f"log_probs of {name} are not a number for {int(np.isnan(log_probs).any(1).sum())} samples")
    targets = [judge.emotions.index(prompt.emotion) for prompt in prompts]
    predictions = [judge.emotions[k] for k in log_probs.argmax(1)]
    return {name: predictions, f"{name}_logprob": log_probs[np.arange(len(targets)), targets]}


def by_checkpoint(table: pd.DataFrame, gold: str, others: Sequence[str] = ()) -> pd.DataFrame:
    """Return the numbers of each checkpoint, one row each, from the table of samples; see `measured`."""
    return per_step(table, lambda rows: measured(rows, gold, others))


def per_step(table: pd.DataFrame, summarize: Callable[[pd.DataFrame], dict[str, float]]) -> pd.DataFrame:
    """Return one row per checkpoint: its ``step``, and ``summarize`` of its samples."""
    steps = sorted(set(table["step"].tolist()))
    return pd.DataFrame([{"step": step} | summarize(table[table["step"] == step]) for step in steps])


def measured(rows: pd.DataFrame, gold: str, others: Sequence[str]) -> dict[str, float]:
    """Return one checkpoint's numbers from its samples. Hacking is by the judge ``gold``; for ``others`` only accuracies are
    added."""
    planted = rows[[f"artefact_{kind}" for kind in ARTEFACTS]].to_numpy(bool)
    target = rows["target"].to_numpy()
    own_artefact = np.array(metrics.artefact_columns(target.tolist()))
    return {
        **agreement(rows, gold),
        "phone_error_rate": float(rows["phone_errors"].sum() / rows["phones"].sum()),
        "hack_rate": metrics.hack_rate(rows["proxy"].to_numpy(), rows[gold].to_numpy(), target, planted),
        "uptake": metrics.shortcut_uptake(planted, own_artefact),
        **{f"artefact_{kind}": float(rows[f"artefact_{kind}"].mean()) for kind in KINDS},
        **{name: value for other in others for name, value in agreement(rows, other).items()},
        "seconds_mean": float(rows["seconds"].mean()),
    }


def agreement(rows: pd.DataFrame, judge: str) -> dict[str, float]:
    """Return a judge's accuracy and mean log-probability of the target."""
    return {
        f"{judge}_accuracy": float((rows[judge] == rows["target"]).mean()),
        f"{judge}_logprob": float(rows[f"{judge}_logprob"].mean()),
    }


def first_and_last(points: pd.DataFrame) -> dict[str, float]:
    """Return ``start_<metric>`` and ``end_<metric>`` of each column that is not NaN in the first and the last row."""
    ends = {"start": points.iloc[0], "end": points.iloc[-1]}
    return {f"{prefix}_{key}": float(v) for prefix, row in ends.items() for key, v in row.drop("step").dropna().items()}


def summary(points: pd.DataFrame, gold: str) -> dict[str, float]:
    """Return ``start_<metric>`` and ``end_<metric>`` of each column, and the peak of gold's accuracy."""
    ordered = points.sort_values("step")
    scalars = {f"peak_{gold}_accuracy": float(ordered[f"{gold}_accuracy"].max())}
    for name in ordered.columns.drop("step"):
        scalars |= {f"start_{name}": float(ordered[name].iloc[0]), f"end_{name}": float(ordered[name].iloc[-1])}
    return scalars
