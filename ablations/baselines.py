"""Baselines for RRPO: other optimizers, other robust rewards, and guided decoding.

Optimizers are run on the vanilla and on the robust reward model. Except for what defines an arm, all share prompts, seeds, SFT
policy, data and judges. A section is a function that returns arms by name; its arms are registered in `rrpo.arms.ARMS`. The grid
``baselines`` runs the arms in `CORE`; select others with ``--arms``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ablations.guided_arms import guided_arms
from rrpo.arms import ARMS, BASE, RRPO, arm
from rrpo.config import ArmConfig
from rrpo.optimizers import OPTIMIZERS
from rrpo.plugins import Scalar
from rrpo.regularizers import CONTROLS

TAUS = {"tau": (2.0, 1.0, 0.8), "tau_half": (0.5,), "tau_two": (2.0,)}
"""Suffix of an arm's name -> schedule of the relaxation's temperature; the first is from HPRO (arXiv 2606.28249)."""
HPRO_WEIGHTS = (0.5, 5.0)
"""Weights of emotion and content in the reward of HPRO."""
MEMBERS = 4
"""Number of reward models in an ensemble or an average of weights."""
VARIANCE_PENALTY = 0.5
"""λ in the ensemble's reward, mean - λ variance; declared default, within the range tested by its source."""
BETAS = {"0": 0.0, "3e-4": 0.0003, "1e-3": 0.001, "1e-2": 0.01, "1e-1": 0.1}
"""Suffix of an arm's name -> weight of the KL penalty; ``diffro_kl`` has .03."""


def optimizers() -> dict[str, ArmConfig]:
    """Return arms with other optimizers, best-of-n, and variants of DiffRO; ``*_rrpo`` use the robust reward model.

    ``emo-dpo`` is the published form, which uses no reward model: pairs of utterances, each scored under its own emotion tag.
    """
    emotion, content = HPRO_WEIGHTS
    by_reward_model: dict[str, dict[str, Any]] = {
        "reinforce": {"optimizer": OPTIMIZERS.choice("reinforce")},
        "grpo": {"optimizer": OPTIMIZERS.choice("grpo")},
        "grpo-kl-reward": {"optimizer": OPTIMIZERS.choice("grpo", kl_in_reward=True)},
        "emo-dpo-samples": {"optimizer": OPTIMIZERS.choice("emo-dpo", pairs="samples", tags="requested")},
        "best_of_16": {"best_of": 16},
        "best_of_64": {"best_of": 64},
    }
    emo_dpo: dict[str, dict[str, Scalar]] = {
        "emo-dpo": {},
        "emo-dpo-requested": {"tags": "requested"},
        "emo-dpo-js": {"divergence": "js"},
        "emo-dpo-length": {"length_normalized": True},
    }
    variants: dict[str, dict[str, Any]] = {
        "gumbel": {"relaxation": "gumbel"},
        **{end: {"tau": tau} for end, tau in TAUS.items()},
        "multitask": {"emotion_weight": emotion, "content_weight": content},
        "chi2": {"penalty": "chi2"},
    }
    vanilla, robust = arm(BASE), arm(RRPO)
    return {
        **{name: replace(vanilla, **change) for name, change in by_reward_model.items()},
        **{f"{name}_rrpo": replace(robust, **change) for name, change in by_reward_model.items()},
        **{name: replace(vanilla, optimizer=OPTIMIZERS.choice("emo-dpo", **given)) for name, given in emo_dpo.items()},
        **{f"{BASE}_{end}": replace(vanilla, **change) for end, change in variants.items()},
        **{f"{RRPO}_{end}": replace(robust, **change) for end, change in variants.items()},
    }


def robust_arms() -> dict[str, ArmConfig]:
    """Return arms that make the reward robust by other means than RRPO's regularizers: a control for each of these, combined and
    iterated reward models, bounded rewards, and a sweep of β. Each differs from vanilla DiffRO in one respect.

    Sources, equations and hyperparameters are documented where they are declared (the regularizers' classes, `rrpo.config`);
    ``python -m ablations.arms`` prints them.
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


SECTIONS: tuple[Callable[[], dict[str, ArmConfig]], ...] = (optimizers, robust_arms, guided_arms)
"""Functions that return the arms."""
CORE: tuple[str, ...] = (
    *("reinforce", "reinforce_rrpo", "grpo", "grpo_rrpo"),
    *("emo-dpo", "emo-dpo-requested", "emo-dpo-samples", "emo-dpo-samples_rrpo"),
    *("best_of_16", "best_of_16_rrpo"),
    *("rm_worst", "rm_weights", "mixup", "length-mix", "reward_bounded"),
    *("emodiff", "classifier_free"),
)
"""Arms of the grid ``baselines``, in addition to SFT, DiffRO, RRPO and `controlled`."""


def controlled() -> list[str]:
    """Return the components of which `CORE` contains controls: they are compared with each other."""
    return list(dict.fromkeys(CONTROLS[name].control_of for name in CORE if name in CONTROLS))


def baselines() -> dict[str, ArmConfig]:
    """Return the arms of all sections by name."""
    return {name: config for section in SECTIONS for name, config in section().items()}


for _name, _config in baselines().items():
    ARMS.register(_name, _config)
