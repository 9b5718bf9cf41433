"""How CosyVoice2 decodes: repetition-aware sampling (RAS, VALL-E 2, arXiv 2406.05370) and limits on the length.

A token is drawn from the nucleus (the most probable tokens up to a mass of top_p, at most top_k). If it occurred tau_r x win_size
times or more among the last win_size tokens, another is drawn from the whole distribution instead. Written as one distribution,

    q(x) = n(x) [x is not repeated] + rho p(x),   rho = the nucleus' mass on repeated tokens,

so that one uniform draws a token and q can be scored. While fewer than ``min_ratio`` speech tokens a text token are out, eos is
drawn again: q without eos. Optimisation does not use this: it samples and scores at temperature 1. Use it to judge what a
listener would hear; the vLLM path of CosyVoice2 has top-k alone, which is another policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.models.decoding import Decoder
from rrpo.models.policy import Rollout, inverse_cdf

NOTHING = -1
"""In place of a token that was not said yet."""


@dataclass(frozen=True, kw_only=True)
class RepetitionAware:
    """CosyVoice2's decoding, with the values of its cosyvoice2.yaml and of its inference function."""

    top_p: float = 0.8
    """Mass of the nucleus."""
    top_k: int = 25
    """Most tokens in it."""
    win_size: int = 10
    """Tokens looked back at."""
    tau_r: float = 0.1
    """Share of them from which on a token counts as repeated: 1 in 10."""
    min_ratio: float = 2.0
    """Fewest speech tokens a text token."""
    max_ratio: float = 20.0
    """Most speech tokens a text token."""

    def probabilities(self, logits: Tensor, recent: Tensor) -> Tensor:
        """q ``[B, C]`` of ``logits [B, C]`` after the tokens ``recent [B, win_size]``, `NOTHING` where there were fewer."""
        p = logits.softmax(1)
        ordered, order = p.sort(dim=1, descending=True, stable=True)
        kept = (ordered.cumsum(1) - ordered < self.top_p) & (torch.arange(p.shape[1], device=p.device) < self.top_k)
        nucleus = torch.zeros_like(p).scatter(1, order, ordered * kept)
        nucleus = nucleus / nucleus.sum(1, keepdim=True)
        counts = torch.zeros_like(p).scatter_add(1, recent.clamp(min=0), (recent != NOTHING).to(p.dtype))
        repeated = counts >= self.win_size * self.tau_r
        rho = (nucleus * repeated).sum(1, keepdim=True)
        return nucleus.masked_fill(repeated, 0.0) + rho * p

    @torch.no_grad()
    def sample(self, policy: CosyVoice2Policy, prefix: Tensor, noise: Tensor) -> Rollout:
        """One utterance for each row of ``prefix [B, L]``, from uniforms ``noise [N, B]``, N its most tokens.

        Where q has nothing but eos while eos is forbidden, the whole distribution without eos is used (upstream gives up there).
        """
        text = policy.text_lengths(prefix)
        shortest = (text * self.min_ratio).long()
        longest = (text * self.max_ratio).long().clamp(min=1, max=len(noise))
        with policy.computing():
            decoder = Decoder(policy.llm, *policy._prefix(prefix), room=len(noise))
            said = torch.full((len(prefix), len(noise)), policy.eos, device=prefix.device)
            alive = torch.ones(len(prefix), dtype=torch.bool, device=prefix.device)
            for step, u in enumerate(noise):
                logits = policy._predict(decoder.hidden)
                q = self.probabilities(logits, self._recent(said, step))
                q[:, policy.eos] = q[:, policy.eos].masked_fill((step < shortest) | (step == 0), 0.0)
                whole = logits.softmax(1).index_fill(1, torch.tensor(policy.eos, device=q.device), 0.0)
                q = torch.where(q.sum(1, keepdim=True) > 0, q, whole)
                said[:, step] = torch.where(alive, inverse_cdf(q.log(), u), policy.eos)
                alive &= (said[:, step] != policy.eos) & (step + 1 < longest)
                if not alive.any() or step + 1 == len(noise):
                    break
                decoder.step(policy.speech_embedding(said[:, step]))
        speech = said != policy.eos
        lengths = speech.sum(1)
        return Rollout(said.masked_fill(~speech, 0)[:, : int(lengths.max())], lengths, lengths < longest)

    def _recent(self, said: Tensor, step: int) -> Tensor:
        """The last ``win_size`` tokens before ``step`` of ``said [B, N]``."""
        found = torch.full((len(said), self.win_size), NOTHING, device=said.device)
        last = said[:, max(0, step - self.win_size) : step]
        found[:, : last.shape[1]] = last
        return found
