"""One experiment on CosyVoice2: train a reward model on labelled tokens, optimize the policy, write an ``llm.pt``."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from rrpo.config import FinetuneConfig
from rrpo.cosyvoice import tokens
from rrpo.cosyvoice.audio import MANIFEST
from rrpo.cosyvoice.config import CosyVoiceConfig, Source
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.lora import save_adapter
from rrpo.cosyvoice.optimise import optimise, with_reference, write_inputs
from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.cosyvoice.reward import (
    LabelledFrames,
    accuracy,
    mine_samples,
    read_parts,
    robust_reward_model,
    train_recogniser,
    train_reward_model,
)
from rrpo.cosyvoice.supervised import supervise
from rrpo.cosyvoice.text import prompt_text
from rrpo.errors import writable
from rrpo.identity import content_hash, described
from rrpo.judges.recogniser import Recogniser, too_long
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers import OPTIMIZERS
from rrpo.optimizers.loop import Trajectory, prompts_of
from rrpo.optimizers.parallel import ALONE, Processes
from rrpo.optimizers.rollout import Prompts
from rrpo.pipeline.stages import Context
from rrpo.pipeline.versions import VERSIONS
from rrpo.regularizers.registry import switched_on


def train(
    model: Path,
    corpus: Path,
    out: Path,
    config: CosyVoiceConfig,
    *,
    context: Context | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Run one experiment, write its results to ``out``, and return its scalars.

    ``out`` then contains ``policy/`` (upstream's layout, with ``llm.pt``), ``reward_model/``, ``adapter/`` (with LoRA),
    ``curves.parquet`` and ``points.parquet``, ``utt2speech_token.pt`` (the final samples of the evaluation prompts, for
    CosyVoice's flow decoder), ``settings.json`` and ``scalars.json``.

    Args:
        model: Folder of CosyVoice2-0.5B.
        corpus: Labelled tokens, in a format of `rrpo.cosyvoice.tokens.read`.
        out: Folder of the results; created if it does not exist.
        config: All settings.
        context: Device, and the parent folder of checkpoints (their folder is named by a hash of the settings and of
            the code's version).
        tell: Called with lines of progress.

    Raises:
        InputError: A file or setting cannot be used.
        DivergedError: A loss or gradient of the optimization is not finite.
    """
    OPTIMIZERS.check(config.optimize)  # before hours of training
    context = context or Context()
    processes = Processes.join(context.device)
    method = OPTIMIZERS.create(config.optimize.optimizer)
    processes.numbers(prompts_of(method, config.optimize), method.samples)  # raises if they do not divide
    context = replace(context, device=processes.device)
    if not processes.first:
        context, tell = replace(context, checkpoint_seconds=math.inf), lambda line: None
    config = replace(config, model=Source.of(model), corpus=Source.of(corpus))
    if context.checkpoints is not None:
        versions = [VERSIONS[name] for name in ("cosyvoice_start", "cosyvoice")]
        context = replace(context, checkpoints=context.checkpoints / content_hash([versions, config]))
    writable(out, what="the folder of the results cannot be written")
    start = begin(model, corpus, config, context, tell)
    processes.share(*start.models().values())
    scalars = finish(start, out, config, context, tell, processes)
    if context.checkpoints is not None and processes.first:
        shutil.rmtree(context.checkpoints, ignore_errors=True)
    return scalars


