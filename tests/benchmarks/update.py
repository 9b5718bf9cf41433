"""Benchmark of a policy update, single and stacked, on CPU or GPU: ``python tests/benchmarks/update.py [--device cuda]``.

Prints tables; ``--only`` selects some of them. ``members``, ``batch``, ``length``, ``vocabulary``, ``width``: seconds per update
of all members, one after another and stacked, across one of these sizes. ``executors``: the stack in each precision, and with
deterministic algorithms. ``parts``: the time of each part of a single update, the share of its matrix products, and the roll-out
by the loop of transformers.

Networks have the sizes of the profile ``embedded`` and are untrained (for ``parts``, ``--profile`` uses a profile's trained
models); prompts are random. A member is an arm with its own reward model and seed; its update consists of a roll-out, DiffRO's
losses and an Adam step. Variants that are compared run interleaved in the same process.

On the CPU, times are CPU seconds of one thread: the minimum over several rounds. Memory is the peak of the process, or the memory
reserved by torch on the GPU. Operations are the operations that torch dispatches in one update, except views. They approximate
the number of kernel launches on a GPU, which limit small models (a captured token step is then one launch). Waits are reads of a
tensor's value, each of which makes the host wait for the GPU. On a GPU, the warnings of `torch.cuda.set_sync_debug_mode` are
counted as well. ``--trace FILE`` writes a profiler trace of two updates for chrome://tracing.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from ablations.grids import arms
from rrpo.config import CodecConfig, OptimizeConfig, PolicyConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.experiment import dataflow
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy, inverse_cdf
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers import DiffRO
from rrpo.optimizers.loop import take_step
from rrpo.optimizers.relaxation import soft_tokens, straight_through
from rrpo.optimizers.reward import reward_loss
from rrpo.optimizers.rollout import Models, Prompts, micro_batches
from rrpo.optimizers.scoring import roll_out
from rrpo.pipeline.executor import PRECISIONS, Executor
from rrpo.pipeline.provenance import processor
from rrpo.pipeline.stages import Context, materialise
from rrpo.profiles import EMBEDDED, PROFILES
from rrpo.seeding import permutation_batches, uniform
from rrpo.stacking import lockstep
from rrpo.stacking.lockstep import Ask
from rrpo.stacking.optimizations import Optimizations

EMOTIONS = EMBEDDED.world.emotions
PHONES = tuple(f"p{i}" for i in range(40))
SPEAKERS = ("anna", "ben")
SYMBOLS = (*Policy.SPECIALS, *(f"<{name}>" for name in (*EMOTIONS, *SPEAKERS)), *PHONES)
LEVELS = {125: (5, 5, 5), 1000: (8, 5, 5, 5), 6561: (3,) * 8}
"""Vocabulary size -> levels of the quantizer."""
SEVERAL = {
    "members": (1, 2, 4, 8, 16),
    "batch": (8, 32, 64),
    "length": (40, 80, 160),
    "vocabulary": tuple(LEVELS),
    "width": (64, 128, 256),
}
"""Table -> values of the size that it varies."""
EXECUTORS = {name: Executor(precision=name) for name in PRECISIONS} | {"deterministic": Executor(deterministic=True)}
UPDATE, PRODUCTS, LIBRARY = "update", "its matrix products alone", "roll-out by transformers"


@dataclass(frozen=True)
class Size:
    """Sizes of one row of a table."""

    members: int = 4
    batch: int = 32
    length: int = 80
    vocabulary: int = 1000
    width: int = 128


def make(size: Size, device: str, micro: int | None, precision: str = "fp32") -> tuple[list[Models], Prompts]:
    """Return the models of every member, and one batch of prompts."""
    torch.manual_seed(0)
    audio = AudioConfig()
    config = PolicyConfig(dim=size.width, layers=EMBEDDED.policy.layers, max_tokens=size.length)
    codec = Codec(CodecConfig(levels=LEVELS[size.vocabulary], dim=EMBEDDED.codec.dim), audio, SPEAKERS)
    recogniser = Recogniser(RecogniserConfig(dim=EMBEDDED.recogniser.dim), PHONES, audio.n_mels)
    judge = Judge(JudgeConfig(dim=EMBEDDED.val_judge.dim), EMOTIONS, audio)
    common = {
        name: model.to(device).eval().requires_grad_(False)
        for name, model in {"codec": codec, "recogniser": recogniser, "val": judge}.items()
    }
    members = []
    for _ in range(size.members):
        policy = Policy(config, SYMBOLS, size.vocabulary).to(device).eval()
        reference = Policy(config, SYMBOLS, size.vocabulary).to(device).eval().requires_grad_(False)
        reference.load_state_dict(policy.state_dict())
        policy.precision = reference.precision = precision
        model = RewardModel(RewardModelConfig(), EMOTIONS, audio.n_mels, audio.floor).to(device)
        members.append(Models(policy, reference, model.eval().requires_grad_(False), **common, micro=micro))  # type: ignore[arg-type]
    draws = np.random.default_rng(0)
    phones = [tuple(draws.choice(PHONES, int(n))) for n in draws.integers(8, 30, size.batch)]
    speakers = [SPEAKERS[i % len(SPEAKERS)] for i in range(size.batch)]
    emotions = [EMOTIONS[i % len(EMOTIONS)] for i in range(size.batch)]
    prefix = policy.prefix_ids(phones, speakers, emotions)
    target = torch.tensor([EMOTIONS.index(name) for name in emotions], device=device)
    return members, Prompts(prefix, codec.speaker_index(speakers), target, phones)


def updates(
    models: Models, prompts: Prompts, config: OptimizeConfig, steps: int, started: Callable[[int], None]
) -> None:
    """Run updates of one member; call ``started`` with the number of each update before it."""
    optimizer = torch.optim.Adam(models.policy.parameters(), lr=1e-5, fused=True)
    for step in range(1, steps + 1):  # steps at which the judges do not evaluate the roll-outs
        started(step)
        take_step(models, DiffRO(), {}, roll_out(models, prompts, config, step), optimizer, config)


class Watch:
    """Measures CPU seconds, or wall seconds on a GPU, and memory."""

    def __init__(self, device: str) -> None:
        self.device = device

    def now(self) -> float:
        """Return the time in seconds, on a GPU after all queued work has finished."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def forget(self) -> None:
        """Reset the peak memory."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        elif (file := Path("/proc/self/clear_refs")).exists():
            file.write_text("5")

    def peak(self) -> float:
        """Return the peak memory in MiB since `forget` (on other systems than Linux: since the process started)."""
        if self.device == "cuda":
            return torch.cuda.max_memory_reserved() / 2**20
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
        return peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Operations(TorchDispatchMode):
    """Counts the operations computed in the thread that enters it."""

    def __init__(self, counts: Counter[str], name: str) -> None:
        super().__init__()
        self.counts, self.name = counts, name

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.counts[self.name] += not op.is_view
        return op(*args, **(kwargs or {}))


class Waits(TorchFunctionMode):
    """Counts reads of tensor values in the thread that enters it: conversions to numbers or lists, boolean masks as indices."""

    READS = frozenset(
        (
            *(Tensor.item, Tensor.tolist, Tensor.__int__, Tensor.__float__, Tensor.__bool__, Tensor.__index__),
            *(Tensor.cpu, Tensor.numpy, Tensor.nonzero, torch.nonzero, Tensor.masked_select, torch.masked_select),
        )
    )

    def __init__(self, counts: Counter[str], name: str) -> None:
        super().__init__()
        self.counts, self.name = counts, name

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        reads = func in self.READS
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            reads = any(isinstance(part, Tensor) and part.dtype == torch.bool for part in index)
        self.counts[self.name] += reads
        return func(*args, **(kwargs or {}))


@contextmanager
def synchronizations(counts: Counter[str], name: str) -> Iterator[None]:
    """Count torch's own synchronization warnings on a GPU."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    counts[name] += sum("synchroniz" in str(one.message) for one in found)


