"""Run C policies of one architecture together: parameters are stacked to ``[C, ...]`` and matrix products batched over members.

This module mirrors `rrpo.models.transformer` and `rrpo.models.decoding` with a leading axis of members. Shapes are static:
batches are padded to the longest sequence of any member. The step for one token works on preallocated buffers without waiting
for the device, so that on a GPU it is captured once per roll-out as a CUDA graph and replayed. Tests check that samples, logits
and gradients equal those of the single policies within tolerance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F_
from torch import Tensor

from rrpo.masking import valid_mask
from rrpo.models.policy import LEAVE, NEVER, Policy, Rollout, inverse_cdf
from rrpo.models.transformer import (
    Attend,
    Layer,
    attention,
    fuse_layer,
    rms_norm,
    rotations,
    token_attention,
    visible_positions,
)
from rrpo.stacking.parameters import StackedParameters, shapes

CHECKED = {"cpu": 4}
"""Tokens between checks for unfinished samples, by device; `RARELY` on other devices, because each check waits for the device."""
RARELY = 16


class StackedLayer(Layer):
    """Weights of one layer of C members, with a leading axis C; ``x [C, R, D]``, rotations ``[C, R, 1, d / 2]``."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply `linear` of this module."""
        return linear(x, weight, bias)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply `normed`."""
        return normed(x, weight, self.eps)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``[C, R, O]`` for ``x [C, R, I]``, ``weight [C, O, I]``, ``bias [C, O]``."""
    return torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return `rms_norm` of ``x [C, ..., D]`` with one ``weight [C, D]`` per member."""
    return rms_norm(x, torch.ones_like(weight[0]), eps) * weight.view(len(weight), *[1] * (x.dim() - 2), -1)


def lookup(table: Tensor, index: Tensor) -> Tensor:
    """Return rows ``[C, ..., D]`` of each member's ``table [C, V, D]`` at ``index [C, ...]``."""
    return F_.embedding(index + _offsets(index, table.shape[1]), table.flatten(0, 1))


def _offsets(index: Tensor, size: int) -> Tensor:
    """Return ``size`` times the member number, to be added to ``index [C, ...]``."""
    return torch.arange(len(index), device=index.device).view(-1, *[1] * (index.dim() - 1)) * size


def padded(tensors: Sequence[Tensor], axis: int, *, left: bool = False) -> Tensor:
    """Pad tensors along one axis with zeros to the longest and stack them."""
    longest = max(tensor.shape[axis] for tensor in tensors)
    pads = [[0, 0] * (tensor.dim() - 1 - axis) for tensor in tensors]
    for pad, tensor in zip(pads, tensors, strict=True):
        missing = longest - tensor.shape[axis]
        pad += [missing, 0] if left else [0, missing]
    return torch.stack([F_.pad(tensor, pad) for tensor, pad in zip(tensors, pads, strict=True)])


Prefixes = tuple[Tensor, Tensor, Tensor]
"""Embeddings ``[C, B, L + 2, D]``, mask and rotary positions ``[C, B, L + 2]`` of ``[sos][prefix][task_id]``."""


