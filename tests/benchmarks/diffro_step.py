"""Where a DiffRO step's time goes: ``python tests/benchmarks/diffro_step.py [--profile embedded] [--runs-dir runs]``.

Prints the parts, their sum, the ratio of the whole step to that sum, and the roll-out by the library's own loop over ours.
Builds the stages it needs. Times are CPU seconds of this process, medians of several rounds taken in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache

from ablations.grids import arms
from rrpo import pipeline
from rrpo.optimizers.diffro import diffro_step
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.policy import inverse_cdf
from rrpo.profiles import PROFILES
from rrpo.relaxation import relax
from rrpo.reward import reward_loss
from rrpo.seeding import permutation_batches, uniform
from rrpo.stages import Context, materialise


def library_sample(models: Models, prompts: Prompts, noise: Tensor, steps: int) -> None:
    """The same roll-out by the transformers forward with its DynamicCache."""
    policy = models.policy
    x, mask, positions = policy._prefix(prompts.prefix)
    cache = DynamicCache(config=policy.llm.config)
    for t in range(steps):
        hidden = policy.llm(
            inputs_embeds=x, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        token = inverse_cdf(policy._predict(hidden), noise[t])
        x = policy.speech_embedding(token.clamp(max=policy.eos))[:, None]
        mask = torch.nn.functional.pad(mask, (0, 1), value=True)
        positions = positions[:, -1:] + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke", choices=PROFILES)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    stage = pipeline.optimized(PROFILES[asked.profile], arms()["rrpo"], asked.seed)
    context = Context(device=asked.device)
    inputs = {role: materialise(child, asked.runs_dir, context) for role, child in stage.inputs.items()}
    config, models = stage.config, Models.load(inputs, asked.device)
    everything = Prompts.load(inputs["rl_prompts"], models)
    prompts = everything.select(permutation_batches(len(everything.phones), config.batch, 1, 0, "benchmark")[0])
    policy, codec = models.policy, models.codec
    noise = uniform((policy.config.max_tokens, config.batch), 0, "benchmark", device=asked.device)
    rollout = policy.sample(prompts.prefix, noise)
    gumbel = uniform((*rollout.tokens.shape[::-1], policy.codes), 0, "benchmark", device=asked.device).transpose(0, 1)

    def forward_backward() -> None:
        policy.logits(prompts.prefix, rollout.tokens).logsumexp(-1).sum().backward()

    def reference() -> None:
        with torch.no_grad():
            models.reference.logits(prompts.prefix, rollout.tokens)

    codes = policy.logits(prompts.prefix, rollout.tokens).detach()[:, :-1, : policy.codes].requires_grad_()
    relaxed = relax(codes, rollout.tokens, gumbel, 1.0).detach().requires_grad_()
    F, frames = codec.decode(relaxed, rollout.lengths, prompts.speaker)
    F = F.detach().requires_grad_()
    parts: dict[str, Callable[[], object]] = {
        "roll-out": lambda: policy.sample(prompts.prefix, noise),
        "policy forward + backward": forward_backward,
        "reference forward": reference,
        "relaxation": lambda: relax(codes, rollout.tokens, gumbel, 1.0).square().sum().backward(),
        "noise": lambda: uniform((*rollout.tokens.shape[::-1], policy.codes), 0, "benchmark", device=asked.device),
        "decode + backward": lambda: codec.decode(relaxed, rollout.lengths, prompts.speaker)[0].sum().backward(),
        "RM forward + backward": lambda: reward_loss(models.reward_model, F, frames, prompts.target).sum().backward(),
        "recogniser forward + backward": lambda: models.recogniser.ctc_loss(F, frames, prompts.phones).sum().backward(),
        "whole step": lambda: [part.loss.backward() for part in diffro_step(models, prompts, config, 0)],
        "roll-out by the library": lambda: library_sample(models, prompts, noise, rollout.tokens.shape[1]),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(asked.rounds):
        for name, part in parts.items():
            start = time.process_time() if asked.device == "cpu" else time.perf_counter()
            part()
            if asked.device == "cuda":
                torch.cuda.synchronize()
            times[name].append((time.process_time() if asked.device == "cpu" else time.perf_counter()) - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, value in medians.items():
        print(f"{name:32s}{1000 * value:8.1f} ms")
    total = sum(value for name, value in medians.items() if name not in ("whole step", "roll-out by the library"))
    print(f"{'whole step / sum of its parts':32s}{medians['whole step'] / total:8.2f}")
    print(f"{'library roll-out / ours':32s}{medians['roll-out by the library'] / medians['roll-out']:8.2f}")


if __name__ == "__main__":
    main()
