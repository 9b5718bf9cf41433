"""All settings of an experiment on CosyVoice2's language model. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from rrpo.config import OFF, FinetuneConfig, OptimizeConfig, RegularizerConfig, RewardModelConfig
from rrpo.cosyvoice.text import WORDS
from rrpo.errors import InputError
from rrpo.identity import option
from rrpo.judges.config import RecogniserConfig
from rrpo.regularizers.energy_mixup import EnergyMixup
from rrpo.regularizers.registry import active

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_TOKENS = 512
"""Longest roll-out: 20 s; the response length of CosyVoice2's official GRPO recipe."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A user's file or folder."""

    digest: str
    """Hash of its content: what keys hold."""
    path: str = field(metadata={"identity": False})
    """Where it lies; moving it changes no key."""

    @staticmethod
    def of(path: Path) -> Source:
        """Of a file, or of all files below a folder.

        Raises:
            InputError: There is none.
        """
        files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise InputError("there is nothing to read", got=str(path), fix="give a file, or a folder with files in it")
        digest = hashlib.sha256()
        for one in files:
            with one.open("rb") as file:
                digest.update(f"{one.relative_to(path)}".encode() + hashlib.file_digest(file, "sha256").digest())
        return Source(digest=digest.hexdigest()[:32], path=str(path.resolve()))


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers are adapted, and how."""

    rank: int = 16
    """r; declared default."""
    alpha: float = 32.0
    """Scale: the update counts ``alpha / r`` times; declared default."""
    targets: tuple[str, ...] = PROJECTIONS
    """Names of the linear layers of every block; all by default."""
    seed: int = 0
    """Of A."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of its range."""
        if self.rank < 1:
            raise InputError("the rank of a low-rank update must be 1 or more", got=self.rank, fix="give 4 to 64")
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets:
            got, known = ", ".join(unknown) or "none", ", ".join(PROJECTIONS)
            raise InputError("these layers cannot be adapted", got=got, fix=f"choose from {known}")


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """Next-token cross-entropy on every weight."""

    steps: int = 0
    """Updates; 0: the policy stays as it is."""
    batch: int = 16
    """Utterances a step; declared default."""
    lr: float = 1e-5
    """Adam's peak rate, cosine to zero; CosyVoice2's own recipe: 1e-5, constant."""
    seed: int = 0
    """Of the order."""


@dataclass(frozen=True, kw_only=True)
class CosyVoiceConfig:
    """One experiment on CosyVoice2; every value is a declared default unless its docstring names a source."""

    regularizers: RegularizerConfig = field(default_factory=lambda: RegularizerConfig(mix_probability=0.0))
    """Of the reward model's robust fine-tuning; energy-adaptive mixup is refused, so the default is the paper's method without
    it, the arm ``ls_adv``."""
    emotions: tuple[str, ...] | None = None
    """Those of the corpus that are used; None: all."""
    reward_model: RewardModelConfig = field(default_factory=lambda: RewardModelConfig(subsample=2))
    """Network of the reward model, and of the judge; one frame a token, so two of them make a step of 80 ms."""
    pretrain: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(steps=400, lr=1e-3, regularizers=OFF))
    """Plain training, of the reward model and of the judge."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Robust fine-tuning; the regularisers are the arm's."""
    recogniser: RecogniserConfig = field(default_factory=RecogniserConfig)
    """Of the content reward; not trained where ``optimize.content_weight`` is 0."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Fine-tuning before the optimisation, on the reward model's and the optimisation's utterances; the KL is to its result."""
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)
    """Policy optimisation."""
    lora: LoraConfig | None = None
    """Low-rank updates instead of all weights."""
    precision: str = "bf16"
    """Of the policy and its reference: ``bf16`` or ``fp32``."""
    recompute: bool = option(False, off=False)
    """Gradient checkpointing: layers are computed once more for the gradient."""
    best_of: int = option(1, off=1)
    """n; of so many samples of an evaluation prompt the best by the arm's reward counts; after 0 updates, best-of-n."""
    max_tokens: int = MAX_TOKENS
    """Longest roll-out."""
    model: Source | None = option(None, off=None)
    """Folder of CosyVoice2-0.5B; stages need it."""
    corpus: Source | None = option(None, off=None)
    """Labelled speech tokens; stages need them."""
    words: tuple[tuple[str, str], ...] = tuple(WORDS.items())
    """Emotion and its word in the prompt."""

    def __post_init__(self) -> None:
        """Raises InputError for regularisers that tokens do not admit."""
        refuse_mixtures(self.regularizers)


def mixtures(config: RegularizerConfig) -> list[str]:
    """Return the labels of the active regularizers that mix energies: energy-adaptive mixup and its controls."""
    on = [found for found in active(config) if not found.is_off]
    return [found.label for found in on if isinstance(found, EnergyMixup) or found.control_of == "eam"]


def refuse_mixtures(config: RegularizerConfig) -> None:
    """Refuse to fine-tune a reward model of tokens with `mixtures`.

    Raises:
        InputError: One of them is on.
    """
    if mixing := mixtures(config):
        raise InputError(
            "mixtures of two utterances are made of log-mel energies, and token digits have neither energies nor silence",
            got=", ".join(mixing),
            fix="use arms without eam and its controls, such as ls_adv, or train the reward model on audio",
        )
