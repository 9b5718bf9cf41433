"""Models of speech tokens: emotion reward models with the project's regularizers, and a recognizer of the text's characters.

They use the project's networks on the digits of `FsqDigits`. A reward model is trained plainly or by Eq. 5. The reward model of
an arm may combine several, or be trained on samples that fooled it.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from rrpo import seeding
from rrpo.config import MEMBER_STRIDE, FinetuneConfig, RewardModelConfig
from rrpo.corpus.draws import generator, key
from rrpo.cosyvoice.config import CosyVoiceConfig
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.tokens import TokenUtterance, read
from rrpo.errors import InputError
from rrpo.judges.config import RecogniserConfig
from rrpo.judges.recogniser import Recogniser
from rrpo.models.ensemble import combined
from rrpo.models.reward_model import RewardModel
from rrpo.models.signals import TOKEN_DIGITS, Signal
from rrpo.pipeline.stages import Context
from rrpo.regularizers.objective import robust_loss
from rrpo.training.data import Frames
from rrpo.training.trainer import fit

SHARES = {"rm": 0.5, "judge": 0.3, "evaluation": 0.2}
"""Shares of the corpus' texts for the reward model (and the training prompts), the held-out judge, and evaluation."""


@dataclass(frozen=True)
class LabelledFrames:
    """Frames of utterances (token digits, or log-mel frames) on one device, with their emotions."""

    frames: Frames
    labels: tuple[str, ...]

    @staticmethod
    def of(utterances: Sequence[TokenUtterance], codec: FsqDigits) -> LabelledFrames:
        """Return the digits of all utterances."""
        rows = [codec.codebook[torch.tensor(utterance.tokens, device=codec.device)] for utterance in utterances]
        return LabelledFrames(Frames(rows, codec.audio.floor), tuple(utterance.emotion for utterance in utterances))

    def targets(self, emotions: Sequence[str]) -> Tensor:
        """Return the class index ``[n]`` of each label."""
        return torch.tensor([emotions.index(label) for label in self.labels], device=self.frames.flat.device)


def split(utterances: Sequence[TokenUtterance], shares: Sequence[float], seed: int) -> list[tuple[TokenUtterance, ...]]:
    """Split utterances by text into parts of about these ``shares``, keyed by ``seed``; parts have no text in common.

    The utterances of a part are in random order, also keyed by ``seed``, so that the first of them represent it.

    Raises:
        InputError: A part is empty.
    """
    texts = sorted({utterance.text for utterance in utterances})
    order = generator(seed, "cosyvoice split").permutation(len(texts))
    ends = [round(sum(shares[: i + 1]) / sum(shares) * len(texts)) for i in range(len(shares))]
    part = {texts[text]: sum(position >= end for end in ends) for position, text in enumerate(order)}
    shuffled = [utterances[i] for i in generator(seed, "cosyvoice order").permutation(len(utterances))]
    parts = [tuple(u for u in shuffled if part[u.text] == i) for i in range(len(shares))]
    if not all(parts):
        raise InputError(
            f"too few texts for {len(shares)} parts without a text in common",
            got=f"{len(texts)} different texts",
            fix="give more utterances",
        )
    return parts


def read_parts(
    corpus: Path, emotions: Sequence[str] | None, seed: int
) -> tuple[tuple[str, ...], list[tuple[TokenUtterance, ...]]]:
    """Return the emotions of a corpus and its parts by `SHARES`; ``emotions`` are those to use, None: all."""
    utterances = read(corpus, emotions)
    parts = split(utterances, list(SHARES.values()), seed)
    return tuple(emotions or sorted({utterance.emotion for utterance in utterances})), parts


