"""Baselines for RRPO: other optimizers, other robust rewards, and guided decoding.

Optimizers are run on the vanilla and on the robust reward model. Except for what defines an arm, all share prompts, seeds, SFT
policy, data and judges. A section is a function that returns arms by name; its arms are registered in `rrpo.arms.ARMS`. The grid
``baselines`` runs the arms in `CORE`; select others with ``--arms``.
"""

from __future__ import annotations

from collections.abc import Callable

from ablations.guided_arms import guided_arms
from ablations.robust_arms import robust_arms
from rrpo.arms import ARMS, paper_regularizers, regularizers
from rrpo.config import ArmConfig
from rrpo.optimizers import OPTIMIZERS

TAUS = {"tau": (2.0, 1.0, 0.8), "tau_half": (0.5,), "tau_two": (2.0,)}
"""Suffix of an arm's name -> schedule of the relaxation's temperature; the first is from HPRO (arXiv 2606.28249)."""
HPRO_WEIGHTS = (0.5, 5.0)
"""Weights of emotion and content in the reward of HPRO."""


def optimizers() -> dict[str, ArmConfig]:
    """Return arms with other optimizers, best-of-n, and variants of DiffRO; ``*_rrpo`` use the robust reward model.

    ``emo-dpo`` is the published form, which uses no reward model: pairs of utterances, each scored under its own emotion tag.
    """
    arms: dict[str, ArmConfig] = {}
    for suffix, parts in (("", []), ("_rrpo", paper_regularizers())):
        on = regularizers(parts)
        arms |= {
            f"reinforce{suffix}": ArmConfig(regularizers=on, optimizer=OPTIMIZERS.choice("reinforce")),
            f"grpo{suffix}": ArmConfig(regularizers=on, optimizer=OPTIMIZERS.choice("grpo")),
            f"grpo-kl-reward{suffix}": ArmConfig(
                regularizers=on, optimizer=OPTIMIZERS.choice("grpo", kl_in_reward=True)
            ),
            f"emo-dpo-samples{suffix}": ArmConfig(
                regularizers=on, optimizer=OPTIMIZERS.choice("emo-dpo", pairs="samples", tags="requested")
            ),
            f"best_of_16{suffix}": ArmConfig(regularizers=on, best_of=16),
            f"best_of_64{suffix}": ArmConfig(regularizers=on, best_of=64),
        }
    arms |= {
        "emo-dpo": ArmConfig(regularizers=regularizers(()), optimizer=OPTIMIZERS.choice("emo-dpo")),
        "emo-dpo-requested": ArmConfig(
            regularizers=regularizers(()), optimizer=OPTIMIZERS.choice("emo-dpo", tags="requested")
        ),
        "emo-dpo-js": ArmConfig(regularizers=regularizers(()), optimizer=OPTIMIZERS.choice("emo-dpo", divergence="js")),
        "emo-dpo-length": ArmConfig(
            regularizers=regularizers(()), optimizer=OPTIMIZERS.choice("emo-dpo", length_normalized=True)
        ),
    }
    emotion, content = HPRO_WEIGHTS
    for name, parts in (("diffro", []), ("rrpo", paper_regularizers())):
        on = regularizers(parts)
        arms |= {
            f"{name}_gumbel": ArmConfig(regularizers=on, relaxation="gumbel"),
            **{f"{name}_{end}": ArmConfig(regularizers=on, tau=tau) for end, tau in TAUS.items()},
            f"{name}_multitask": ArmConfig(regularizers=on, emotion_weight=emotion, content_weight=content),
            f"{name}_chi2": ArmConfig(regularizers=on, penalty="chi2"),
        }
    return arms


SECTIONS: tuple[Callable[[], dict[str, ArmConfig]], ...] = (optimizers, robust_arms, guided_arms)
"""Functions that return the arms."""
CORE: tuple[str, ...] = (
    *("reinforce", "reinforce_rrpo", "grpo", "grpo_rrpo"),
    *("emo-dpo", "emo-dpo-samples", "emo-dpo-samples_rrpo"),
    *("best_of_16", "best_of_16_rrpo"),
    *("rm_worst", "rm_weights", "mixup", "length-mix", "reward_bounded"),
    *("emodiff", "classifier_free"),
)
"""Arms of the grid ``baselines``, in addition to SFT, DiffRO and RRPO."""


def baselines() -> dict[str, ArmConfig]:
    """Return the arms of all sections by name."""
    return {name: arm for section in SECTIONS for name, arm in section().items()}


for _name, _arm in baselines().items():
    ARMS.register(_name, _arm)