class StackedPolicy:
    """C policies. Methods take member numbers and, for each argument, one value per member."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        """Stack the parameters; those of ``policies`` become views.

        Raises:
            ValueError: The architectures differ.
        """
        first = policies[0]
        for other in policies[1:]:
            if shapes(other) != shapes(first) or (other.config, other.codes) != (first.config, first.codes):
                raise ValueError(
                    f"policies of one stack must have one architecture and vocabulary, got {other.config} after {first.config}; "
                    "stack cells of one profile"
                )
        self.template = copy.deepcopy(first)
        """Provides the properties that members share; its paces are the concatenated paces of all members."""
        self.template.pace = torch.cat([policy.pace for policy in policies])
        self.parameters = StackedParameters(policies)

    def logits(self, members: Sequence[int], prefixes: Sequence[Tensor], tokens: Sequence[Tensor]) -> list[Tensor]:
        """Return `Policy.logits` of each member: ``[B, N + 1, V + 1]``."""
        counts = [batch.new_full((len(batch),), batch.shape[1] + 1) for batch in tokens]
        packed = self.packed_logits(members, prefixes, tokens, counts)
        return [logits.view(len(batch), batch.shape[1] + 1, -1) for logits, batch in zip(packed, tokens, strict=True)]

    def packed_logits(
        self, members: Sequence[int], prefixes: Sequence[Tensor], tokens: Sequence[Tensor], counts: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return `Policy.packed_logits` of each member: ``[P, V + 1]`` with gradient to `weights`."""
        with self.template.computing():
            weights = self.parameters.of(members)
            prefix, mask, positions = self._prefixes(members, weights, padded(prefixes, 1, left=True))
            speech, count = padded(tokens, 1), torch.stack(list(counts))
            C, B, N = speech.shape
            task = mask.shape[2] - 1
            x = torch.cat([prefix, lookup(weights["speech_embedding.weight"], speech)], 2)
            following = torch.arange(1, N + 1, device=x.device)
            positions = torch.cat([positions, positions[..., -1:] + following], 2)
            S = x.shape[2]
            visible = visible_positions(F_.pad(mask, (0, N), value=True).flatten(0, 1))

            def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                q, k, v = (part.view(C * B, S, *part.shape[2:]) for part in (query, key, value))
                return attention(q, k, v, visible).view(C, B * S, -1)

            sizes = count.sum(1).tolist()
            scored = valid_mask(count.flatten(), N + 1).view(C, -1)
            # positions in [B, N + 1]
            used = scored.byte().argsort(dim=1, descending=True, stable=True)[:, : max(sizes)]
            column = used // (N + 1) * S + used % (N + 1) + task

            def select(x: Tensor) -> Tensor:
                return x.gather(1, column[..., None].expand(-1, -1, x.shape[-1]))

            hidden = self._run(
                weights, x.flatten(1, 2), rotations(self.template.llm, positions.flatten(1)), attend, select
            )
            logits = self._predict(weights, hidden)
            starts = count.cumsum(1) - count
            logits[torch.arange(C, device=x.device)[:, None], starts, self.template.eos] = NEVER
            return [rows[:size] for rows, size in zip(logits, sizes, strict=True)]

    @torch.no_grad()
    def sample(self, members: Sequence[int], prefixes: Sequence[Tensor], noises: Sequence[Tensor]) -> list[Rollout]:
        """Return `Policy.sample` of each member: ancestral sampling of C x B rows with a key-value cache."""
        with self.template.computing():
            weights = self.parameters.of(members)
            start = self._prefixes(members, weights, padded(prefixes, 1, left=True))
            steps = _TokenSteps(self, weights, start, torch.stack(list(noises), 1))
            steps.finish()
        tokens = steps.tokens.permute(1, 2, 0)
        speech = tokens != self.template.eos
        lengths = speech.sum(2)
        speech_tokens = tokens.masked_fill(~speech, 0)
        parts = zip(speech_tokens, lengths, lengths.amax(1).tolist(), strict=True)
        return [Rollout(rows[:, :longest], sizes, sizes < tokens.shape[2]) for rows, sizes, longest in parts]

    def _prefixes(self, members: Sequence[int], weights: dict[str, Tensor], ids: Tensor) -> Prefixes:
        """Return the prefixes of ``ids [C, B, L]``."""
        valid = ids > 0
        text = lookup(weights["llm.embed_tokens.weight"], ids)
        sos, task = weights["llm_embedding.weight"][:, :, None, None].unbind(1)
        x = torch.cat([torch.zeros_like(text[:, :, :1]), text, task.expand_as(text[:, :, :1])], 2)
        start = ids.shape[2] - valid.sum(2, keepdim=True)
        column = torch.arange(ids.shape[2] + 2, device=ids.device)
        x = torch.where((column == start)[..., None], sos, x)
        mask = column >= start
        style = ids.gather(2, start + torch.arange(2, device=ids.device))
        number = torch.tensor(list(members), device=ids.device)[:, None, None]
        style = style + number * len(self.template.symbols)
        positions = self.template._positions(mask.flatten(0, 1), style.flatten(0, 1))
        return x, mask, positions.view_as(mask)

    def _layers(self, weights: dict[str, Tensor]) -> list[StackedLayer]:
        config = self.template.llm.config
        layers: list[dict[str, Tensor]] = [{} for _ in range(config.num_hidden_layers)]
        for name, value in weights.items():
            if name.startswith("llm.layers."):
                number, _, inside = name.removeprefix("llm.layers.").partition(".")
                layers[int(number)][inside] = value
        return [fuse_layer(StackedLayer, layer, config) for layer in layers]

    def _run(
        self,
        weights: dict[str, Tensor],
        x: Tensor,
        rotation: Tensor,
        attend: Attend,
        select: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Apply all layers to ``x [C, R, D]``, the last only to the rows that ``select`` picks, and the final norm."""
        *layers, last = self._layers(weights)
        for layer in layers:
            x = layer.forward(x, rotation, attend)
        return self._norm(weights, last.forward(x, rotation, attend, select))

    def _norm(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return normed(x, weights["llm.norm.weight"], self.template.llm.config.rms_norm_eps)

    def _predict(self, weights: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """Return logits ``[C, R, V + 1]`` over the V codes and eos."""
        classes = self.template.codes + 1
        decoder, bias = weights["llm_decoder.weight"], weights["llm_decoder.bias"]
        return linear(hidden, decoder[:, :classes], bias[:, :classes]).float()


class _TokenSteps:
    """A roll-out: its buffers, and the step that draws one more token of each row."""

    def __init__(self, stack: StackedPolicy, weights: dict[str, Tensor], prefixes: Prefixes, noise: Tensor) -> None:
        """Run the prefixes and draw the first tokens; ``noise`` is ``[room, C, B]``."""
        self.stack, self.weights, self.noise = stack, weights, noise
        room, self.C, self.B = noise.shape
        config = stack.template.llm.config
        self.pairs = config.num_key_value_heads
        x, mask, positions = prefixes
        C, B, L = self.C, self.B, mask.shape[2]
        device = noise.device
        self.start = L
        self.keys: list[Tensor] = []
        """One tensor ``[C, B, H_kv, L + room, d]`` per layer."""
        self.values: list[Tensor] = []
        visible = visible_positions(mask.flatten(0, 1))

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (part.view(C * B, L, *part.shape[2:]) for part in (query, key, value))
            self.keys.append(F_.pad(k.transpose(1, 2), (0, 0, 0, room)).unflatten(0, (C, B)))
            self.values.append(F_.pad(v.transpose(1, 2), (0, 0, 0, room)).unflatten(0, (C, B)))
            return attention(q, k, v, visible).view(C, B * L, -1)

        rotation = rotations(stack.template.llm, positions.flatten(1))
        hidden = stack._run(weights, x.flatten(1, 2), rotation, attend, lambda x: x.unflatten(1, (B, L))[:, :, -1])
        self.layers = stack._layers(weights)
        bias = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill_(~mask, -math.inf)
        self.bias = F_.pad(bias, (0, room), value=-math.inf)
        """``[C, B, L + room]``, added to attention scores: -inf on padding and on columns that are not filled yet."""
        following = positions[..., -1:] + 1 + torch.arange(room, device=device)
        self.rotation = rotations(stack.template.llm, following)
        """``[C, B, room, 1, d / 2]``: rotations of the speech tokens, by position."""
        self.tokens = torch.full((room, C, B), stack.template.eos, device=device)
        self.rows = torch.arange(B, device=device).expand(C, B)
        """``[C, B']``: rows that are still computed."""
        self.alive = torch.ones(C, B, dtype=torch.bool, device=device)
        self.token = torch.full((C, B), stack.template.eos, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        """Number of tokens drawn."""
        logits = stack._predict(weights, hidden)
        logits[..., stack.template.eos] = NEVER
        self._draw(logits)

    @property
    def longest(self) -> int:
        """Number of columns of the caches."""
        return self.bias.shape[2]

    def _draw(self, logits: Tensor) -> None:
        eos = self.stack.template.eos
        u = self.noise.index_select(0, self.at)[0].gather(1, self.rows)
        sampled = inverse_cdf(logits.flatten(0, 1), u.flatten()).view_as(u)
        self.token.copy_(torch.where(self.alive, sampled, eos))
        self.alive.copy_(self.token != eos)
        row = torch.full_like(self.tokens[:1], eos).scatter_(2, self.rows[None], self.token[None])
        self.tokens.index_copy_(0, self.at, row)
        self.at += 1

    def step(self, end: int) -> None:
        """Process the last tokens and draw the next; attention covers the first ``end`` columns of the caches."""
        C, B = self.token.shape
        before = self.at - 1
        column = before + self.start
        self.bias.index_fill_(2, column, 0.0)
        bias = self.bias[..., :end].repeat_interleave(self.pairs, 1).view(C * B * self.pairs, 1, end)
        rotation = self.rotation.index_select(2, before)[:, :, 0]
        x = lookup(self.weights["speech_embedding.weight"], self.token)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):

            def attend(
                query: Tensor, key: Tensor, value: Tensor, keys: Tensor = keys, values: Tensor = values
            ) -> Tensor:
                keys.index_copy_(3, column, key[:, :, :, None])
                values.index_copy_(3, column, value[:, :, :, None])
                filled_keys, filled_values = (cache.flatten(0, 2)[:, :end] for cache in (keys, values))
                return token_attention(query, filled_keys, filled_values, bias).view(C, B, -1)

            x = layer.forward(x, rotation, attend)
        self._draw(self.stack._predict(self.weights, self.stack._norm(self.weights, x)))

    def finish(self) -> None:
        """Make steps until all samples have ended or the buffers are full."""
        room, device = len(self.noise), self.noise.device
        interval = CHECKED.get(device.type, RARELY)
        step = self._captured() if device.type == "cuda" and room > 2 else self.step
        for count in range(int(self.at), room):
            if count % interval == 0:
                remaining = int(self.alive.sum(1).max())
                if not remaining:
                    return
                if device.type == "cpu" and remaining <= LEAVE * self.rows.shape[1]:
                    self._keep(remaining)
            step(self.start + count)

    def _captured(self) -> Callable[[int], None]:
        """Capture `step` as a CUDA graph over the whole caches; this makes one step."""
        self.step(self.longest)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(self.longest)
        return lambda end: graph.replay()

    def _keep(self, count: int) -> None:
        """Keep only ``count`` rows of each member, including all that have not ended."""
        rows = self.alive.byte().argsort(dim=1, descending=True, stable=True)[:, :count]

        def select(value: Tensor) -> Tensor:
            index = rows.view(*rows.shape, *[1] * (value.dim() - 2)).expand(-1, -1, *value.shape[2:])
            return value.gather(1, index)

        self.keys = [select(keys) for keys in self.keys]
        self.values = [select(values) for values in self.values]
        self.bias, self.rotation, self.rows = select(self.bias), select(self.rotation), select(self.rows)
        self.token, self.alive = select(self.token), select(self.alive)
