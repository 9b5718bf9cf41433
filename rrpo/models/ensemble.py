"""Combine several reward models of a seed into one: an ensemble, or the mean of their weights. Forms and sources: `COMBINATIONS`.

An ensemble has the interface of a `RewardModel`, so that every optimizer and probe works with it unchanged. Its h' concatenates
its members' h', and its logits are its rewards for each emotion. Softmax normalizes these to probabilities; the reward itself
is not normalized.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rrpo.corpus.features import SpeechSet
from rrpo.models.reward_model import RewardModel

CARD = "ensemble.json"


class RewardEnsemble(RewardModel):
    """Reward models whose rewards are combined; all members have the same network, emotions and regularizers."""

    def __init__(self, members: Sequence[RewardModel], combination: str, variance_penalty: float = 0.0) -> None:
        """Create an ensemble; the members must agree in network, emotions and regularizers.

        Args:
            members: Two or more.
            combination: ``mean`` or ``worst`` of `rrpo.config.COMBINATIONS`.
            variance_penalty: λ of ``mean``.
        """
        nn.Module.__init__(self)
        first = members[0]
        self.config, self.emotions, self.n_mels, self.floor = first.config, first.emotions, first.n_mels, first.floor
        self.regularizers, self.signal = first.regularizers, first.signal
        self.combination, self.variance_penalty = combination, variance_penalty
        self.members = nn.ModuleList(members)

    def as_input(self, speech: SpeechSet) -> SpeechSet:
        """Return the speech in the form that the members take."""
        return self._members()[0].as_input(speech)

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` -> the members' ``h' [B, T', members D]`` concatenated, ``mask [B, T']``."""
        encoded = [member.encode(F, lengths) for member in self._members()]
        return torch.cat([h for h, _ in encoded], 2), encoded[0][1]

    def classify(self, h: Tensor, mask: Tensor) -> Tensor:
        """Return `rewards`, which serve as unnormalized logits."""
        return self.rewards(h, mask)

    def rewards(self, h: Tensor, mask: Tensor) -> Tensor:
        """``h' [B, T', members D], mask [B, T']`` -> rewards ``[B, K]``: the combination of the members' log-probabilities."""
        members = self._members()
        parts = zip(members, h.chunk(len(members), 2), strict=True)
        rewards = torch.stack([member.rewards(part, mask) for member, part in parts])
        if self.combination == "worst":
            return rewards.amin(0)
        return rewards.mean(0) - self.variance_penalty * rewards.var(0, correction=0)

    def save(self, folder: Path) -> None:
        """Write `CARD`, and each member into its own folder."""
        for index, member in enumerate(self._members()):
            subfolder = folder / f"member_{index:02d}"
            subfolder.mkdir(exist_ok=True)
            member.save(subfolder)
        card = {"combination": self.combination, "variance_penalty": self.variance_penalty}
        (folder / CARD).write_text(json.dumps(card))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> RewardEnsemble:
        """Load the frozen ensemble of ``folder``."""
        members = [RewardModel.load(subfolder, device) for subfolder in sorted(folder.glob("member_*"))]
        return cls(members, **json.loads((folder / CARD).read_text())).eval()

    def _members(self) -> list[RewardModel]:
        return list(self.members)  # type: ignore[arg-type]


def load_reward_model(folder: Path, device: str = "cpu") -> RewardModel:
    """Load the frozen reward model of ``folder``, single or ensemble."""
    return (RewardEnsemble if (folder / CARD).is_file() else RewardModel).load(folder, device)


def combined(members: Sequence[RewardModel], combination: str, variance_penalty: float = 0.0) -> RewardModel:
    """Return the reward model that a ``combination`` of `rrpo.config.COMBINATIONS` makes of the members, which it may modify."""
    return averaged(members) if combination == "weights" else RewardEnsemble(members, combination, variance_penalty)


def averaged(members: Sequence[RewardModel]) -> RewardModel:
    """Return the reward model whose weights are the mean of the members'. It modifies and returns the first member."""
    states = [member.state_dict() for member in members]
    members[0].load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    return members[0]
