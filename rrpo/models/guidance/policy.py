"""A token policy whose distribution is a `Guidance` method's combination of an SFT policy's logits under several prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rrpo.corpus.prompts import Prompt
from rrpo.models.guidance import GUIDANCE
from rrpo.models.guidance.base import Positions
from rrpo.models.policy import NEVER, Policy, Rollout, ancestral, runs
from rrpo.models.prefix_classifier import Evidence, PrefixClassifier
from rrpo.plugins import Choice


class GuidedPolicy(nn.Module):
    """A `rrpo.models.protocols.TokenPolicy`: sampling, scoring and the KL use the guided distribution."""

    def __init__(self, policy: Policy, choice: Choice, classifier: PrefixClassifier | None = None) -> None:
        super().__init__()
        self.policy, self.choice, self.guidance, self.classifier = policy, choice, GUIDANCE.create(choice), classifier
        self.codes = policy.codes
        if self.guidance.classified and classifier is None:
            raise ValueError(f"the guidance {choice.name!r} needs a prefix classifier, got none")

    @property
    def max_tokens(self) -> int:
        """Maximum roll-out length in tokens."""
        return self.policy.max_tokens

    def prompt_ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return the prompt ids of the SFT policy."""
        return self.policy.prompt_ids(prompts)

    def sample(self, prefix: Tensor, noise: Tensor) -> Rollout:
        """Sample ancestrally with one key-value cache per prefix; the noise is used as in `Policy.sample`."""
        with torch.no_grad():
            return ancestral(_GuidedContinuation(self, prefix, len(noise)), noise, self.policy.eos)

    def logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """Return guided logits ``[B, N + 1, V + 1]``."""
        batch, positions = tokens.shape[0], tokens.shape[1] + 1
        counts = torch.full((batch,), positions, device=tokens.device)
        return self.packed_logits(prefix, tokens, counts).view(batch, positions, -1)

    def packed_logits(self, prefix: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """Return ``[P, V + 1]``: the first ``counts [B]`` predictions of each row of `logits`."""
        prefixes = self.guidance.prefixes(self.policy, prefix)
        rows, t = runs(torch.zeros_like(counts), counts, int(counts.sum()))
        evidence = self.evidence(prefix)
        if evidence is not None:
            evidence = Evidence(evidence.classifier, evidence.classifier.states(tokens)[rows, t], evidence.wanted[rows])
        at = Positions(t, self.expected(prefixes)[rows], evidence)
        logits = self.guidance.combine([self.policy.packed_logits(p, tokens, counts) for p in prefixes], at)
        starts = counts.cumsum(0) - counts
        return logits.index_put((starts, torch.full_like(starts, self.policy.eos)), logits.new_tensor(NEVER))

    def expected(self, prefixes: Sequence[Tensor]) -> Tensor:
        """Return T ``[B]``: the expected number of tokens of each prompt, averaged over its prefixes."""
        return torch.stack([self.policy.expected_tokens(prefix) for prefix in prefixes]).mean(0)

    def evidence(self, prefix: Tensor) -> Evidence | None:
        """Return the classifier's state before the first token of the prompts ``prefix [B, L]``; None without a classifier.

        Raises:
            ValueError: The classifier lacks a requested emotion.
        """
        if self.classifier is None:
            return None
        tags = prefix.gather(1, (prefix == 0).sum(1, keepdim=True))[:, 0].tolist()
        names = [self.policy.symbols[symbol].strip("<>") for symbol in tags]
        if unknown := sorted(set(names) - set(self.classifier.emotions)):
            raise ValueError(
                f"the prefix classifier does not know {unknown[0]!r}, only {', '.join(self.classifier.emotions)}; "
                "train it on data with all requested emotions"
            )
        targets = torch.tensor([self.classifier.emotions.index(name) for name in names], device=prefix.device)
        return Evidence(
            self.classifier, self.classifier.head.weight.new_zeros(len(targets), self.classifier.config.dim), targets
        )


class _GuidedContinuation:
    """State of roll-outs under all prefixes; see `rrpo.models.policy.Continuation`."""

    def __init__(self, guided: GuidedPolicy, prefix: Tensor, room: int) -> None:
        prefixes = guided.guidance.prefixes(guided.policy, prefix)
        self.guidance = guided.guidance
        self.parts = [guided.policy.continuation(variant, room) for variant in prefixes]
        self.expected, self.evidence = guided.expected(prefixes), guided.evidence(prefix)
        self.t = 0
        self.logits = self._combined()

    def _combined(self) -> Tensor:
        at = Positions(torch.full_like(self.expected, self.t), self.expected, self.evidence)
        return self.guidance.combine([part.logits for part in self.parts], at)

    def step(self, tokens: Tensor) -> None:
        """Append the same token under all prefixes."""
        for part in self.parts:
            part.step(tokens)
        if self.evidence is not None:
            self.evidence = self.evidence.advanced(tokens)
        self.t += 1
        self.logits = self._combined()

    def keep(self, rows: Tensor) -> None:
        """Keep the same rows under all prefixes."""
        for part in self.parts:
            part.keep(rows)
        self.expected = self.expected[rows]
        if self.evidence is not None:
            self.evidence = self.evidence.select(rows)
