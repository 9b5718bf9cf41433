"""By how much one reward model's gradient is scaled to be as large as another's (arm ``diffro_scaled``).

The size of a reward model's gradient g through the tokens is the root mean square of the change that it predicts, the sum over
positions of g[n, new] - g[n, old], where 30 % of an SFT sample's tokens are swapped for others drawn from the policy there: the
part of g that an update of the policy can follow. Stage ``fidelity`` stores these predictions, of the same samples and the same
swaps for all reward models of a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rrpo.diagnostics.fidelity import TABLE

OWN, WANTED = "own_fidelity", "rrpo_fidelity"
"""Inputs of stage ``optimize``: finished ``fidelity`` stages of the arm's own reward model and of the one to be matched."""


def match(inputs: Mapping[str, Path]) -> dict[str, float]:
    """``gradient_match``, the factor on the own reward model's gradient; empty where nothing is to be matched.

    Raises:
        ValueError: One of the two gradients is 0 or not finite.
    """
    if WANTED not in inputs:
        return {}
    own, wanted = (gradient_size(pd.read_parquet(inputs[name] / TABLE)) for name in (OWN, WANTED))
    if not (0 < own < math.inf and 0 < wanted < math.inf):
        raise ValueError(
            f"two reward models' gradients can be matched where both are finite and above 0, got {own:.4g} and {wanted:.4g}; "
            "set gradient_scale instead of match_gradient"
        )
    return {"gradient_match": wanted / own}


def gradient_size(swaps: pd.DataFrame) -> float:
    """Root mean square of the predicted change of reward over the swaps of many tokens, nats."""
    predicted = swaps.loc[swaps["kind"] == "many", "predicted"].to_numpy(float)
    return math.sqrt(float(predicted @ predicted) / len(predicted))
