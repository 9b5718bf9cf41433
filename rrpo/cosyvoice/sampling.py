"""CosyVoice2's decoding: repetition-aware sampling (RAS, VALL-E 2, arXiv 2406.05370) with limits on the length.

A token is drawn from the nucleus (the most probable tokens up to a mass of top_p, at most top_k). If it occurred tau_r x win_size
times or more among the last win_size tokens, another is drawn from the whole distribution instead. As a single distribution,

    q(x) = n(x) [x is not repeated] + rho p(x),   rho = the nucleus' mass on repeated tokens,

so that one uniform number draws a token and q can be scored. Before ``min_ratio`` speech tokens per text token, eos is drawn
again: q without eos. The optimization does not use this decoding; it samples and scores at temperature 1. Use it to evaluate
what a listener would hear. The vLLM path of CosyVoice2 uses top-k only, which is a different policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.models.decoding import Decoder
from rrpo.models.policy import Rollout, inverse_cdf

NOTHING = -1
"""Placeholder for positions before the first token."""


@dataclass(frozen=True, kw_only=True)
class RepetitionAware:
    """CosyVoice2's decoding, with defaults from its cosyvoice2.yaml and inference function."""

    top_p: float = 0.8
    """Probability mass of the nucleus."""
    top_k: int = 25
    """Maximum number of tokens in the nucleus."""
    win_size: int = 10
    """Number of preceding tokens that are checked for repetition."""
    tau_r: float = 0.1
    """Minimum fraction of these tokens at which a token counts as repeated: 1 in 10."""
    min_ratio: float = 2.0
    """Minimum number of speech tokens per text token."""
    max_ratio: float = 20.0
    """Maximum number of speech tokens per text token."""

    def probabilities(self, logits: Tensor, recent: Tensor) -> Tensor:
        """Return q ``[B, C]`` for ``logits [B, C]`` after the tokens ``recent [B, win_size]``, padded with `NOTHING`."""
        p = logits.softmax(1)
        ordered, order = p.sort(dim=1, descending=True, stable=True)
        inside = (ordered.cumsum(1) - ordered < self.top_p) & (torch.arange(p.shape[1], device=p.device) < self.top_k)
        nucleus = torch.zeros_like(p).scatter(1, order, ordered * inside)
        nucleus = nucleus / nucleus.sum(1, keepdim=True)
        counts = torch.zeros_like(p).scatter_add(1, recent.clamp(min=0), (recent != NOTHING).to(p.dtype))
        repeated = counts >= self.win_size * self.tau_r
        rho = (nucleus * repeated).sum(1, keepdim=True)
        return nucleus.masked_fill(repeated, 0.0) + rho * p

    @torch.no_grad()
    def sample(self, policy: CosyVoice2Policy, prefix: Tensor, noise: Tensor) -> Rollout:
        """Draw one utterance per row of ``prefix [B, L]`` with uniforms ``noise [N, B]``, where N is the maximum length.

        If q contains only eos while eos is not allowed, the whole distribution without eos is used (upstream fails in this case).
        """
        text = policy.text_lengths(prefix)
        shortest = (text * self.min_ratio).long()
        longest = (text * self.max_ratio).long().clamp(min=1, max=len(noise))
        with policy.computing():
            decoder = Decoder(policy.llm, *policy._prefix(prefix), room=len(noise))
            tokens = torch.full((len(prefix), len(noise)), policy.eos, device=prefix.device)
            recent = torch.full((len(prefix), self.win_size), NOTHING, device=prefix.device)
            alive = torch.ones(len(prefix), dtype=torch.bool, device=prefix.device)
            for step, u in enumerate(noise):
                logits = policy._predict(decoder.hidden)
                q = self.probabilities(logits, recent)
                q[:, policy.eos] = q[:, policy.eos].masked_fill((step < shortest) | (step == 0), 0.0)
                without_eos = logits.softmax(1).index_fill(1, torch.tensor(policy.eos, device=q.device), 0.0)
                q = torch.where(q.sum(1, keepdim=True) > 0, q, without_eos)
                tokens[:, step] = torch.where(alive, inverse_cdf(q.log(), u), policy.eos)
                alive &= (tokens[:, step] != policy.eos) & (step + 1 < longest)
                if not alive.any() or step + 1 == len(noise):
                    break
                recent = torch.cat([recent[:, 1:], tokens[:, step, None]], 1)
                decoder.step(policy.speech_embedding(tokens[:, step]))
        speech = tokens != policy.eos
        lengths = speech.sum(1)
        return Rollout(tokens.masked_fill(~speech, 0)[:, : int(lengths.max())], lengths, lengths < longest)
