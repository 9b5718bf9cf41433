"""Arms that make the reward robust by other means than RRPO's three: the baselines that RRPO is held against.

Each is vanilla DiffRO but for one thing. What that is, with source, equation and knobs, stands where it is declared (the
regularisers' classes, `rrpo.config`), and ``python -m ablations.arms`` prints it.
"""

from __future__ import annotations

from dataclasses import replace

from rrpo.arms import BASE, arm
from rrpo.config import ArmConfig
from rrpo.regularizers import CONTROLS

MEMBERS = 4
"""Reward models that an ensemble or a mean of weights is made of."""
VARIANCE_PENALTY = 0.5
"""λ of the ensemble's mean - λ variance; declared default, within the range that its source tries."""
BETAS = {"0": 0.0, "3e-4": 0.0003, "1e-3": 0.001, "1e-2": 0.01, "1e-1": 0.1}
"""Weights of the KL penalty, as arms' names write them; beside them ``diffro_kl`` has .03."""


def robust_arms() -> dict[str, ArmConfig]:
    """Arms by name: a control of each of RRPO's regularisers, combined and iterated reward models, bounded rewards, a sweep
    of β.
    """
    vanilla = arm(BASE)
    combined = {"members": MEMBERS, "combination": "mean"}
    changes: dict[str, dict[str, object]] = {
        "soft_votes": {"regularizers": replace(vanilla.regularizers, soft_votes=True)},
        "rm_mean": combined,
        "rm_worst": combined | {"combination": "worst"},
        "rm_mean_variance": combined | {"variance_penalty": VARIANCE_PENALTY},
        "rm_weights": combined | {"combination": "weights"},
        "rm_iterated": {"rounds": 1},
        "reward_bounded": {"reward": "bounded"},
        "reward_clipped": {"reward": "clipped"},
        **{f"diffro_beta_{name}": {"beta": beta} for name, beta in BETAS.items()},
    }
    changed = {name: replace(vanilla, **change) for name, change in changes.items()}  # type: ignore[arg-type]
    return {name: arm(name) for name in CONTROLS} | changed
