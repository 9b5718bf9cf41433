"""Stage ``recognition``: emotion recognition of a trained reward model on an additional test set, as in RRPO's Table 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rrpo.corpus.features import SpeechSet
from rrpo.diagnostics.examine import accuracy, probabilities
from rrpo.judges.config import RecognitionConfig
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context


def build(config: RecognitionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Evaluate ``inputs["model"]`` on ``inputs["speech"]``, excluding utterances whose emotion is not one of its classes.

    Writes ``scalars.json`` with ``rm_wa_<name>`` and ``rm_ua_<name>`` and the number of utterances evaluated (``rm_n_<name>``)
    and excluded (``rm_left_out_<name>``); and ``recognition_<name>.parquet`` with one row each: id, speaker, emotion, predicted
    emotion.
    """
    model = RewardModel.load(inputs["model"], context.device)
    speech = model.as_input(SpeechSet.load(inputs["speech"]))
    known = np.flatnonzero([utterance.emotion in model.emotions for utterance in speech.utterances])
    p = probabilities(model, speech, context.device)[torch.from_numpy(known)]
    utterances = [speech.utterances[index] for index in known]
    labels = torch.tensor([model.emotions.index(utterance.emotion) for utterance in utterances])
    rows = [
        (utterance.id, utterance.speaker, utterance.emotion, model.emotions[predicted])
        for utterance, predicted in zip(utterances, p.argmax(1).tolist(), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["id", "speaker", "emotion", "heard"])
    table.to_parquet(out / f"recognition_{config.name}.parquet")
    scalars = {
        f"rm_wa_{config.name}": accuracy(p, labels),
        f"rm_ua_{config.name}": unweighted_accuracy(p, labels),
        f"rm_n_{config.name}": float(len(known)),
        f"rm_left_out_{config.name}": float(len(speech) - len(known)),
    }
    (out / "scalars.json").write_text(json.dumps(scalars))


def unweighted_accuracy(p: Tensor, labels: Tensor) -> float:
    """Return the mean recall over the classes that occur in ``labels [N]``, of the argmax of ``p [N, K]`` (any class)."""
    hits = (p.argmax(1) == labels).double()
    return float(torch.stack([hits[labels == k].mean() for k in labels.unique()]).mean())
