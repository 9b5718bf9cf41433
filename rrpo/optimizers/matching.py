"""Scale the gradient of one reward model to the size of another's (arm ``diffro_scaled``).

Swap 30 % of the tokens of an SFT sample for tokens drawn from the policy at these positions. The gradient g of a reward model
through the tokens predicts the change of reward, the sum over positions of g[n, new] - g[n, old]. The size of g is the root
mean square of this prediction, which measures the part of g that a policy update can follow. Stage ``fidelity`` stores the
predictions, for the same samples and swaps with all reward models of a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

TABLE = "fidelity_swaps.parquet"
"""One row per swap: ``kind`` (``one`` token or ``many``), ``prompt``, ``draw``, ``swapped`` (tokens), ``predicted``, ``own``,
``val``."""
OWN, WANTED = "own_fidelity", "rrpo_fidelity"
"""Inputs of stage ``optimize``: ``fidelity`` stages of the arm's reward model and of the one to match."""


def match(inputs: Mapping[str, Path]) -> dict[str, float]:
    """Return ``gradient_match``, the factor on the gradient of the arm's reward model; empty if there is nothing to match.

    Raises:
        ValueError: One of the two gradients is 0 or not finite.
    """
    if WANTED not in inputs:
        return {}
    own, target = (gradient_size(pd.read_parquet(inputs[name] / TABLE)) for name in (OWN, WANTED))
    if not (0 < own < math.inf and 0 < target < math.inf):
        raise ValueError(
            f"gradients of two reward models can be matched only if both are finite and above 0, got {own:.4g} and {target:.4g}; "
            "set gradient_scale instead of match_gradient"
        )
    return {"gradient_match": target / own}


def gradient_size(swaps: pd.DataFrame) -> float:
    """Return the root mean square of the predicted change of reward over the swaps of many tokens, nats."""
    predicted = swaps.loc[swaps["kind"] == "many", "predicted"].to_numpy(float)
    return math.sqrt(float(predicted @ predicted) / len(predicted))
