"""Supervised fine-tuning of the policy on labelled tokens, which teaches it the emotion words of the instruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.cosyvoice.config import SupervisedConfig
from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.cosyvoice.tokens import TokenUtterance
from rrpo.masking import valid_mask, with_eos
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches
from rrpo.training.trainer import fit


def targets(utterances: Sequence[TokenUtterance]) -> int:
    """Return the number of tokens that are predicted, eos included."""
    return sum(len(utterance.tokens) + 1 for utterance in utterances)


def loss(policy: CosyVoice2Policy, utterances: Sequence[TokenUtterance]) -> Tensor:
    """Return the mean cross-entropy in nats per token, eos included."""
    prefix = policy.prompt_ids([utterance.prompt for utterance in utterances])
    rows = [torch.tensor(utterance.tokens, device=prefix.device) for utterance in utterances]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=prefix.device)
    logits = policy.packed_logits(prefix, tokens, lengths + 1)
    following = with_eos(tokens, lengths, policy.eos)
    return F_.cross_entropy(logits, following[valid_mask(lengths + 1, following.shape[1])])


def supervise(
    policy: CosyVoice2Policy, utterances: Sequence[TokenUtterance], config: SupervisedConfig, context: Context
) -> list[float]:
    """Train the policy in place, with at most ``context.micro`` utterances per forward pass, and return the loss of each step."""
    order = permutation_batches(len(utterances), config.batch, config.steps, config.seed, "cosyvoice supervised")

    def step_loss(step: int) -> Tensor:
        """Return the loss of a batch. Gradients of all but the last of its micro-batches are added here."""
        rows = [utterances[i] for i in order[step]]
        size = context.micro or len(rows)
        total = targets(rows)

        def weighted(part: Sequence[TokenUtterance]) -> Tensor:
            return loss(policy, part) * (targets(part) / total)

        *others, last = (rows[start : start + size] for start in range(0, len(rows), size))
        done = []
        for part in others:
            done.append(weighted(part))
            context.backward(done[-1])
        return sum((part_loss.detach() for part_loss in done), start=weighted(last))

    return fit(policy.parameters(), step_loss, config.steps, config.lr, context)