@dataclass
class Start:
    """State shared by all arms of a seed: the parts of the corpus, and the models trained before robust fine-tuning."""

    parts: list[tuple[tokens.TokenUtterance, ...]]
    """Utterances of the reward model and the optimization, of the judge, and of evaluation."""
    policy: CosyVoice2Policy
    """Policy, fine-tuned on the first part."""
    reward_model: RewardModel
    """Reward model after plain training."""
    judge: RewardModel
    recogniser: Recogniser | None
    """None if the content weight is 0."""
    scalars: dict[str, float]

    def models(self) -> dict[str, Any]:
        """Return the models by name."""
        models = {name: getattr(self, name) for name in ("policy", "reward_model", "judge", "recogniser")}
        return {name: model for name, model in models.items() if model is not None}

    def save(self, out: Path) -> None:
        """Write the models for `load`."""
        _save(out, self.models())
        (out / "scalars.json").write_text(json.dumps(self.scalars))

    @staticmethod
    def load(folder: Path, corpus: Path, config: CosyVoiceConfig, context: Context) -> Start:
        """Load what `save` wrote."""
        _, parts = read_parts(corpus, config.emotions, config.pretrain.seed)
        return Start(
            parts,
            CosyVoice2Policy.load(folder / "policy", context.device),
            RewardModel.load(folder / "reward_model", context.device),
            RewardModel.load(folder / "judge", context.device),
            Recogniser.load(folder / "recogniser", context.device) if (folder / "recogniser").is_dir() else None,
            json.loads((folder / "scalars.json").read_text()),
        )


def _save(out: Path, models: Mapping[str, Any]) -> None:
    """Write each model to a folder of its name."""
    for name, model in models.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        model.save(out / name)


def begin(
    model: Path,
    corpus: Path,
    config: CosyVoiceConfig,
    context: Context,
    tell: Callable[[str], None] = lambda line: None,
) -> Start:
    """Train the models that all arms of a seed share."""
    emotions, parts = read_parts(corpus, config.emotions, config.pretrain.seed)
    settings: dict[str, Any] = {"precision": config.precision, "max_tokens": config.max_tokens}
    settings["recompute"] = config.recompute
    # Before hours of training: this refuses a release that cannot be read, and emotions without a word.
    policy = CosyVoice2Policy.load(model, context.device, words=dict(config.words), **settings)
    for emotion in emotions:
        prompt_text(emotion, "", policy.words)
    rm_data, judge_data, evaluation = (LabelledFrames.of(part, FsqDigits(context.device)) for part in parts)
    tell(f"{sum(map(len, parts))} utterances; {len(emotions)} emotions")

    def classifier(name: str, data: LabelledFrames, settings: FinetuneConfig) -> RewardModel:
        return train_reward_model(data, emotions, settings, model=config.reward_model, context=context.part(name))

    proxy = classifier("reward_model", rm_data, config.pretrain)
    judge = classifier("judge", judge_data, replace(config.pretrain, seed=config.pretrain.seed + 1))
    scalars = {"judge_accuracy": accuracy(judge, evaluation)}
    recogniser = None
    if config.optimize.content_weight > 0:
        characters = [utterance.prompt.phones for utterance in parts[0]]
        frames = rm_data.frames.lengths.tolist()
        if long := sum(too_long(text, n) for text, n in zip(characters, frames, strict=True)):
            tell(
                f"content reward: {long} of {len(characters)} texts have more characters than the recognizer has outputs and get "
                "no gradient from it, as in languages written in letters; --content 0 leaves it out"
            )
        recogniser = train_recogniser(rm_data.frames, characters, config.recogniser, context=context.part("recogniser"))
    if losses := supervise(policy, parts[0], config.supervised, context.part("supervised")):
        scalars |= {"sft_first_loss": losses[0], "sft_last_loss": losses[-1]}
        tell(f"supervised fine-tuning: {losses[0]:.3f} -> {losses[-1]:.3f} nats per token")
    return Start(parts, policy, proxy, judge, recogniser, scalars)


