"""From labelled tokens to an optimised policy: reward model, DiffRO or RRPO, an ``llm.pt`` that CosyVoice2 reads."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pandas as pd

from rrpo.arms import BASE, arm
from rrpo.config import OFF, ArmConfig, FinetuneConfig, OptimizeConfig, RegularizerConfig, RewardModelConfig
from rrpo.cosyvoice import tokens
from rrpo.cosyvoice.fsq import FsqDigits, refuse_mixtures
from rrpo.cosyvoice.inputs import write_inputs
from rrpo.cosyvoice.lora import LoraConfig, adapt, save_adapter
from rrpo.cosyvoice.optimise import optimise
from rrpo.cosyvoice.parallel import Processes
from rrpo.cosyvoice.policy import MAX_TOKENS, CosyVoice2Policy
from rrpo.cosyvoice.reward import (
    NoContent,
    TokenFrames,
    accuracy,
    split,
    train_recogniser,
    train_reward_model,
)
from rrpo.cosyvoice.supervised import SupervisedConfig, supervise
from rrpo.cosyvoice.text import WORDS
from rrpo.errors import InputError
from rrpo.identity import content_hash, described, option
from rrpo.judges.config import RecogniserConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.pipeline.stages import Context

SHARES = {"rm": 0.5, "judge": 0.3, "evaluation": 0.2}
"""Of the corpus' texts: the reward model's (and the prompts that are optimised on), the held-out judge's, evaluation's."""


@dataclass(frozen=True, kw_only=True)
class CosyVoiceConfig:
    """One experiment on CosyVoice2; every value is a declared default unless its docstring names a source."""

    arm: str = "ls_adv"
    """Regularisers of the reward model by their names joined by ``_`` (`rrpo.arms`); ``diffro``: none. Energy-adaptive
    mixup (``eam``) is refused, so the paper's method without it is ``ls_adv``."""
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
    words: tuple[tuple[str, str], ...] = tuple(WORDS.items())
    """Emotion and its word in the prompt."""

    def __post_init__(self) -> None:
        """Raises InputError for an arm that tokens do not admit."""
        _ = self.regularizers

    @property
    def regularizers(self) -> RegularizerConfig:
        """The arm's."""
        found = arm(self.arm)
        if found != ArmConfig(regularizers=found.regularizers):
            raise InputError(
                "an arm of CosyVoice2 is named by its regularisers alone",
                got=self.arm,
                fix=f"use {BASE}, or regularisers joined by _; what else it changes is set in `optimize`",
            )
        refuse_mixtures(found.regularizers)
        return found.regularizers


