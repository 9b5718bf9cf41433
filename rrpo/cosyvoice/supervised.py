"""Supervised fine-tuning of the policy on labelled tokens, which teaches it the emotion words of the instruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.cosyvoice.config import SupervisedConfig
from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.cosyvoice.tokens import TokenUtterance
from rrpo.masking import valid_mask
from rrpo.pipeline.stages import Context
from rrpo.seeding import permutation_batches
from rrpo.training.trainer import fit


def loss(policy: CosyVoice2Policy, utterances: Sequence[TokenUtterance]) -> Tensor:
    """Return the mean cross-entropy in nats per token, eos included."""
    prefix = policy.prompt_ids([utterance.prompt for utterance in utterances])
    rows = [torch.tensor(utterance.tokens, device=prefix.device) for utterance in utterances]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=prefix.device)
    logits = policy.packed_logits(prefix, tokens, lengths + 1)
    targets = F_.pad(tokens, (0, 1)).scatter(1, lengths[:, None], policy.eos)
    return F_.cross_entropy(logits, targets[valid_mask(lengths + 1, targets.shape[1])])


def supervise(
    policy: CosyVoice2Policy, utterances: Sequence[TokenUtterance], config: SupervisedConfig, context: Context
) -> list[float]:
    """Train the policy in place and return the loss of each step."""
    order = permutation_batches(len(utterances), config.batch, config.steps, config.seed, "cosyvoice supervised")
    return fit(
        policy.parameters(),
        lambda step: loss(policy, [utterances[i] for i in order[step]]),
        config.steps,
        config.lr,
        context,
    )