def single(
    made: tuple[list[Models], Prompts], watch: Watch, counting: Callable[[], AbstractContextManager[Any]]
) -> float:
    """Return the seconds of the second update of all members, one after another."""
    members, prompts = made
    seconds = 0.0
    for number, models in enumerate(members):
        begun: list[float] = []
        config = OptimizeConfig(steps=1000, batch=len(prompts.phones), seed=number)
        with counting():
            updates(models, prompts, config, 2, lambda step, begun=begun: begun.append(watch.now()))  # type: ignore[misc]
        seconds += watch.now() - begun[1]
    return seconds


def stacked(
    made: tuple[list[Models], Prompts], watch: Watch, counting: Callable[[], AbstractContextManager[Any]]
) -> float:
    """Return the seconds of the second update of all members at once."""
    members, prompts = made
    stack = Optimizations()
    begun: dict[int, float] = {}

    def program(number: int) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            config = OptimizeConfig(steps=1000, batch=len(prompts.phones), seed=number)
            models = replace(stack.join(ask, members[number]), backward=partial(ask, "backward"))
            with counting():
                updates(models, prompts, config, 2, lambda step: begun.setdefault(step, watch.now()) and None)

        return run

    with counting():
        for error in lockstep.run([program(number) for number in range(len(members))], stack.answer):
            if error is not None:
                raise error
    return watch.now() - begun[2]