def train(
    model: Path,
    corpus: Path,
    out: Path,
    config: CosyVoiceConfig,
    *,
    context: Context | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Runs one experiment and writes it into ``out``; returns its scalars.

    ``out`` then holds ``policy/`` (upstream's layout, with ``llm.pt``), ``reward_model/``, ``adapter/`` (with LoRA),
    ``curves.parquet`` and ``points.parquet``, ``utt2speech_token.pt`` (the evaluation prompts' last samples, for CosyVoice's flow
    decoder), ``config.json`` and ``scalars.json``.

    Args:
        model: Folder of CosyVoice2-0.5B.
        corpus: What `rrpo.cosyvoice.tokens.read` reads.
        out: Made where it is not there.
        config: All settings.
        context: Where to compute; checkpoints of the optimisation, in a folder named by the settings.
        tell: Told a line at a time what is done.
    """
    context = context or Context()
    processes = Processes(context.device)
    context = replace(context, device=processes.device)
    if not processes.first:
        context, tell = replace(context, checkpoint_seconds=math.inf), lambda line: None
    if context.checkpoints is not None:
        place = content_hash([config, str(model.resolve()), str(corpus.resolve())])
        context = replace(context, checkpoints=context.checkpoints / place)
    out.mkdir(parents=True, exist_ok=True)
    found = tokens.read(corpus, config.emotions)
    emotions = config.emotions or found.emotions
    codec = FsqDigits(context.device)
    parts = split(found.utterances, list(SHARES.values()), config.optimize.seed)
    rm_data, judge_data, held = (TokenFrames.of(part, codec) for part in parts)
    tell(f"{len(found.utterances)} utterances, {len(found.skipped)} skipped; {len(emotions)} emotions")

    plain = replace(context, checkpoints=None)
    robust = replace(config.finetune, regularizers=config.regularizers)
    proxy = train_reward_model(rm_data, emotions, config.pretrain, model=config.reward_model, context=plain)
    proxy = train_reward_model(rm_data, emotions, robust, model=proxy, context=plain)
    other = replace(config.pretrain, seed=config.pretrain.seed + 1)
    judge = train_reward_model(judge_data, emotions, other, model=config.reward_model, context=plain)
    scalars = {"rm_accuracy": accuracy(proxy, held), "judge_accuracy": accuracy(judge, held)}
    tell(
        f"unweighted accuracy on held-out texts: reward model {scalars['rm_accuracy']:.3f}, judge {scalars['judge_accuracy']:.3f}"
    )

    content = config.optimize.content_weight > 0
    recogniser = train_recogniser(rm_data, config.recogniser, context=plain) if content else NoContent()
    settings: dict[str, Any] = {
        "precision": config.precision,
        "max_tokens": config.max_tokens,
        "words": dict(config.words),
        "recompute": config.recompute,
    }
    policy, reference = (CosyVoice2Policy.load(model, context.device, **settings) for _ in range(2))
    if losses := supervise(policy, parts[0], config.supervised, plain):
        reference.load_state_dict(policy.state_dict())
        scalars |= {"sft_first_loss": losses[0], "sft_last_loss": losses[-1]}
        tell(f"supervised fine-tuning: {losses[0]:.3f} -> {losses[-1]:.3f} nats a token")
    processes.share(policy, reference, proxy, judge, *((recogniser,) if isinstance(recogniser, Recogniser) else ()))
    if config.lora is not None:
        adapt(policy, config.lora)
    models = Models(
        policy=policy,
        reference=reference.requires_grad_(False),
        reward_model=proxy,
        recogniser=cast(Recogniser, recogniser),
        codec=codec,
        val=cast(Judge, judge),  # any classifier of frames with log_probs serves
        micro=context.micro,
    )
    rl, evaluation = (
        Prompts.prepare([utterance.prompt for utterance in part], policy, codec, emotions)
        for part in (parts[0], parts[2][: config.optimize.final_prompts])
    )
    with TemporaryDirectory() as folder:
        more: dict[str, Any] = {"inputs": write_inputs(Path(folder), parts[0], codec, emotions)}
        more |= {"best_of": config.best_of, "processes": processes}
        done = optimise(models, rl, evaluation, config.optimize, context, **more)
    first, last = done.points[0], done.points[-1]
    scalars |= {f"start_{name}": value for name, value in first.items() if name != "step"}
    scalars |= {f"end_{name}": value for name, value in last.items() if name != "step"}
    tell(
        f"proxy {first['proxy_accuracy']:.3f} -> {last['proxy_accuracy']:.3f}, judge {first['val_accuracy']:.3f} -> "
        f"{last['val_accuracy']:.3f}, KL {last['kl_token']:.4f} nats a token, {last['kl_utterance']:.3f} an utterance"
    )

    processes.wait()
    if not processes.first:
        return scalars
    for name, save in {"policy": policy.save, "reward_model": proxy.save}.items():
        (out / name).mkdir(exist_ok=True)
        save(out / name)
    if config.lora is not None:
        save_adapter(policy, out / "adapter")
    pd.DataFrame(done.curves).to_parquet(out / "curves.parquet")
    pd.DataFrame(done.points).to_parquet(out / "points.parquet")
    said = {utterance.id: row for utterance, row in zip(parts[2], done.said, strict=False)}
    tokens.write(out / "utt2speech_token.pt", said)
    (out / "config.json").write_text(json.dumps(described(config), indent=1, ensure_ascii=False), encoding="utf-8")
    (out / "scalars.json").write_text(json.dumps(scalars, indent=1))
    if context.checkpoints is not None:
        shutil.rmtree(context.checkpoints, ignore_errors=True)
    return scalars
