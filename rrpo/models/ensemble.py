"""Several reward models of a seed as one: an ensemble, or the mean of their weights. Forms and sources: `COMBINATIONS`.

An ensemble has the interface of a `RewardModel`, so that every optimiser and probe works with it unchanged: its h' is its
members' h' side by side, and its logits are its rewards for each emotion. Whoever takes probabilities of it normalises these; the
reward itself is not normalised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rrpo.models.reward_model import RewardModel

CARD = "ensemble.json"


class RewardEnsemble(RewardModel):
    """Reward models whose rewards are combined; the members share network, emotions and regularisers."""

    def __init__(self, members: Sequence[RewardModel], combination: str, variance_penalty: float = 0.0) -> None:
        """Args:
        members: Two or more.
        combination: ``mean`` or ``worst`` of `rrpo.config.COMBINATIONS`.
        variance_penalty: λ of ``mean``.
        """
        nn.Module.__init__(self)
        first = members[0]
        self.config, self.emotions, self.n_mels, self.floor = first.config, first.emotions, first.n_mels, first.floor
        self.regularizers = first.regularizers
        self.combination, self.variance_penalty = combination, variance_penalty
        self.members = nn.ModuleList(members)

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` -> the members' ``h' [B, T', members D]`` side by side, ``mask [B, T']``."""
        heard = [member.encode(F, lengths) for member in self._members()]
        return torch.cat([h for h, _ in heard], 2), heard[0][1]

    def classify(self, h: Tensor, mask: Tensor) -> Tensor:
        """As `rewards`; without their normalisation these are logits."""
        return self.rewards(h, mask)

    def rewards(self, h: Tensor, mask: Tensor) -> Tensor:
        """``h' [B, T', members D], mask [B, T']`` -> rewards ``[B, K]``: the combination of the members' log-probabilities."""
        members = self._members()
        parts = zip(members, h.chunk(len(members), 2), strict=True)
        each = torch.stack([member.rewards(part, mask) for member, part in parts])
        if self.combination == "worst":
            return each.amin(0)
        return each.mean(0) - self.variance_penalty * each.var(0, correction=0)

    def save(self, folder: Path) -> None:
        """Writes `CARD`, and each member into a folder of its own."""
        for place, member in enumerate(self._members()):
            own = folder / f"member_{place:02d}"
            own.mkdir()
            member.save(own)
        card = {"combination": self.combination, "variance_penalty": self.variance_penalty}
        (folder / CARD).write_text(json.dumps(card))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> RewardEnsemble:
        """The frozen ensemble of ``folder``."""
        members = [RewardModel.load(own, device) for own in sorted(folder.glob("member_*"))]
        return cls(members, **json.loads((folder / CARD).read_text())).eval()

    def _members(self) -> list[RewardModel]:
        return list(self.members)  # type: ignore[arg-type]


def load_reward_model(folder: Path, device: str = "cpu") -> RewardModel:
    """The frozen reward model of ``folder``, one or an ensemble."""
    return (RewardEnsemble if (folder / CARD).is_file() else RewardModel).load(folder, device)


def averaged(members: Sequence[RewardModel]) -> RewardModel:
    """The reward model whose weights are the mean of the members'; it is the first of them, changed."""
    states = [member.state_dict() for member in members]
    members[0].load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    return members[0]