def finish(
    start: Start,
    out: Path,
    config: CosyVoiceConfig,
    context: Context,
    tell: Callable[[str], None] = lambda line: None,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Train the arm's reward model, optimize the policy on it, and write the results described in `train`.

    Each of `CosyVoiceConfig.rounds` first optimizes a copy of the policy, whose answers to training prompts that fool the reward
    model are added to its data.
    """
    codec, parts = FsqDigits(context.device), start.parts
    rm_data, evaluation = (LabelledFrames.of(part, codec) for part in (parts[0], parts[2]))
    annotated = list(parts[0])
    for number in range(config.rounds + 1):
        annotated_data = LabelledFrames.of(annotated, codec) if number else rm_data
        part = context.part(f"round_{number}")
        proxy = robust_reward_model(start.reward_model, rm_data, annotated_data, config, part)
        if number == config.rounds:
            break
        copied = replace(start, policy=deepcopy(start.policy))
        prompted = parts[0][: config.optimize.final_prompts]
        trajectory = _optimized(copied, proxy, prompted, config, part, processes)
        fooling = mine_samples(prompted, trajectory.samples[-1], proxy, start.judge, codec, len(parts[0]))
        annotated += fooling
        del copied  # gigabytes
        tell(f"round {number + 1} of {config.rounds}: {len(fooling)} samples fooled the reward model")
    scalars = {"rm_accuracy": accuracy(proxy, evaluation)} | start.scalars
    tell(
        f"unweighted accuracy on held-out texts: reward model {scalars['rm_accuracy']:.3f}, judge {scalars['judge_accuracy']:.3f}"
    )
    evaluated = parts[2][: config.optimize.final_prompts]
    trajectory = _optimized(start, proxy, evaluated, config, context, processes, config.best_of)
    first, last = trajectory.points[0], trajectory.points[-1]
    scalars |= {f"start_{name}": value for name, value in first.items() if name != "step"}
    scalars |= {f"end_{name}": value for name, value in last.items() if name != "step"}
    tell(
        f"proxy {first['proxy_accuracy']:.3f} -> {last['proxy_accuracy']:.3f}, judge {first['val_accuracy']:.3f} -> "
        f"{last['val_accuracy']:.3f}, KL {last['kl_token']:.4f} nats per token, {last['kl_utterance']:.3f} per utterance"
    )
    processes.wait()
    if not processes.first:
        return scalars
    (out / tokens.SCALARS).unlink(missing_ok=True)  # of an earlier run, which is finished no longer
    for folder in ("audio", "recordings"):
        (out / folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(out / "adapter", ignore_errors=True)
    _save(out, {"policy": start.policy, "reward_model": proxy})
    if config.lora is not None:
        save_adapter(start.policy, out / "adapter")
    pd.DataFrame(trajectory.curves, dtype=float).to_parquet(out / "curves.parquet")
    pd.DataFrame(trajectory.points, dtype=float).to_parquet(out / "points.parquet")
    samples = {utterance.id: row for utterance, row in zip(evaluated, trajectory.samples[-1], strict=True)}
    tokens.write(out / tokens.SAMPLES, samples)
    settings = {"switched_on": switched_on(config.finetune.regularizers), **described(config)}
    (out / "settings.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")
    (out / tokens.SCALARS).write_text(json.dumps(scalars, indent=1))
    return scalars


def _optimized(
    start: Start,
    proxy: RewardModel,
    evaluation: Sequence[tokens.TokenUtterance],
    config: CosyVoiceConfig,
    context: Context,
    processes: Processes,
    best_of: int = 1,
) -> Trajectory:
    """Optimize ``start.policy`` in place on the reward model ``proxy``; evaluate the prompts of ``evaluation``."""
    models = with_reference(
        start.policy, config.lora, proxy, start.judge, FsqDigits(context.device), start.recogniser, context.micro
    )
    start.policy.recompute = config.recompute
    processes.share(proxy)
    training, evaluated = (
        Prompts.prepare([utterance.prompt for utterance in part], start.policy, models.codec, proxy.emotions)
        for part in (start.parts[0], evaluation)
    )
    with TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), start.parts[0], models.codec, proxy.emotions)
        return optimise(
            models, training, evaluated, config.optimize, context, inputs=inputs, best_of=best_of, processes=processes
        )


def build_start(config: CosyVoiceConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Build stage ``cosyvoice_start``: `begin`, once for all arms of a seed."""
    assert config.model is not None
    assert config.corpus is not None
    config.model.require_unchanged()
    config.corpus.require_unchanged()
    begin(Path(config.model.path), Path(config.corpus.path), config, context).save(out)


def build(config: CosyVoiceConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Build stage ``cosyvoice``: `finish` for one arm, on ``inputs["start"]``."""
    assert config.corpus is not None
    config.corpus.require_unchanged()
    finish(Start.load(inputs["start"], Path(config.corpus.path), config, context), out, config, context)
