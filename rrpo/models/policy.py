"""The policy: a decoder-only language model over speech tokens in CosyVoice2's layout, based on the `transformers` Qwen2 class.

One sequence is ``[sos][emotion][speaker][end of prompt][phones ...][task_id][speech ...] -> eos``: the ``task_id`` position
predicts the first speech token. Prefixes are padded on the left, so that speech starts in the same column for the whole batch.
As in CosyVoice2, ``llm_embedding`` holds sos and task_id, ``speech_embedding`` and ``llm_decoder`` have V + 3 rows (eos = V).

Sampling and scoring use the same distribution: temperature 1, no top-k, no penalties, over the V codes and eos, except that eos
cannot be the first token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F_
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from rrpo.config import PolicyConfig
from rrpo.corpus.prompts import Prompt
from rrpo.masking import valid_mask
from rrpo.models.decoding import Decoder
from rrpo.models.transformer import parallel

LEAVE = 0.75
"""Finished samples are removed from the batch when at most this share is unfinished."""
NEVER = -1e9
"""Logit of eos as the first token, where it is not allowed."""


@dataclass(frozen=True)
class Rollout:
    """Sampled speech tokens."""

    tokens: Tensor
    """``[B, N]``, N the longest length; 0 past a row's length."""
    lengths: Tensor
    """``[B]``, without eos."""
    ended: Tensor
    """``[B]`` bool: False if the sample was truncated at the limit before eos."""

    @property
    def scored(self) -> Tensor:
        """``[B, N + 1]`` bool: positions whose prediction was used, every token and eos where it was drawn."""
        return valid_mask(self.counts, self.tokens.shape[1] + 1)

    @property
    def counts(self) -> Tensor:
        """``[B]``: number of `scored` positions."""
        return self.lengths + self.ended

    def sums(self, packed: Tensor) -> Tensor:
        """Return sums ``[B]`` over each sample of values ``[P]`` at the scored positions, concatenated sample by sample."""
        return packed.new_zeros(len(self.tokens)).index_add(0, runs(self.counts, self.counts, len(packed))[0], packed)

    def pick(self, values: Tensor, total: int) -> Tensor:
        """Return ``values [B, N + 1]`` at the ``total`` scored positions: ``[P]``, concatenated sample by sample."""
        row, column = runs(torch.zeros_like(self.counts), self.counts, total)
        return values[row, column]

    def padded(self, packed: Tensor) -> Tensor:
        """Unpack ``[P, C]`` at the scored positions to ``[B, N + 1, C]``, with zeros elsewhere."""
        scored = self.scored
        return packed.new_zeros(*scored.shape, packed.shape[1]).masked_scatter(scored[..., None], packed)

    def select(self, rows: Tensor) -> Rollout:
        """Return the samples with these row numbers; N is their own longest length."""
        return Rollout(self.tokens[rows, : int(self.lengths[rows].max())], self.lengths[rows], self.ended[rows])

    @staticmethod
    def concatenate(parts: Sequence[Rollout]) -> Rollout:
        """Return the samples of several roll-outs, in order."""
        longest = max(part.tokens.shape[1] for part in parts)
        return Rollout(
            torch.cat([F_.pad(part.tokens, (0, longest - part.tokens.shape[1])) for part in parts]),
            torch.cat([part.lengths for part in parts]),
            torch.cat([part.ended for part in parts]),
        )


