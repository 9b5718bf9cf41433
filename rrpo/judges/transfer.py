"""The stage ``transfer``: each arm's last samples of one seed, heard by every other arm's reward model of that seed.

A policy that learnt emotion pleases any reward model; one that learnt the habits of its own pleases that one alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rrpo.codec import Codec
from rrpo.config import TransferConfig
from rrpo.corpus.prompts import load_prompts
from rrpo.judges import metrics
from rrpo.judges.score import Samples, decoded
from rrpo.reward_model import RewardModel
from rrpo.stages import Context

TABLE = "transfer.parquet"
"""``samples_of, judged_by, accuracy, logprob, confidence``: a row a pair of arms."""
SAMPLES, MODEL = "samples ", "model "
"""Prefixes of the inputs' roles, before the arm's name."""
CHUNK = 64
"""Samples heard at once."""


@torch.no_grad()
def build(config: TransferConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes `TABLE`. Reads ``samples ARM`` and ``model ARM`` of every arm, ``eval_prompts`` and ``codec``."""
    prompts = load_prompts(inputs["eval_prompts"])
    codec = Codec.load(inputs["codec"], context.device)
    arms = [role.removeprefix(SAMPLES) for role in inputs if role.startswith(SAMPLES)]
    models = {path: RewardModel.load(path, context.device) for path in {inputs[MODEL + arm] for arm in arms}}
    rows = []
    for done, arm in enumerate(arms):
        samples = Samples.load(inputs[SAMPLES + arm] / "samples.npz", len(prompts))
        F, lengths = decoded(samples, len(samples.steps) - 1, codec, prompts)
        heard = {}
        for path, model in models.items():
            parts = zip(F.split(CHUNK), lengths.split(CHUNK), strict=True)
            heard[path] = torch.cat([model(f, n).log_softmax(1) for f, n in parts]).cpu().numpy()
        for judge in arms:
            path = inputs[MODEL + judge]
            targets = np.array([models[path].emotions.index(prompt.emotion) for prompt in prompts])
            rows.append(
                {
                    "samples_of": arm,
                    "judged_by": judge,
                    "accuracy": metrics.accuracy(heard[path], targets),
                    "logprob": metrics.target_log_prob(heard[path], targets),
                    "confidence": float(np.exp(heard[path].max(1)).mean()),
                }
            )
        context.report(done + 1, len(arms))
    pd.DataFrame(rows).to_parquet(out / TABLE, index=False)
