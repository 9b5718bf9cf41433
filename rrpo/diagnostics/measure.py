"""Stage ``measure``: the measures that a plugin's regularizer takes on a trained reward model as its manipulation check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rrpo.corpus.features import SpeechSet
from rrpo.judges.config import MeasureConfig
from rrpo.models.ensemble import load_reward_model
from rrpo.pipeline.stages import Context
from rrpo.regularizers.registry import chosen


def build(config: MeasureConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write the scalars that the regularizer measures in ``inputs["model"]`` on ``inputs["rm_valid"]``."""
    regularizer = chosen(config.regularizer)
    model = load_reward_model(inputs["model"], context.device)
    scalars = regularizer.measure(model, SpeechSet.load(inputs["rm_valid"]), context.device)
    if sorted(scalars) != sorted(regularizer.measures):
        raise ValueError(
            f"the regularizer {config.regularizer.name!r} declares the measures {', '.join(regularizer.measures)}, "
            f"but measured {', '.join(scalars) or 'nothing'}; make the two lists equal"
        )
    (out / "scalars.json").write_text(json.dumps(scalars))
