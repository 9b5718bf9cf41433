"""Baselines that make the reward robust by other means than RRPO's three regularizers.

Each arm differs from vanilla DiffRO in one respect. Its source, equation and hyperparameters are documented where it is declared
(the regularizers' classes, `rrpo.config`), and ``python -m ablations.arms`` prints them.
"""

from __future__ import annotations

from dataclasses import replace

from rrpo.arms import BASE, arm
from rrpo.config import ArmConfig
from rrpo.regularizers import CONTROLS

MEMBERS = 4
"""Number of reward models in an ensemble or an average of weights."""
VARIANCE_PENALTY = 0.5
"""λ in the ensemble's reward, mean - λ variance; declared default, within the range tested by its source."""
BETAS = {"0": 0.0, "3e-4": 0.0003, "1e-3": 0.001, "1e-2": 0.01, "1e-1": 0.1}
"""Suffix of an arm's name -> weight of the KL penalty; ``diffro_kl`` has .03."""


def robust_arms() -> dict[str, ArmConfig]:
    """Return the arms by name: a control for each of RRPO's regularizers, combined and iterated reward models, bounded rewards,
    and a sweep of β.
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
    variants = {name: replace(vanilla, **change) for name, change in changes.items()}  # type: ignore[arg-type]
    return {name: arm(name) for name in CONTROLS} | variants
