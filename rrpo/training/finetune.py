"""Stage ``finetune``: robust fine-tuning of the reward model on the annotated set, Eq. 5; the model is frozen afterwards.

All arms of a seed share the initial model, batches, renditions, dropout and the draws of mixup; they differ only in the
regularizers' strengths. Batches are not grouped by length, unlike in pre-training: emotions differ in tempo, so a mixup partner
of similar length would share its host's label in 29 % of the cases instead of a fifth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from rrpo import seeding
from rrpo.config import FinetuneConfig
from rrpo.corpus.draws import key
from rrpo.corpus.features import SpeechSet
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.regularizers.objective import robust_loss, scalars_of
from rrpo.regularizers.registry import active
from rrpo.training.data import TrainingFrames, vote_shares
from rrpo.training.trainer import fit, multiplier

CURVES = "finetune_curves.parquet"
"""One row per step: ``step, loss, l_emo, l_adv, lambda, relative_delta``, and the values recorded by plugins' regularizers."""


def build(config: FinetuneConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fine-tune ``inputs["model"]`` on ``inputs["speech"]`` (renditions by ``inputs["codec"]``).

    Writes the model, its curves and ``scalars.json`` with means over the whole fine-tuning.
    """
    seed, device = config.seed, context.device
    speech = SpeechSet.load(inputs["speech"])
    model = RewardModel.load(inputs["model"], device).requires_grad_(True).train()
    frames = TrainingFrames.load(model.as_input(speech), inputs["codec"], device)
    model.regularizers = config.regularizers
    model = context.join(model)
    y = targets(speech, model.emotions, config.regularizers.soft_votes).to(device)
    order = seeding.permutation_batches(len(y), config.batch, config.steps, seed, "finetune.order")
    names = scalars_of(active(config.regularizers))
    history: dict[int, Tensor] = {}

    def loss(step: int) -> Tensor:
        F, lengths = frames.batch(order[step], seed, "finetune.rendition", step)
        torch.manual_seed(key(seed, "finetune.dropout", step))
        labels = y[torch.from_numpy(order[step]).to(device)]
        terms = robust_loss(model, F, lengths, labels, config.regularizers, seed, step)
        history[step] = torch.stack([terms[name].detach() for name in names])
        return terms["loss"]

    fit(
        model.parameters(),
        loss,
        config.steps,
        config.lr,
        context,
        schedule=partial(multiplier, schedule="constant"),
        history=history,
    )
    model.save(out)
    rows = [row.cpu() for row in history.values()]
    curves = pd.DataFrame(torch.stack(rows).numpy() if rows else None, columns=names, dtype="float64")
    curves.insert(0, "step", range(len(curves)))
    curves.to_parquet(out / CURVES, index=False)
    (out / "scalars.json").write_text(json.dumps(summary(curves)))


def targets(speech: SpeechSet, emotions: tuple[str, ...], soft_votes: bool) -> Tensor:
    """Return labels before smoothing ``[N, K]``: one-hot majority, or (control arm) the raters' vote shares."""
    if soft_votes:
        return vote_shares(speech, emotions)
    return functional.one_hot(speech.labels(emotions), len(emotions)).float()


def summary(curves: pd.DataFrame) -> dict[str, float]:
    """Return means over the fine-tuning; ``l_adv_over_l_emo`` is the quotient of the two means. Empty after 0 steps."""
    if curves.empty:
        return {}
    mean = {str(name): float(value) for name, value in curves.drop(columns="step").mean().items()}
    ratio = mean.pop("l_adv") / max(mean["l_emo"], 1e-12)
    return {"finetune_l_adv_over_l_emo": ratio, **{f"finetune_{name}": value for name, value in mean.items()}}
