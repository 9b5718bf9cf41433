"""Emo-DPO (Gao et al. 2024, arXiv 2409.10157): supervised fine-tuning, then direct preference optimization on emotion pairs.

A pair consists of two utterances of one text, y+ in the requested emotion e and y- in another. With Δ(y) = log pi(y) - log
pi_ref(y), the loss of stage 2 is

    a L_DPO + g L_KL + th L_SFT,    L_DPO = -log sigmoid(β_DPO (f(Δ(y+)) - f(Δ(y-))))

and stage 1 uses L_SFT + L_KL only; pi_ref is the policy at the end of stage 1. L_SFT is the cross-entropy of y+ per token, L_KL
the divergence of the policy from the label-smoothed target per token. f(Δ) = Δ is plain DPO. Replacing the KL by the
Jensen-Shannon divergence (Wang et al. 2023, arXiv 2309.16240) gives f'(u) = log(2u / (1 + u)), u = pi / pi_ref, hence f(Δ) =
log 2 + log sigmoid(Δ).

As published, each side is scored under its own tag; an unpublished variant scores both under the requested tag. If every
utterance is once y+ and once y-, as here, Δ under own tags does not depend on the side: the losses of a pair and of its reverse
have no joint gradient at the reference, and L_DPO only holds the changes of the two together. The paper does not give a, g, th
or β_DPO. Its pairs are recorded speech; here they may also be samples of the SFT policy ranked by the reward
model. In both cases the pairs are fixed before the first step. The roll-outs of the loop are used only for the curves and for
the penalty that all arms share (weight β).

Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rrpo.config import Checked
from rrpo.errors import InputError
from rrpo.identity import option
from rrpo.optimizers.base import Batch, Loss, PolicyOptimizer, State
from rrpo.plugins import searched

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import OptimizeConfig
    from rrpo.corpus.manifest import Utterance
    from rrpo.corpus.prompts import Prompt
    from rrpo.models.policy import Rollout
    from rrpo.models.protocols import TokenPolicy
    from rrpo.optimizers.rollout import Models, Prompts

PAIRS = ("speech", "samples")
TAGS = ("own", "requested")
DIVERGENCES = ("kl", "js")
SIDES = ("chosen", "rejected")
CHUNK = 32
"""Pairs per forward pass."""
SPEECH = ("sft_speech", "parallel_speech")
"""Inputs for pairs of speech: the SFT utterances, and the same texts by the same speakers in other emotions."""


@dataclass(frozen=True, kw_only=True)
class EmoDPO(Checked, PolicyOptimizer):
    """Emo-DPO."""

    version: ClassVar[int] = 1
    equation: ClassVar[str] = (
        "a (-log σ(β_DPO (f(Δ(y+)) - f(Δ(y-))))) + g KL(smoothed target || π) + th L_SFT(y+), Δ = log π / π_ref"
    )

    pairs: str = option("speech", within=PAIRS)
    """One of `PAIRS`. ``speech``: utterances of one text and speaker in two emotions, as in the paper. ``samples``: for each
    text, draw `candidates` samples of the SFT policy for either side and rank them by the arm's reward; pair the better half of
    one side, best first, with the worse half of the other, worst first."""
    tags: str = option("own", within=TAGS)
    """One of `TAGS`: the emotion tag under which y- is scored and, for ``samples``, drawn. Paper: ``own``."""
    divergence: str = option("kl", within=DIVERGENCES)
    """One of `DIVERGENCES`, which determines f. Paper: ``kl``."""
    length_normalized: bool = False
    """Whether Δ is divided by the number of tokens of the utterance."""
    dpo_beta: float = searched(0.1, 0.01, 1.0, log=True, within="(0, inf)")
    """β_DPO, range (0, inf). Declared default (arXiv 2305.18290: 0.1)."""
    dpo_weight: float = searched(1.0, 0.1, 10.0, log=True, within="[0, inf)")
    """a, range [0, inf). Declared default."""
    kl_weight: float = searched(1.0, 0.01, 10.0, log=True, within="[0, inf)")
    """g, weight of the label-smoothed KL in both stages, range [0, inf). Declared default."""
    sft_weight: float = searched(1.0, 0.01, 10.0, log=True, within="[0, inf)")
    """th, weight of the cross-entropy in both stages, range [0, inf). Declared default."""
    smoothing: float = option(0.0, within="[0, 1)")
    """ε of the label-smoothed KL, whose target is 1 - ε on the token and ε spread over all codes; range [0, 1). The paper gives
    no value; CosyVoice, its base, is trained with 0. With g = th, the optimum puts ε / 2 on random codes, which sampling without
    truncation draws."""
    stage_one: float = option(0.25, within="[0, 1)")
    """Fraction of the steps in stage 1, range [0, 1). Declared default."""
    candidates: int = option(4, within="[1, inf)")
    """Samples per text for either side of ``samples`` pairs. Declared default."""
    texts: int = option(256, within="[1, inf)")
    """Number of RL prompts (the first ones) used for ``samples`` pairs. Declared default."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """`SPEECH` if pairs are made of speech."""
        return SPEECH if self.pairs == "speech" else ()

    def start(self, models: Models, prompts: Prompts, config: OptimizeConfig, inputs: Mapping[str, Path]) -> State:
        """Return the pairs, their order, and their log-probabilities under the SFT policy."""
        import torch

        from rrpo.seeding import permutation_batches

        state = self._speech(models, inputs) if self.pairs == "speech" else self._samples(models, config, inputs)
        count = len(state["weight"])
        order = permutation_batches(count, config.batch, config.steps, config.seed, "emo-dpo pairs")
        return state | {
            "order": torch.from_numpy(order).to(prompts.prefix.device),
            "reference": reference(models.policy, state),
        }

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """Yield one update on as many pairs as there are roll-outs."""
        stage_two = round(self.stage_one * config.steps)
        if 0 < batch.step == stage_two:
            state["reference"] = reference(models.policy, state)
        yield self._losses(models, batch, config, state, self.dpo_weight if batch.step >= stage_two else 0.0)

    def _losses(
        self, models: Models, batch: Batch, config: OptimizeConfig, state: State, dpo_weight: float
    ) -> Iterator[Loss]:
        from rrpo.optimizers.scoring import compute_rewards, score, split

        outputs = compute_rewards(models, batch, config)
        for part, frames in zip(split(models, batch), outputs.frames, strict=True):
            scores = score(models, part, config.penalty)
            pairs = state["order"][batch.step, batch.keys(part.rows.tolist())]
            terms = self.terms(models.policy, state, pairs)
            of_pairs = (
                dpo_weight * terms["dpo"] + self.kl_weight * terms["smoothed_kl"] + self.sft_weight * terms["sft"]
            )
            loss = config.beta * scores.penalty + of_pairs
            values = outputs.of(part) | {name: term.detach() for name, term in terms.items()}
            yield Loss(part, part.share * loss.mean(), values, scores.kl.detach(), scores.log_p, frames)

    def terms(self, policy: TokenPolicy, state: State, pairs: Tensor) -> dict[str, Tensor]:
        """Return ``dpo``, ``sft`` and ``smoothed_kl`` of the pairs with indices ``pairs [b]``, with gradient, and
        ``preferred``, which is 1 if the policy has moved towards y+; each ``[b]``.
        """
        import torch.nn.functional as F_

        from rrpo.optimizers.scoring import predicted

        f = {"kl": lambda change: change, "js": lambda change: math.log(2) + F_.logsigmoid(change)}[self.divergence]
        changes: list[Tensor] = []
        for column, name in enumerate(SIDES):
            prefix, rollout = side(state, name, pairs)
            logits = policy.packed_logits(prefix, rollout.tokens, rollout.counts)
            tokens = predicted(rollout, logits)
            log_p = logits.log_softmax(-1)
            token_log_p = log_p.gather(1, tokens[:, None])[:, 0]
            change = rollout.sums(token_log_p) - state["reference"][pairs, column]
            changes.append(f(change / rollout.counts if self.length_normalized else change))
            if name == "chosen":
                sft = -rollout.sums(token_log_p) / rollout.counts
                smoothed = rollout.sums(smoothed_kl(log_p, tokens, self.smoothing)) / rollout.counts
        margin = changes[0] - changes[1]
        return {
            "dpo": state["weight"][pairs] * -F_.logsigmoid(self.dpo_beta * margin),
            "sft": sft,
            "smoothed_kl": smoothed,
            "preferred": (margin > 0).to(margin.dtype),
        }

    def _speech(self, models: Models, inputs: Mapping[str, Path]) -> State:
        import torch

        from rrpo.corpus.features import SpeechSet
        from rrpo.corpus.prompts import Prompt
        from rrpo.models.policy import Rollout
        from rrpo.training.sft import TokenSet

        device = models.codec.device
        sets = [TokenSet(SpeechSet.load(inputs[name]), models.codec, str(device)) for name in SPEECH]
        utterances = [u for tokens in sets for u in tokens.utterances]
        rows = [row[:n] for tokens in sets for row, n in zip(tokens.tokens, tokens.lengths.tolist(), strict=True)]
        prompts = [
            Prompt(id=u.id, text=u.text, phones=u.phones, speaker=u.speaker, emotion=u.emotion) for u in utterances
        ]
        pairs = speech_pairs(utterances)
        if not pairs:
            raise InputError(
                "no text of the SFT utterances is spoken in two emotions by one speaker",
                got=f"{len(utterances)} utterances",
                fix="give parallel speech, or use emo-dpo with pairs=samples",
            )
        state: State = {"weight": torch.ones(len(pairs), device=device)}
        for name, indices in zip(SIDES, zip(*pairs, strict=True), strict=True):
            tokens = [rows[i] for i in indices]
            lengths = torch.tensor([len(row) for row in tokens], device=device)
            rollout = Rollout(torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True), lengths, lengths > 0)
            tags = [
                prompts[i].emotion if self.tags == "own" else prompts[chosen].emotion
                for i, (chosen, _) in zip(indices, pairs, strict=True)
            ]
            state |= _stored(name, models.policy, _tagged([prompts[i] for i in indices], tags), rollout)
        return state

    def _samples(self, models: Models, config: OptimizeConfig, inputs: Mapping[str, Path]) -> State:
        import torch

        from rrpo.corpus.prompts import load_prompts
        from rrpo.models.policy import Rollout
        from rrpo.optimizers.rollout import Prompts
        from rrpo.optimizers.scoring import compute_rewards
        from rrpo.seeding import uniform

        emotions = models.reward_model.emotions
        prompts = load_prompts(inputs["rl_prompts"])[: self.texts]
        offsets = (uniform((len(prompts),), config.seed, "emo-dpo tags") * (len(emotions) - 1)).long().tolist()
        other_emotions = [
            emotions[(emotions.index(p.emotion) + 1 + t) % len(emotions)] for p, t in zip(prompts, offsets, strict=True)
        ]
        requested = [prompt.emotion for prompt in prompts]
        target = torch.tensor([emotions.index(name) for name in requested], device=models.codec.device)
        state: State = {}
        costs = []
        for name, tags in zip(SIDES, (requested, other_emotions if self.tags == "own" else requested), strict=True):
            tagged = Prompts.prepare(_tagged(prompts, tags), models.policy, models.codec, emotions)
            targeted = replace(tagged, target=target)
            rollouts, candidate_costs = [], []
            for k in range(self.candidates):
                shape = (models.policy.max_tokens, len(prompts))
                noise = uniform(shape, config.seed, f"emo-dpo {name}", k, device=target.device)
                parts = [
                    models.policy.sample(targeted.prefix[rows], noise[:, rows])
                    for rows in torch.arange(len(prompts), device=target.device).split(config.batch)
                ]
                rollout = Rollout.concatenate(parts)
                rollouts.append(rollout)
                candidate_costs.append(compute_rewards(models, Batch(0, targeted, rollout), config).cost(config))
            ranked = torch.stack(candidate_costs).sort(0, descending=name == "rejected")
            half = (self.candidates + 1) // 2
            costs.append(ranked.values[:half].flatten())
            column = torch.arange(len(prompts), device=target.device)
            rows = (ranked.indices[:half] * len(prompts) + column).flatten()
            utterances = Rollout.concatenate(rollouts).select(rows)
            state |= _stored(name, models.policy, _tagged(prompts, tags) * half, utterances)
        return state | {"weight": (costs[0] < costs[1]).float()}


def speech_pairs(utterances: Sequence[Utterance]) -> list[tuple[int, int]]:
    """Return index pairs (y+, y-): each utterance with the next one of the same text and speaker in another emotion."""
    groups: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for index, u in enumerate(utterances):
        groups.setdefault((u.phones, u.speaker), []).append(index)
    pairs = []
    for group in groups.values():
        for k, index in enumerate(group):
            partners = [i for i in group[k + 1 :] + group[:k] if utterances[i].emotion != utterances[index].emotion]
            pairs += [(index, i) for i in partners[:1]]
    return pairs


def smoothed_kl(log_p: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
    """Return ``KL(q || p) [P]`` for ``log_p [P, V + 1]``; q has 1 - ε on ``tokens [P]`` and ε spread evenly over the V codes."""
    import torch

    q = torch.full_like(log_p, smoothing / (log_p.shape[1] - 1))
    q[:, -1] = 0.0
    q.scatter_add_(1, tokens[:, None], torch.full_like(log_p[:, :1], 1 - smoothing))
    return (torch.xlogy(q, q) - q * log_p).sum(1)


def reference(policy: TokenPolicy, state: State) -> Tensor:
    """Return ``[P, 2]``: log-probabilities of both sides of all pairs under the current policy, without gradient."""
    import torch

    from rrpo.optimizers.scoring import sampled_log_probs

    log_probs = []
    with torch.no_grad():
        for rows in torch.arange(len(state["weight"]), device=state["weight"].device).split(CHUNK):
            sides = []
            for name in SIDES:
                prefix, rollout = side(state, name, rows)
                logits = policy.packed_logits(prefix, rollout.tokens, rollout.counts)
                sides.append(rollout.sums(sampled_log_probs(rollout, logits)))
            log_probs.append(torch.stack(sides, 1))
    return torch.cat(log_probs)


def side(state: State, name: str, pairs: Tensor) -> tuple[Tensor, Rollout]:
    """Return the prefixes ``[b, L]`` and utterances of one side of the pairs with indices ``pairs [b]``."""
    from rrpo.models.policy import Rollout

    prefix = state[f"{name}_prefix"][pairs]
    prefix = prefix[:, int((prefix == 0).all(0).sum()) :]
    utterances = Rollout(state[f"{name}_tokens"], state[f"{name}_lengths"], state[f"{name}_ended"])
    return prefix, utterances.select(pairs)


def _stored(name: str, policy: TokenPolicy, prompts: Sequence[Prompt], rollout: Rollout) -> State:
    parts = {"prefix": policy.prompt_ids(prompts), **vars(rollout)}
    return {f"{name}_{field}": value for field, value in parts.items()}


def _tagged(prompts: Sequence[Prompt], emotions: Sequence[str]) -> list[Prompt]:
    return [replace(prompt, emotion=emotion) for prompt, emotion in zip(prompts, emotions, strict=True)]
