"""Where a DiffRO step's time goes: ``python tests/benchmarks/diffro_step.py [--profile embedded] [--runs-dir runs]``.

Prints the parts, their sum, the ratio of the whole update to that sum, the roll-out by the library's own loop over ours, and
the share of the update that its matrix products alone take: those of one update are recorded and run bare, on operands of the
same shapes and layouts. Builds the stages it needs. Times are CPU seconds of this process, medians of several rounds taken in
turn; beside each the quickest round, which says more on a machine that others use too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from ablations.grids import arms
from rrpo.models.policy import inverse_cdf
from rrpo.optimizers import DiffRO
from rrpo.optimizers.loop import take_step
from rrpo.optimizers.relaxation import soft_tokens, straight_through
from rrpo.optimizers.reward import reward_loss
from rrpo.optimizers.rollout import Models, Prompts, micro_batches
from rrpo.optimizers.scoring import roll_out
from rrpo.pipeline import dataflow
from rrpo.pipeline.stages import Context, materialise
from rrpo.profiles import PROFILES
from rrpo.seeding import permutation_batches, uniform

UPDATE, PRODUCTS, LIBRARY = "update", "its matrix products alone", "roll-out by the library"


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


class Products(TorchDispatchMode):
    """Records the matrix products that run under it."""

    KINDS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[tuple[torch.Size, tuple[int, ...]], ...]]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if op.overloadpacket in self.KINDS:
            self.calls.append((op, tuple((tensor.size(), tensor.stride()) for tensor in args)))
        return op(*args, **(kwargs or {}))

    def flops(self) -> float:
        """Two for each multiplication."""
        return sum(2.0 * operands[-2][0].numel() * operands[-1][0][-1] for _, operands in self.calls)

    def again(self, device: str) -> Callable[[], None]:
        """Runs the same products on operands of their own."""
        layouts = {layout for _, operands in self.calls for layout in operands}
        tensors = {
            (size, stride): torch.randn(
                1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)), device=device
            ).as_strided(size, stride)
            for size, stride in layouts
        }

        def run() -> None:
            for op, operands in self.calls:
                op(*(tensors[layout] for layout in operands))

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke", choices=PROFILES)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    stage = dataflow.optimized(PROFILES[asked.profile], arms()["rrpo"], asked.seed)
    context = Context(device=asked.device)
    inputs = {role: materialise(child, asked.runs_dir, context) for role, child in stage.inputs.items()}
    config, models = stage.config, Models.load(inputs, asked.device)
    everything = Prompts.load(inputs["rl_prompts"], models)
    prompts = everything.select(permutation_batches(len(everything.phones), config.batch, 1, 0, "benchmark")[0])
    policy, codec = models.policy, models.codec
    noise = uniform((policy.config.max_tokens, config.batch), 0, "benchmark", device=asked.device)
    rollout = policy.sample(prompts.prefix, noise)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.0)
    micro = []
    for rows in micro_batches(rollout.lengths, models.micro):
        part, own = rollout.select(rows), prompts.select(rows)
        logits = policy.packed_logits(own.prefix, part.tokens, part.counts).detach()[:, : policy.codes]
        tokens = torch.nn.functional.pad(part.tokens, (0, 1))[part.scored]
        F, frames = codec.decode(part.tokens, part.lengths, own.speaker)
        micro.append((own, part, logits, tokens, F, frames))

    def draw() -> list[Tensor]:
        return [
            torch.cat([uniform((n, policy.codes), 0, "benchmark", i) for i, n in enumerate(part.counts.tolist())])
            for _, part, *_ in micro
        ]

    drawn = draw()

    def forward_backward() -> None:
        for own, part, *_ in micro:
            policy.packed_logits(own.prefix, part.tokens, part.counts).sum().backward()

    @torch.no_grad()
    def reference() -> None:
        for own, part, *_ in micro:
            models.reference.packed_logits(own.prefix, part.tokens, part.counts)

    def relaxation() -> None:
        for (_, _, logits, tokens, *_), uniforms in zip(micro, drawn, strict=True):
            soft = soft_tokens(logits.requires_grad_(), tokens, uniforms, 1.0)
            straight_through(soft, tokens, codec.codebook).square().sum().backward()

    def decode() -> None:
        for own, part, *_ in micro:
            codes = codec.codebook[part.tokens].requires_grad_()
            codec.decode_codes(codes, part.lengths, own.speaker)[0].sum().backward()

    def reward() -> None:
        for own, _, _, _, F, frames in micro:
            reward_loss(models.reward_model, F.requires_grad_(), frames, own.target).sum().backward()

    def content() -> None:
        for own, _, _, _, F, frames in micro:
            models.recogniser.ctc_loss(F.requires_grad_(), frames, own.phones).sum().backward()

    def update() -> None:
        take_step(models, DiffRO(), {}, roll_out(models, prompts, config, 1), optimizer, config)

    with Products() as products:
        update()
    parts: dict[str, Callable[[], object]] = {
        "roll-out": lambda: policy.sample(prompts.prefix, noise),
        "policy forward + backward": forward_backward,
        "reference forward": reference,
        "relaxation": relaxation,
        "noise": draw,
        "decode + backward": decode,
        "RM forward + backward": reward,
        "recogniser forward + backward": content,
        UPDATE: update,
        PRODUCTS: products.again(asked.device),
        LIBRARY: lambda: library_sample(models, prompts, noise, rollout.tokens.shape[1]),
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
        print(f"{name:32s}{1000 * value:8.1f} ms   quickest {1000 * min(times[name]):8.1f} ms")
    total = sum(value for name, value in medians.items() if name not in (UPDATE, PRODUCTS, LIBRARY))
    print(f"{'update / sum of its parts':32s}{medians[UPDATE] / total:8.2f}")
    print(f"{'library roll-out / ours':32s}{medians[LIBRARY] / medians['roll-out']:8.2f}")
    print(f"{'matrix products / update':32s}{medians[PRODUCTS] / medians[UPDATE]:8.2f}")
    print(f"{'GFLOP an update':32s}{products.flops() / 1e9:8.2f}")


if __name__ == "__main__":
    main()
