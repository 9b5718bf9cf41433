"""Arms of guided decoding: three published systems of emotional TTS adapted to token models, and sweeps of their hyperparameters.

These arms optimize no policy: they draw from an SFT policy with a modified distribution. `docs/systems.md` lists what each
reproduces of its paper. Labels of sweeps are ``arm@setting``.
"""

from __future__ import annotations

from dataclasses import replace

from rrpo.config import ArmConfig
from rrpo.experiment.dataflow import SFT
from rrpo.models.guidance import GUIDANCE
from rrpo.plugins import Scalar

TAG_DROPOUT = 0.15
"""Tag dropout in SFT, for guidance that evaluates the policy under null tags (ZET-Speech: .1 to .2)."""
STYLE_WEIGHT = 10.0
"""Weight of EmoMix's style loss; declared default. At the start of SFT the loss is .05, and the cross-entropy is 3 nats."""
GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths of classifier-free guidance in sweeps; 0 measures the cost of tag dropout alone."""
CLASSIFIER_GAMMAS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Strengths of guidance by the prefix classifier in sweeps; 0 is the policy under the null tag."""
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Intensities of EmoDiff's soft label in sweeps."""
REVERSAL = 1.0
"""Weight of the gradient reversal for ZET-Speech's speaker vectors; declared default."""
ZERO_SHOT_GAMMAS = (0.0, 1.5, 3.0)
"""Strengths of classifier-free guidance for unseen speakers in sweeps (ZET-Speech: 1.25 to 1.5)."""
SECONDS = ("happy", "sad", "angry")
"""Second emotions of EmoMix in sweeps."""


def guided(name: str, *, tag_dropout: float = 0.0, **options: Scalar) -> ArmConfig:
    """Return the arm with an entry of `rrpo.models.guidance.GUIDANCE`."""
    return replace(SFT, guidance=GUIDANCE.choice(name, **options), tag_dropout=tag_dropout)


def classifier_free(gamma: float = 1.5) -> ArmConfig:
    """Return the arm with ZET-Speech's guidance for the policy's own speakers."""
    return guided("classifier-free", tag_dropout=TAG_DROPOUT, gamma=gamma)


def soft_label(alpha: float = 1.0, gamma: float = 4.0) -> ArmConfig:
    """Return the arm with EmoDiff's guidance; at the default strength, gold is well above chance on a development seed."""
    return guided("soft-label", tag_dropout=TAG_DROPOUT, alpha=alpha, gamma=gamma)


def zero_shot(gamma: float = 1.5, reversal: float = REVERSAL) -> ArmConfig:
    """Return the arm of ZET-Speech: its guidance, for unseen speakers given by references from which emotion is removed."""
    return replace(classifier_free(gamma), reversal=reversal)


def mixture(second: str = "surprised", style_weight: float = 0.0) -> ArmConfig:
    """Return the arm with EmoMix's schedule: the requested emotion, then both, then ``second``.

    A nonzero ``style_weight`` uses an SFT policy trained with EmoMix's style loss.
    """
    return replace(guided("mixture", second=second), style_weight=style_weight)


def guided_arms() -> dict[str, ArmConfig]:
    """Return one arm per system, at its declared setting, and EmoMix with its style loss."""
    return {
        "classifier_free": classifier_free(),
        "zet": zero_shot(),
        "emodiff": soft_label(),
        "emomix": mixture(),
        "emomix_style": mixture(style_weight=STYLE_WEIGHT),
    }


def sweeps() -> dict[str, ArmConfig]:
    """Return every system across its hyperparameters: strength, EmoDiff's intensity, EmoMix's second emotion, gradient reversal.

    ``zet@reversal0`` has neither reversal nor guidance; ``zet@classifier`` replaces classifier-free guidance by EmoDiff's.
    """
    return {
        **{f"classifier_free@gamma{gamma:g}": classifier_free(gamma) for gamma in GAMMAS},
        **{f"emodiff@gamma{gamma:g}": soft_label(gamma=gamma) for gamma in CLASSIFIER_GAMMAS},
        **{f"emodiff@alpha{alpha:g}": soft_label(alpha) for alpha in ALPHAS},
        "zet@reversal0": zero_shot(0.0, reversal=0.0),
        **{f"zet@gamma{gamma:g}": zero_shot(gamma) for gamma in ZERO_SHOT_GAMMAS},
        "zet@classifier": replace(soft_label(), reversal=REVERSAL),
        **{f"emomix@{second}": mixture(second) for second in SECONDS},
    }