RUNS = {"single": single, "stacked": stacked}


def by_size(size: Size, watch: Watch, micro: int | None, rounds: int) -> dict[str, str]:
    """Return heading -> cell for one row of a table; values are for one update of all members."""
    seconds, memory = dict.fromkeys(RUNS, float("inf")), dict.fromkeys(RUNS, 0.0)
    for _ in range(rounds):
        for name, run in RUNS.items():
            watch.forget()
            seconds[name] = min(seconds[name], run(make(size, watch.device, micro), watch, nullcontext))
            memory[name] = max(memory[name], watch.peak())
    counts: dict[str, Counter[str]] = {"operations": Counter(), "waits": Counter()}
    for what, mode in (("operations", Operations), ("waits", Waits)):
        for name, run in RUNS.items():
            run(
                make(size, watch.device, micro), watch, lambda mode=mode, what=what, name=name: mode(counts[what], name)
            )  # type: ignore[misc]
    if watch.device == "cuda":
        counts["CUDA waits"] = Counter()
        for name, run in RUNS.items():
            with synchronizations(counts["CUDA waits"], name):
                run(make(size, watch.device, micro), watch, nullcontext)
    cells = {name: str(value) for name, value in asdict(size).items()}
    cells |= {f"{name} s": f"{seconds[name]:.3f}" for name in RUNS}
    cells["single / stacked"] = f"{seconds['single'] / seconds['stacked']:.2f}"
    cells |= {f"{name} MiB": f"{memory[name]:.0f}" for name in RUNS}
    return cells | {
        f"{name} {what}": str(found[name] // 2) for what, found in counts.items() for name in RUNS
    }  # 2 updates


def by_executor(size: Size, watch: Watch, micro: int | None, rounds: int) -> Iterator[dict[str, str]]:
    """Yield rows with the stack's seconds and memory for each executor."""
    chosen = {name: found for name, found in EXECUTORS.items() if watch.device == "cuda" or found.precision != "tf32"}
    seconds, memory = dict.fromkeys(chosen, float("inf")), dict.fromkeys(chosen, 0.0)
    for _ in range(rounds):
        for name, executor in chosen.items():
            watch.forget()
            with executor.applied(), warnings.catch_warnings(action="ignore"):
                made = make(size, watch.device, micro, executor.precision)
                seconds[name] = min(seconds[name], stacked(made, watch, nullcontext))
            memory[name] = max(memory[name], watch.peak())
    for name in chosen:
        ratio = f"{seconds[name] / seconds['fp32']:.2f}"
        yield {"executor": name, "s": f"{seconds[name]:.3f}", "/ fp32": ratio, "MiB": f"{memory[name]:.0f}"}


def library_sample(models: Models, prompts: Prompts, noise: Tensor, steps: int) -> None:
    """Run the same roll-out with the forward of transformers and its DynamicCache."""
    policy = models.policy
    x, mask, positions = policy._prefix(prompts.prefix)
    cache = DynamicCache(config=policy.llm.config)
    for t in range(steps):
        hidden = policy.llm(
            inputs_embeds=x, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        token = inverse_cdf(policy._predict(hidden), noise[t])
        x = policy.speech_embedding(token.clamp(max=policy.eos))[:, None]
        mask = F_.pad(mask, (0, 1), value=True)
        positions = positions[:, -1:] + 1


class Products(TorchDispatchMode):
    """Records the matrix products computed in its context."""

    KINDS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[tuple[torch.Size, tuple[int, ...]], ...]]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if op.overloadpacket in self.KINDS:
            self.calls.append((op, tuple((tensor.size(), tensor.stride()) for tensor in args)))
        return op(*args, **(kwargs or {}))

    def flops(self) -> float:
        """Return the FLOP of the recorded products, two per multiplication."""
        return sum(2.0 * operands[-2][0].numel() * operands[-1][0][-1] for _, operands in self.calls)

    def again(self, device: str) -> Callable[[], None]:
        """Return a function that computes the same products on random operands."""
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


def trained(profile: str, runs_dir: Path, device: str) -> tuple[Models, Prompts, OptimizeConfig]:
    """Return the models of arm ``rrpo`` and seed 1000, built if missing, a batch of its prompts, and its config."""
    stage = dataflow.optimized(PROFILES[profile], arms()["rrpo"], 1000)
    inputs = {role: materialise(child, runs_dir, Context(device=device)) for role, child in stage.inputs.items()}
    models = Models.load(inputs, device)
    everything = Prompts.load(inputs["rl_prompts"], models)
    (rows,) = permutation_batches(len(everything.phones), stage.config.batch, 1, 0, "benchmark")
    return models, everything.select(torch.from_numpy(rows).to(device)), stage.config


def by_part(
    models: Models, prompts: Prompts, config: OptimizeConfig, watch: Watch, rounds: int
) -> Iterator[dict[str, str]]:
    """Yield rows with the milliseconds of each part, median and minimum of several interleaved rounds, then rows with ratios."""
    policy, codec, device = models.policy, models.codec, watch.device
    assert isinstance(policy, Policy)
    noise = uniform((policy.max_tokens, len(prompts.phones)), 0, "benchmark", device=device)
    rollout = policy.sample(prompts.prefix, noise)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.0)
    micro = []
    for rows in micro_batches(rollout.lengths, models.micro):
        part, own = rollout.select(rows), prompts.select(rows)
        logits = policy.packed_logits(own.prefix, part.tokens, part.counts).detach()[:, : policy.codes]
        tokens = part.pick(F_.pad(part.tokens, (0, 1)), len(logits))
        F, frames = codec.decode(part.tokens, part.lengths, own.speaker)
        micro.append((own, part, logits, tokens, F, frames))

    def draw() -> list[Tensor]:
        counts = [part.counts.tolist() for _, part, *_ in micro]
        return [
            torch.cat([uniform((n, policy.codes), 0, "benchmark", i, device=device) for i, n in enumerate(own)])
            for own in counts
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
        "policy forward and backward": forward_backward,
        "reference forward": reference,
        "relaxation": relaxation,
        "noise": draw,
        "decoding and backward": decode,
        "reward model forward and backward": reward,
        "recogniser forward and backward": content,
        UPDATE: update,
        PRODUCTS: products.again(device),
        LIBRARY: lambda: library_sample(models, prompts, noise, rollout.tokens.shape[1]),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, run in parts.items():
            start = watch.now()
            run()
            times[name].append(watch.now() - start)
    median = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        yield {"part": name, "median": f"{1000 * median[name]:.1f} ms", "quickest": f"{1000 * min(found):.1f} ms"}
    total = sum(value for name, value in median.items() if name not in (UPDATE, PRODUCTS, LIBRARY))
    for name, ratio in (
        ("update / sum of its parts", median[UPDATE] / total),
        ("transformers' roll-out / ours", median[LIBRARY] / median["roll-out"]),
        ("matrix products / update", median[PRODUCTS] / median[UPDATE]),
        ("GFLOP per update", products.flops() / 1e9),
    ):
        yield {"part": name, "median": f"{ratio:.2f}", "quickest": ""}


def show(title: str, lines: Iterator[dict[str, str]]) -> None:
    """Print a Markdown table, each row as soon as it is measured."""
    for place, line in enumerate(lines):
        if place == 0:
            print(f"\n{title}\n\n| {' | '.join(line)} |\n|{'--:|' * len(line)}")
        print(f"| {' | '.join(line.values())} |", flush=True)


def main() -> None:
    tables = (*SEVERAL, "executors", "parts")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(tables), choices=tables, help="tables to print")
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help="value in tables that do not vary it")
    parser.add_argument("--most", type=int, default=10**6, help="maximum of the varied sizes, except the vocabulary")
    parser.add_argument(
        "--micro", type=int, help="samples per forward pass of a member; default: the device's, on a GPU all"
    )
    parser.add_argument("--profile", choices=PROFILES, help="profile of trained models for the table of parts")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder in which these models are built")
    parser.add_argument("--trace", type=Path, help="file for a profiler trace of two stacked updates")
    options = parser.parse_args()
    torch.set_num_threads(1)
    watch, size = Watch(options.device), Size(**{name: getattr(options, name) for name in asdict(Size())})
    where = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    print(f"{where}, torch {torch.__version__}")
    for table in options.only:
        if table == "parts":
            made = make(replace(size, members=1), options.device, options.micro)
            config = OptimizeConfig(steps=1000, batch=size.batch)
            chosen = (
                trained(options.profile, options.runs_dir, options.device)
                if options.profile
                else (made[0][0], made[1], config)
            )
            show("Parts of a single update", by_part(*chosen, watch, options.rounds))
        elif table == "executors":
            show("By executor, stacked", by_executor(size, watch, options.micro, options.rounds))
        else:
            values = [value for value in SEVERAL[table] if table == "vocabulary" or value <= options.most]
            sizes = [replace(size, **{table: value}) for value in values]
            show(f"By {table}", (by_size(one, watch, options.micro, options.rounds) for one in sizes))
    if options.trace:
        with torch.profiler.profile() as profile:
            stacked(make(size, options.device, options.micro), watch, nullcontext)
        profile.export_chrome_trace(str(options.trace))


if __name__ == "__main__":
    main()
