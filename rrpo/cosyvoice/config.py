"""Settings of an experiment on CosyVoice2's language model. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rrpo.config import OFF, FinetuneConfig, OptimizeConfig, RegularizerConfig, RewardModelConfig
from rrpo.cosyvoice.text import WORDS
from rrpo.errors import InputError
from rrpo.identity import files_digest, option
from rrpo.judges.config import RecogniserConfig

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
READ = ("llm.pt", "CosyVoice-BlankEN", "rrpo.json", "utt2speech_token.pt", "text", "utt2spk", "utt2emotion")
"""What is read of a folder: the files and folders of a release or of a saved policy, and those of labelled tokens."""
MAX_TOKENS = 512
"""Maximum roll-out length in tokens: 20 s; the response length of CosyVoice2's official GRPO recipe."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A user's file or folder."""

    digest: str
    """Hash of its content; part of keys."""
    path: str = field(metadata={"identity": False})
    """Path. Not part of any key, so the file may be moved."""

    @staticmethod
    def of(path: Path) -> Source:
        """Return the source for a file, or for a folder's `READ`.

        Raises:
            InputError: There is no file.
        """
        places = [path / name for name in READ] if path.is_dir() else [path]
        found = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
        shown = (file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))
        files = sorted(file for file in shown if file.is_file())
        if not files:
            fix = f"give a file, or a folder that contains some of {', '.join(READ)}"
            raise InputError("no file to read", got=str(path), fix=fix)
        return Source(digest=files_digest(path, files), path=str(path.resolve()))

    def require_unchanged(self) -> None:
        """Raise InputError if the content is no longer that of the digest."""
        if Source.of(Path(self.path)).digest != self.digest:
            fix = "restore the file, or start the command again, which plans with the new content"
            raise InputError("a file was changed while the command ran", got=self.path, fix=fix)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings of low-rank adaptation."""

    rank: int = 16
    """r; declared default."""
    alpha: float = 32.0
    """Scale: the update is multiplied by ``alpha / r``; declared default."""
    targets: tuple[str, ...] = PROJECTIONS
    """Names of the adapted linear layers of each block; default: all."""
    seed: int = 0
    """Seed of the initialization of A."""

    def __post_init__(self) -> None:
        """Raise InputError if a value is out of range."""
        if self.rank < 1:
            raise InputError("the rank of a low-rank update must be 1 or more", got=self.rank, fix="use 4 to 64")
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets:
            got, known = ", ".join(unknown) or "none", ", ".join(PROJECTIONS)
            raise InputError("these layers cannot be adapted", got=got, fix=f"choose from {known}")


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """Settings of supervised fine-tuning: next-token cross-entropy, all weights trained."""

    steps: int = 0
    """Updates; 0: no fine-tuning."""
    batch: int = 16
    """Utterances per step; declared default."""
    lr: float = 1e-5
    """Peak learning rate of Adam, with cosine decay to zero; CosyVoice2's recipe: 1e-5, constant."""
    seed: int = 0
    """Seed of the order of utterances."""


@dataclass(frozen=True, kw_only=True)
class CosyVoiceConfig:
    """Settings of one experiment on CosyVoice2. Values are declared defaults unless the docstring names a source."""

    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    """Regularizers of the reward model's robust fine-tuning; default: RRPO's. Mixup mixes tokens as
    `rrpo.models.signals.TokenDigits` defines."""
    members: int = option(1, off=1)
    """See `ArmConfig.members`."""
    combination: str | None = option(None, off=None)
    """See `ArmConfig.combination`."""
    variance_penalty: float = option(0.0, off=0.0)
    """See `ArmConfig.variance_penalty`."""
    rounds: int = option(0, off=0)
    """See `ArmConfig.rounds`; the held-out reward model takes the place of the ``val`` judge."""
    emotions: tuple[str, ...] | None = None
    """Emotions of the corpus to use; None: all."""
    reward_model: RewardModelConfig = field(default_factory=lambda: RewardModelConfig(subsample=2))
    """Network of the reward model and the judge. One frame per token, so ``subsample=2`` gives steps of 80 ms."""
    pretrain: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(steps=400, lr=1e-3, regularizers=OFF))
    """Plain training of the reward model and the judge."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Robust fine-tuning; ``regularizers`` above replaces its regularizers."""
    recogniser: RecogniserConfig = field(default_factory=RecogniserConfig)
    """Recognizer of the content reward; not trained if ``optimize.content_weight`` is 0."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Fine-tuning before the optimization, on the utterances of the reward model and the optimization; the KL is to its
    result."""
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)
    """Policy optimization."""
    lora: LoraConfig | None = None
    """Low-rank adaptation; None: train all weights."""
    precision: str = "bf16"
    """Precision of policy and reference: ``bf16`` or ``fp32``."""
    recompute: bool = option(False, off=False)
    """Gradient checkpointing: recompute layers in the backward pass."""
    best_of: int = option(1, off=1)
    """n: evaluate the best by the arm's reward of n samples per evaluation prompt; with 0 updates, this is best-of-n."""
    max_tokens: int = MAX_TOKENS
    """Maximum roll-out length in tokens."""
    model: Source | None = option(None, off=None)
    """Folder of CosyVoice2-0.5B; required by stages."""
    corpus: Source | None = option(None, off=None)
    """Labelled speech tokens; required by stages."""
    words: tuple[tuple[str, str], ...] = tuple(WORDS.items())
    """Pairs of an emotion and its word in the prompt."""
