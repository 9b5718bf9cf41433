"""Settings of an experiment on CosyVoice2's language model. Importing this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rrpo.config import OFF, Checked, FinetuneConfig, OptimizeConfig, RewardModelConfig
from rrpo.cosyvoice.text import WORDS
from rrpo.errors import InputError
from rrpo.identity import files_digest, option
from rrpo.judges.config import RecogniserConfig

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
READ = ("llm.pt", "CosyVoice-BlankEN", "rrpo.json", "utt2speech_token.pt", "text", "utt2spk", "utt2emotion")
"""What is read of a folder: the files and folders of a release or of a saved policy, and those of labelled tokens."""
PRECISIONS = ("fp32", "bf16")
"""Precisions of policy and reference."""
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
class LoraConfig(Checked):
    """Settings of low-rank adaptation."""

    rank: int = option(16, within="[1, inf)")
    """r; declared default."""
    alpha: float = 32.0
    """Scale: the update is multiplied by ``alpha / r``; declared default."""
    targets: tuple[str, ...] = PROJECTIONS
    """Names of the adapted linear layers of each block; default: all."""
    seed: int = 0
    """Seed of the initialization of A."""

    def __post_init__(self) -> None:
        """Raise ValueError if a value is out of its range, InputError for layers that cannot be adapted."""
        super().__post_init__()
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets:
            got, known = ", ".join(unknown) or "none", ", ".join(PROJECTIONS)
            raise InputError("these layers cannot be adapted", got=got, fix=f"choose from {known}")


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(Checked):
    """Settings of supervised fine-tuning: next-token cross-entropy, all weights trained."""

    steps: int = option(0, within="[0, inf)")
    """Updates; 0: no fine-tuning."""
    batch: int = option(16, within="[1, inf)")
    """Utterances per step; declared default."""
    lr: float = option(1e-5, within="(0, inf)")
    """Peak learning rate of Adam, with cosine decay to zero; CosyVoice2's recipe: 1e-5, constant."""
    seed: int = 0
    """Seed of the order of utterances."""


@dataclass(frozen=True, kw_only=True)
class CosyVoiceConfig(Checked):
    """Settings of one experiment on CosyVoice2. Values are declared defaults unless the docstring names a source."""

    members: int = option(1, off=1, within="[1, inf)")
    """See `ArmConfig.members`."""
    combination: str | None = option(None, off=None)
    """See `ArmConfig.combination`."""
    variance_penalty: float = option(0.0, off=0.0)
    """See `ArmConfig.variance_penalty`."""
    rounds: int = option(0, off=0, within="[0, inf)")
    """See `ArmConfig.rounds`; the held-out reward model takes the place of the ``val`` judge."""
    emotions: tuple[str, ...] | None = None
    """Emotions of the corpus to use; None: all."""
    reward_model: RewardModelConfig = field(default_factory=lambda: RewardModelConfig(subsample=2))
    """Network of the reward model and the judge. One frame per token, so ``subsample=2`` gives steps of 80 ms."""
    pretrain: FinetuneConfig = field(default_factory=lambda: FinetuneConfig(steps=400, lr=1e-3, regularizers=OFF))
    """Plain training of the reward model and the judge."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Robust fine-tuning, by default with RRPO's regularizers. Mixup mixes tokens, see `rrpo.models.signals.TokenDigits`."""
    recogniser: RecogniserConfig = field(default_factory=RecogniserConfig)
    """Recognizer of the content reward; not trained if ``optimize.content_weight`` is 0."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Fine-tuning before the optimization, on the utterances of the reward model and the optimization; the KL is to its
    result."""
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)
    """Policy optimization."""
    lora: LoraConfig | None = None
    """Low-rank adaptation; None: train all weights."""
    precision: str = option("bf16", within=PRECISIONS)
    """One of `PRECISIONS`."""
    recompute: bool = option(False, off=False)
    """Gradient checkpointing: recompute layers in the backward pass."""
    best_of: int = option(1, off=1, within="[1, inf)")
    """n: evaluate the best by the arm's reward of n samples per evaluation prompt; with 0 updates, this is best-of-n."""
    max_tokens: int = option(MAX_TOKENS, within="[1, inf)")
    """Maximum roll-out length in tokens."""
    model: Source | None = option(None, off=None)
    """Folder of CosyVoice2-0.5B; required by stages."""
    corpus: Source | None = option(None, off=None)
    """Labelled speech tokens; required by stages."""
    words: tuple[tuple[str, str], ...] = tuple(WORDS.items())
    """Pairs of an emotion and its word in the prompt."""
