"""The frozen reward model of an arm on CosyVoice2: robust fine-tuning, combinations of several, and samples that fooled it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch

from rrpo.config import MEMBER_STRIDE
from rrpo.cosyvoice.config import CosyVoiceConfig
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.reward import LabelledFrames, log_probs, train_reward_model
from rrpo.cosyvoice.tokens import TokenUtterance
from rrpo.models.ensemble import combined
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context


def robust_reward_model(
    plain: RewardModel,
    data: LabelledFrames[TokenUtterance],
    annotated: LabelledFrames[TokenUtterance],
    config: CosyVoiceConfig,
    context: Context,
) -> RewardModel:
    """Return the frozen reward model of an arm: one, or several combined.

    Args:
        plain: The plainly trained reward model that the arms of a seed share.
        data: Its data, on which further members are trained (except for ``weights``, which share it).
        annotated: Data of the robust fine-tuning.
        config: All settings.
        context: Device and callbacks.
    """

    def member(index: int) -> RewardModel:
        start, offset = deepcopy(plain), MEMBER_STRIDE * index
        if index and config.combination != "weights":
            pretrain = replace(config.pretrain, seed=config.pretrain.seed + offset)
            start = train_reward_model(data, plain.emotions, pretrain, model=config.reward_model, context=context)
        robust = replace(config.finetune, regularizers=config.regularizers, seed=config.finetune.seed + offset)
        return train_reward_model(annotated, plain.emotions, robust, model=start, context=context)

    members = [member(index) for index in range(config.members)]
    if config.combination is None:
        return members[0]
    return combined(members, config.combination, config.variance_penalty).eval().requires_grad_(False)


def mine_samples(
    utterances: Sequence[TokenUtterance],
    samples: Sequence[Sequence[int]],
    proxy: RewardModel,
    judge: RewardModel,
    codec: FsqDigits,
    limit: int,
) -> list[TokenUtterance]:
    """Return the answers that fool the reward model, labelled by the judge; as in `rrpo.judges.mine`.

    Args:
        utterances: Utterances whose prompts were answered.
        samples: Tokens of each answer.
        proxy: The reward model.
        judge: The held-out reward model.
        codec: Gives the frames of tokens.
        limit: Maximum number; the proxy's most confident come first.
    """
    answers = [replace(utterance, tokens=tuple(row)) for utterance, row in zip(utterances, samples, strict=True) if row]
    if not answers:
        return []
    frames = LabelledFrames.of(answers, codec)
    by_proxy, by_judge = log_probs(proxy, frames), log_probs(judge, frames).argmax(1)
    target = frames.targets(proxy.emotions)
    fooled = (by_proxy.argmax(1) == target) & (by_judge != target)
    order = torch.sort(by_proxy.gather(1, target[:, None])[:, 0], descending=True, stable=True).indices
    rows = order[fooled[order]][:limit].tolist()
    return [
        replace(answers[row], id=f"mined-{answers[row].id}", emotion=proxy.emotions[int(by_judge[row])]) for row in rows
    ]
