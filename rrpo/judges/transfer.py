"""Stage ``transfer``: evaluate each arm's last samples of one seed with every other arm's reward model of that seed.

A policy that learned the emotion satisfies any reward model; one that exploits its own reward model satisfies only that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges import metrics
from rrpo.judges.config import NoSettings
from rrpo.judges.samples import Samples, decoded
from rrpo.models.codec import Codec
from rrpo.models.ensemble import load_reward_model
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context

TABLE = "transfer.parquet"
"""One row per pair of arms: ``samples_of, judged_by, accuracy, logprob, confidence, start_accuracy``.

``start_accuracy`` is the same reward model's accuracy on the SFT policy's samples, from which all arms of a seed start.
"""
SAMPLES, MODEL = "samples ", "model "
"""Prefixes of the input roles, followed by the arm's name."""


def build(config: NoSettings, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write `TABLE`. Reads ``samples ARM`` and ``model ARM`` of every arm, ``sft_samples``, ``eval_prompts``, ``codec``."""
    prompts = load_prompts(inputs["eval_prompts"])
    codec = Codec.load(inputs["codec"], context.device)
    arms = [role.removeprefix(SAMPLES) for role in inputs if role.startswith(SAMPLES)]
    models = {path: load_reward_model(path, context.device) for path in {inputs[MODEL + arm] for arm in arms}}
    rows: list[dict[str, float | str]] = []

    def evaluate(folder: Path) -> dict[Path, dict[str, float]]:
        samples = Samples.load(folder, len(prompts))
        last = samples.at(samples.steps[-1])
        F, lengths = decoded(last, codec, prompts)
        return {path: opinion(model, F, lengths, last.of(prompts)) for path, model in models.items()}

    start = evaluate(inputs["sft_samples"])
    for index, arm in enumerate(arms):
        end = evaluate(inputs[SAMPLES + arm])
        for judge in arms:
            path = inputs[MODEL + judge]
            rows.append({"samples_of": arm, "judged_by": judge, **end[path], "start_accuracy": start[path]["accuracy"]})
        context.report(index + 1, len(arms))
    pd.DataFrame(rows).to_parquet(out / TABLE, index=False)


def opinion(model: RewardModel, F: Tensor, lengths: Tensor, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Return accuracy, log-probability of the target and confidence of a reward model on ``F [P, T, M]``, ``lengths [P]``."""
    log_probs = model.log_probs(F, lengths).cpu().numpy()
    targets = np.array([model.emotions.index(prompt.emotion) for prompt in prompts])
    return {
        "accuracy": metrics.accuracy(log_probs, targets),
        "logprob": metrics.target_log_prob(log_probs, targets),
        "confidence": float(np.exp(log_probs.max(1)).mean()),
    }
