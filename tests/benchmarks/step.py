"""Benchmark of a GRPO step of CosyVoice2's language model against TRL: ``python tests/benchmarks/step.py [--full]``.

The weights are random. Prints tokens per second in roll-out and update, memory, the update's model FLOP utilization (MFU), and
the time of the same step by TRL's GRPOTrainer on a Qwen2 of the same sizes if `trl` is installed. Without ``--full`` the sizes
are tiny and do not represent the real model. Values that require a GPU are printed as *not measured* without one. On a CPU, times
are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rrpo.config import OptimizeConfig
from rrpo.cosyvoice import layout, paper, standin
from rrpo.optimizers import OPTIMIZERS
from rrpo.packages import present

PEAKS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.0e12), "A800": (312e12, 2.0e12)}
"""Device -> dense bfloat16 FLOP/s and memory bandwidth in bytes/s, from the manufacturers' data sheets."""
SMALL = {**standin.TINY, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
UNKNOWN = "not measured"


def ours(step: paper.Measured, sizes: dict[str, int], batch: int, tokens: int, epochs: int) -> Iterator[str]:
    """Yield lines about a measured step. Each update evaluates the roll-outs once by the policy and once by the reference."""
    shapes = layout.expected_shapes({"vocab_size": 512, **sizes})
    weights = sum(
        torch.Size(shape).numel() for name, shape in shapes.items() if "embed" not in name and name != layout.HEAD
    )
    scored = batch * tokens * epochs
    peak, bandwidth = next((found for name, found in PEAKS.items() if name in step.device), (None, None))
    flops = 8 * weights * scored  # policy forward and backward: 6; reference forward: 2
    bound = None if bandwidth is None else tokens * weights * 2 / bandwidth
    yield f"ours on {step.device}: {step.step:.2f} s per step"
    yield f"  roll-out        {batch * tokens / step.rollout:,.0f} tokens per second"
    yield f"  update          {scored / step.update:,.0f} tokens per second"
    yield f"  memory          {f'{step.peak / paper.GIB:.1f} GiB' if step.peak else UNKNOWN}"
    yield f"  MFU             {f'{100 * flops / step.update / peak:.0f} %' if peak else UNKNOWN}"
    yield f"  roll-out time / bandwidth bound  {f'{step.rollout / bound:.1f}' if bound else UNKNOWN}"


def trl(sizes: dict[str, int], batch: int, tokens: int, epochs: int, steps: int) -> float:
    """Return the seconds per step of TRL's GRPOTrainer with a constant reward: the mean of ``steps`` after one warm-up step."""
    from datasets import Dataset
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Clock(TrainerCallback):
        """Records the end time of each step."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *of: object, **more: object) -> None:
            self.ends.append(now())

    with TemporaryDirectory() as folder:
        standin.write(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "CosyVoice-BlankEN")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(0)
        model = Path(folder) / "model"  # a path: the reference is loaded from it
        Qwen2ForCausalLM(Qwen2Config(**{**sizes, "vocab_size": layout.ROWS})).save_pretrained(model)
        trainer = GRPOTrainer(
            model=str(model),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=batch,
                num_generations=4,
                max_completion_length=tokens,
                num_iterations=epochs,
                max_steps=(1 + steps) * epochs,
                beta=0.1,
                bf16=torch.cuda.is_available(),
                use_cpu=not torch.cuda.is_available(),
                generation_kwargs={"min_new_tokens": tokens},
                report_to=[],
                logging_steps=1000,
                save_strategy="no",
            ),
            train_dataset=Dataset.from_dict({"prompt": ["the cat sat on the mat"] * 64}),
            processing_class=tokenizer,
            callbacks=[clock := Clock()],
        )
        trainer.train()
    return (clock.ends[-1] - clock.ends[epochs - 1]) / steps


def now() -> float:
    """Return the time in seconds: wall clock after the GPU has finished its work, or CPU time of this process on a CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main() -> None:
    """Parse the options and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="use CosyVoice2-0.5B's sizes")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--recompute", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    sizes = dict(standin.FULL if options.full else SMALL)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    choice = OPTIMIZERS.choice("grpo", samples=4, epochs=2)
    config = replace(OptimizeConfig(), batch=options.batch, content_weight=0.0, optimizer=choice)
    step = paper.measure(
        config,
        sizes,
        device=device,
        micro=None,
        rank=0,
        precision="bf16" if device == "cuda" else "fp32",
        recompute=options.recompute,
        tokens=options.tokens,
        steps=options.steps,
        now=now,
    )
    print(*ours(step, sizes, options.batch, options.tokens, 2), sep="\n", flush=True)
    if present("trl"):
        took = trl(sizes, options.batch, options.tokens, 2, options.steps)
        print(f"TRL's GRPOTrainer: {took:.2f} s per step, {took / step.step:.2f} x ours")
    else:
        print(f"TRL's GRPOTrainer: {UNKNOWN}, trl is not installed")


if __name__ == "__main__":
    main()