def runs(starts: Tensor, lengths: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Return i and ``starts[i] + j`` for all ``j < lengths[i]``, in the order of i, then j: two tensors ``[total]``.

    ``total`` is the sum of ``lengths [B]``; passing it, for example from the size of a tensor, avoids waiting for the device.
    """
    owner = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths, output_size=total)
    offset = starts - lengths.cumsum(0) + lengths
    return owner, torch.arange(total, device=lengths.device) + offset[owner]


class Policy(nn.Module):
    """Token language model; ``symbols`` are the phones, emotions and speakers that a prefix may contain."""

    pace: Tensor
    precision: str = "fp32"
    """``bf16``: its matrix products are computed in bfloat16, the last of which gives the logits; residual stream and norms stay
    float32."""
    recompute = False
    """Whether layers are computed once more for the gradient, which takes less memory and a third more time."""

    SPECIALS = ("<pad>", "<endofprompt>")
    HEAD = 4
    """Positions before the text: sos, emotion, speaker, end of prompt."""

    def __init__(self, config: PolicyConfig, symbols: Sequence[str], codes: int) -> None:
        super().__init__()
        self.config, self.symbols, self.codes = config, tuple(symbols), codes
        self._index = {symbol: index for index, symbol in enumerate(self.symbols)}
        qwen = Qwen2Config(
            vocab_size=len(self.symbols),
            hidden_size=config.dim,
            intermediate_size=3 * config.dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=1024,
            attn_implementation="sdpa",
        )
        self.llm = Qwen2Model(qwen)
        self.llm_embedding = nn.Embedding(2, config.dim)
        self.speech_embedding = nn.Embedding(codes + 3, config.dim)
        self.llm_decoder = nn.Linear(config.dim, codes + 3)
        for embedding in (self.llm_embedding, self.speech_embedding, self.llm.embed_tokens):
            nn.init.normal_(embedding.weight, std=1.0)
        self.register_buffer("pace", torch.ones(len(self.symbols)))

    def computing(self) -> AbstractContextManager[Any]:
        """Return a context manager that computes in this policy's `precision`."""
        return torch.autocast(self.llm_decoder.weight.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def eos(self) -> int:
        """Index of eos in the V + 1 predictions."""
        return self.codes

    @property
    def max_tokens(self) -> int:
        """Maximum roll-out length in tokens."""
        return self.config.max_tokens

    def prefix_ids(self, phones: Sequence[Sequence[str]], speakers: Sequence[str], emotions: Sequence[str]) -> Tensor:
        """Return symbol ids ``[B, L]`` of the prefixes, padded on the left with 0.

        Raises:
            ValueError: A phone, speaker or emotion does not occur in the SFT data.
        """
        rows = [
            [f"<{emotion}>", f"<{speaker}>", "<endofprompt>", *text]
            for text, speaker, emotion in zip(phones, speakers, emotions, strict=True)
        ]
        longest = max(map(len, rows))
        ids = [[0] * (longest - len(row)) + [self._symbol_id(symbol) for symbol in row] for row in rows]
        return torch.tensor(ids, device=self.llm_decoder.weight.device)

    def _symbol_id(self, symbol: str) -> int:
        """Return the id of a symbol."""
        if symbol not in self._index:
            raise ValueError(
                f"the policy does not know {symbol!r}; its training split must contain every phone and speaker"
            )
        return self._index[symbol]

    def prompt_ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return `prefix_ids` of prompts."""
        return self.prefix_ids([p.phones for p in prompts], [p.speaker for p in prompts], [p.emotion for p in prompts])

    def _prefix(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings ``[B, L + 2, D]``, mask and positions ``[B, L + 2]`` of ``[sos][prefix][task_id]``."""
        valid = ids > 0
        sos, task = self.llm_embedding.weight
        text = self.llm.embed_tokens(ids)
        batch = ids.shape[0]
        x = torch.cat([torch.zeros_like(text[:, :1]), text, task.expand(batch, 1, -1)], 1)
        start = ids.shape[1] - valid.sum(1)
        x[torch.arange(batch, device=ids.device), start] = sos
        mask = valid_mask(valid.sum(1) + 2, ids.shape[1] + 2).flip(1)
        return x, mask, self._positions(mask, ids.gather(1, start[:, None] + torch.arange(2, device=ids.device)))

    def measure_pace(self, emotions: Sequence[str], speakers: Sequence[str], tokens_per_phone: Tensor) -> None:
        """Set the pace of every emotion (mean tokens per phone) and speaker (relative to the mean) from utterances ``[U]``."""
        for names, scale in ((emotions, 1.0), (speakers, float(tokens_per_phone.mean()))):
            for name in set(names):
                selected = torch.tensor([candidate == name for candidate in names])
                self.pace[self._index[f"<{name}>"]] = tokens_per_phone[selected].mean() / scale

    def _positions(self, mask: Tensor, style: Tensor) -> Tensor:
        """Return rotary positions ``[B, L + 2]`` of a prefix; the first speech token is one position after the last of them.

        If paced, phone i is at s x i after the head, where s is the pace of the prompt's ``style [B, 2]`` (ids of emotion and
        speaker), and task_id is just before the end of the head. The speech then advances along the text at its expected rate.
        """
        index = (mask.cumsum(1) - 1).clamp(min=0).float()
        if not self.config.paced:
            return index
        stride = self.pace[style].prod(1, keepdim=True)
        head = float(self.HEAD)
        warped = torch.where(index < head, index, head + (index - head) * stride)
        warped[:, -1] = head - 1
        return warped

    def expected_tokens(self, prefix: Tensor) -> Tensor:
        """Return the expected number of tokens ``[B]`` for the phones of ``prefix [B, L]`` at the pace of its emotion and
        speaker."""
        start = (prefix == 0).sum(1, keepdim=True)
        style = prefix.gather(1, start + torch.arange(2, device=prefix.device))
        phones = (prefix > 0).sum(1) - (self.HEAD - 1)
        return phones * self.pace[style].prod(1)

    def _predict(self, hidden: Tensor) -> Tensor:
        """Return logits over the V codes and eos."""
        return F_.linear(
            hidden, self.llm_decoder.weight[: self.codes + 1], self.llm_decoder.bias[: self.codes + 1]
        ).float()

    def logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """Return predictions ``[B, N + 1, V + 1]`` of one parallel forward: row t is the distribution of token t given the
        previous ones.

        Args:
            prefix: Symbol ids ``[B, L]``.
            tokens: Speech tokens ``[B, N]``; values beyond a row's length affect only predictions beyond it.
        """
        batch, positions = tokens.shape[0], tokens.shape[1] + 1
        counts = torch.full((batch,), positions, device=tokens.device)
        return self.packed_logits(prefix, tokens, counts).view(batch, positions, -1)

    def packed_logits(self, prefix: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """Return the first ``counts [B]`` predictions of every row of `logits`, concatenated: ``[P, V + 1]``, P their sum."""
        with self.computing():
            logits = self._predict(self._hidden(prefix, tokens, counts))
        logits[counts.cumsum(0) - counts, self.eos] = NEVER
        return logits

    def _hidden(self, prefix: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """Return the hidden states ``[P, D]`` for `packed_logits`."""
        x, mask, positions = self._prefix(prefix)
        task = mask.shape[1] - 1  # the column that predicts the first token, in every row
        x = torch.cat([x, self.speech_embedding(tokens)], 1)
        following = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        positions = torch.cat([positions, positions[:, -1:] + following], 1)
        mask = torch.cat([mask, valid_mask(counts - 1, tokens.shape[1])], 1)
        size = mask.sum(1)
        sizes, scored = torch.stack([size, counts]).tolist()
        row, column = runs(task + counts - size, size, sum(sizes))
        packed = x.flatten(0, 1).index_select(0, row * mask.shape[1] + column)
        _, used = runs(size.cumsum(0) - counts, counts, sum(scored))
        return parallel(self.llm, packed, positions[row, column], sizes, used, recompute=self.recompute)

    @torch.no_grad()
    def sample(self, prefix: Tensor, noise: Tensor) -> Rollout:
        """Sample ancestrally with a key-value cache.

        Args:
            prefix: Symbol ids ``[B, L]``.
            noise: Uniforms ``[N_max, B]``; token t of sample i is the inverse CDF at ``noise[t, i]``, so that arms share
                samples as long as their distributions agree.
        """
        with self.computing():
            return ancestral(self.continuation(prefix, len(noise)), noise, self.eos)

    def continuation(self, prefix: Tensor, room: int) -> PolicyContinuation:
        """Return a decoder for the prefixes ``[B, L]`` with room for ``room`` tokens."""
        return PolicyContinuation(self, prefix, room)

    def restyled(self, prefix: Tensor, *, emotion: str | None = None, speaker: str | None = None) -> Tensor:
        """Replace the emotion, the speaker or both in all prefixes ``[B, L]``; None keeps the current one.

        Raises:
            ValueError: The policy does not know the emotion or the speaker.
        """
        start, rows = (prefix == 0).sum(1), torch.arange(len(prefix), device=prefix.device)
        changed = prefix.clone()
        for column, name in ((start, emotion), (start + 1, speaker)):
            if name is not None:
                changed[rows, column] = self._symbol_id(f"<{name}>")
        return changed

    def extended(self, symbols: Mapping[str, Sequence[str]]) -> Policy:
        """Return the policy with additional symbols; each starts as the mean of its given symbols, which the policy has.

        Ids are positions and new symbols come last, so predictions from existing prefixes do not change.
        """
        policy = Policy(self.config, (*self.symbols, *symbols), self.codes)
        state = self.state_dict()
        for name in ("llm.embed_tokens.weight", "pace"):
            rows = [
                state[name][[self._index[symbol] for symbol in sources]].mean(0, keepdim=True)
                for sources in symbols.values()
            ]
            state[name] = torch.cat([state[name], *rows])
        policy.load_state_dict(state)
        return policy.to(self.pace.device)

    def save(self, folder: Path) -> None:
        """Write weights and description into ``folder``."""
        state = self.state_dict()
        # The weights of a stacked policy are views; torch.save would write those of all members.
        state.update({name: value.clone() for name, value in state.items()})
        torch.save(state, folder / "policy.pt")
        description = {"config": asdict(self.config), "symbols": self.symbols, "codes": self.codes}
        (folder / "policy.json").write_text(json.dumps(description, ensure_ascii=False))

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> Policy:
        """Load a policy written by `save`, in evaluation mode."""
        description = json.loads((folder / "policy.json").read_text())
        policy = Policy(PolicyConfig(**description["config"]), description["symbols"], description["codes"])
        policy.load_state_dict(torch.load(folder / "policy.pt", map_location="cpu", weights_only=True))
        return policy.to(device).eval()


class Continuation(Protocol):
    """Roll-outs in progress, with the predictions for each row's next token."""

    logits: Tensor
    """``[R, V + 1]``, logits of each row's next token."""

    def step(self, tokens: Tensor) -> None:
        """Append the next token ``[R]`` of each row, and update `logits`."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, given as a mask ``[R]``."""
        ...


class PolicyContinuation:
    """The continuation of a single policy, with a key-value cache."""

    def __init__(self, policy: Policy, prefix: Tensor, room: int) -> None:
        self.policy = policy
        self.decoder = Decoder(policy.llm, *policy._prefix(prefix), room=room)
        self.logits = policy._predict(self.decoder.hidden)

    def step(self, tokens: Tensor) -> None:
        """See `Continuation`."""
        self.decoder.step(self.policy.speech_embedding(tokens))
        self.logits = self.policy._predict(self.decoder.hidden)

    def keep(self, rows: Tensor) -> None:
        """See `Continuation`."""
        self.decoder.keep(rows)


@torch.no_grad()
def ancestral(state: Continuation, noise: Tensor, eos: int) -> Rollout:
    """Sample roll-outs by ``noise [N_max, B]``: token t of row i is the `inverse_cdf` at ``noise[t, i]``; eos is never the
    first."""
    state.logits[:, eos] = NEVER
    rows = torch.arange(noise.shape[1], device=noise.device)  # rows that are not finished
    tokens = torch.full((noise.shape[1], len(noise)), eos, device=noise.device)
    alive = torch.ones_like(rows, dtype=torch.bool)
    for step, u in enumerate(noise):
        token = torch.where(alive, inverse_cdf(state.logits, u[rows]), eos)
        tokens[rows, step] = token
        alive = token != eos
        if step % 4 == 3:
            remaining = int(alive.sum())
            if not remaining:
                break
            if remaining <= LEAVE * len(rows):
                state.keep(alive)
                rows, token, alive = rows[alive], token[alive], alive[alive]
        if step + 1 < len(noise):
            state.step(token)
    speech = tokens != eos
    lengths = speech.sum(1)
    longest = int(lengths.max())
    return Rollout(tokens.masked_fill(~speech, 0)[:, :longest], lengths, lengths < len(noise))


def inverse_cdf(logits: Tensor, noise: Tensor) -> Tensor:
    """Return the class at which the cumulative distribution of ``logits [B, C]`` passes ``noise [B]`` in (0, 1)."""
    cdf = logits.softmax(1).cumsum(1, dtype=torch.float64)
    return torch.searchsorted(cdf, noise.double()[:, None] * cdf[:, -1:])[:, 0].clamp(max=logits.shape[1] - 1)


def token_kl(logits: Tensor, reference: Tensor) -> Tensor:
    """Return the full-vocabulary KL(P || P_ref) of every position, ``[B, N, V + 1] x 2 -> [B, N]`` in nats (Eq. 6)."""
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def token_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of every position's distribution, ``[B, N, V + 1] -> [B, N]`` in nats."""
    p = logits.log_softmax(-1)
    return -(p.exp() * p).sum(-1)
