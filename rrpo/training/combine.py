"""Stage ``combine``: combine several frozen reward models of a seed into one for an arm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rrpo.config import CombineConfig
from rrpo.models.ensemble import combined
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context


def build(config: CombineConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Combine the reward models of all inputs, in the order of their roles' names.

    Writes the files that `rrpo.models.ensemble.load_reward_model` reads, and ``scalars.json`` with the members' means.
    """
    folders = [inputs[role] for role in sorted(inputs)]
    members = [RewardModel.load(folder) for folder in folders]
    combined(members, config.combination, config.variance_penalty).save(out)
    member_scalars = [json.loads((folder / "scalars.json").read_text()) for folder in folders]
    means = {name: float(np.mean([scalars[name] for scalars in member_scalars])) for name in member_scalars[0]}
    (out / "scalars.json").write_text(json.dumps(means))