def train_reward_model(
    data: LabelledFrames,
    emotions: tuple[str, ...],
    config: FinetuneConfig,
    *,
    model: RewardModel | RewardModelConfig,
    context: Context | None = None,
    signal: Signal = TOKEN_DIGITS,
) -> RewardModel:
    """Train a reward model on ``data`` by Eq. 5 with ``config.regularizers`` and return it frozen.

    Args:
        data: Labelled frames.
        emotions: Classes.
        config: Updates, batch, learning rate and regularizers; without regularizers, the loss is plain cross-entropy.
        model: Model to train further (modified in place), or config of a new one.
        context: Device and callbacks.
        signal: What the frames are.
    """
    context = context or Context()
    seed, frames, device = config.seed, data.frames, data.frames.flat.device
    if isinstance(model, RewardModelConfig):
        seeding.seed_everything(seed, "cosyvoice reward model")
        model = RewardModel(model, emotions, frames.flat.shape[1], 1e-5).to(device)
        model.set_statistics(frames.flat)
    trained = model.requires_grad_(True).train()
    trained.regularizers, trained.signal = config.regularizers, signal
    y = functional.one_hot(data.targets(emotions), len(emotions)).float()
    order = seeding.permutation_batches(len(y), config.batch, config.steps, seed, "cosyvoice reward model order")

    def loss(step: int) -> Tensor:
        rows = torch.from_numpy(order[step]).to(device)
        F, lengths = frames.batch(rows)
        torch.manual_seed(key(seed, "cosyvoice reward model dropout", step))
        return robust_loss(trained, F, lengths, y[rows], config.regularizers, seed, step)["loss"]

    fit(trained.parameters(), loss, config.steps, config.lr, context)
    return trained.eval().requires_grad_(False)


@torch.no_grad()
def log_probs(model: RewardModel, data: LabelledFrames) -> Tensor:
    """Return the log-probabilities ``[n, K]`` of all utterances."""
    return torch.cat([model.log_probs(*batch) for batch in data.frames.batches(64)])


def accuracy(model: RewardModel, data: LabelledFrames) -> float:
    """Return the unweighted average recall over the classes that occur."""
    predictions = log_probs(model, data).argmax(1)
    target = data.targets(model.emotions)
    return float(torch.stack([(predictions == k)[target == k].float().mean() for k in target.unique()]).mean())


def robust_reward_model(
    plain: RewardModel,
    data: LabelledFrames,
    annotated: LabelledFrames,
    config: CosyVoiceConfig,
    context: Context,
) -> RewardModel:
    """Return the frozen reward model of an arm: one, or several combined.

    Args:
        plain: The plainly trained reward model that the arms of a seed share.
        data: Its data, on which further members are trained (except for ``weights``, which share it).
        annotated: Data of the robust fine-tuning.
        config: All settings.
        context: Device, checkpoints and callbacks.
    """

    def member(index: int) -> RewardModel:
        start, offset = deepcopy(plain), MEMBER_STRIDE * index
        if index and config.combination != "weights":
            pretrain = replace(config.pretrain, seed=config.pretrain.seed + offset)
            part = context.part(f"pretrain_{index}")
            start = train_reward_model(data, plain.emotions, pretrain, model=config.reward_model, context=part)
        robust = replace(config.finetune, seed=config.finetune.seed + offset)
        part = context.part(f"finetune_{index}")
        return train_reward_model(annotated, plain.emotions, robust, model=start, context=part)

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


def train_recogniser(
    frames: Frames, phones: Sequence[Sequence[str]], config: RecogniserConfig, *, context: Context | None = None
) -> Recogniser:
    """Train a CTC recognizer of the text's characters (``phones``) on speech tokens, DiffRO's content reward; return it frozen.

    It has one output per two tokens, 12.5 per second: enough for Chinese characters, too few for English spelling.
    """
    context, device = context or Context(), frames.flat.device
    seeding.seed_everything(config.seed, "cosyvoice recogniser")
    inventory = tuple(sorted({phone for row in phones for phone in row}))
    recogniser = Recogniser(config, inventory, frames.flat.shape[1]).to(device)
    recogniser.std.copy_(frames.flat.std(0).clamp(min=1e-3))
    order = seeding.permutation_batches(
        len(phones), config.batch, config.steps, config.seed, "cosyvoice recogniser order"
    )

    def loss(step: int) -> Tensor:
        F, lengths = frames.batch(torch.from_numpy(order[step]).to(device))
        return recogniser.ctc_loss(F, lengths, [phones[i] for i in order[step]]).mean()

    fit(recogniser.parameters(), loss, config.steps, config.lr, context)
    return recogniser.eval().requires_grad_(False)


class NoContent:
    """Recognizer with a constant loss, used if the content weight is 0."""

    def ctc_loss(self, F: Tensor, lengths: Tensor, phones: Sequence[Sequence[str]]) -> Tensor:
        """Return zeros ``[B]``."""
        return F.new_zeros(len(F))
