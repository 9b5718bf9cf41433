"""Seconds an update of C stacked policies against the same C one after another: ``python tests/benchmarks/stacked.py``.

Every table varies one of: members C, roll-outs a step, longest roll-out, vocabulary, width of the policy; ``--only`` names some.
Networks have the sizes of the profile ``embedded`` and are untrained, prompts are drawn; a member is an arm with a reward model
and a seed of its own, its update a roll-out, DiffRO's losses and Adam. Single and stacked run in turn in the same process. On
the CPU, times are CPU seconds of one thread, quickest of several rounds; memory is the process's peak, or what torch held on the
GPU. Operations are what torch is asked to compute in one update, views not counted: about as many kernels as a GPU is sent, which
is what a small model waits for there (a captured token step is then sent as one).
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rrpo.config import CodecConfig, OptimizeConfig, PolicyConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers import DiffRO, lockstep
from rrpo.optimizers.lockstep import Ask
from rrpo.optimizers.loop import take_step
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import roll_out
from rrpo.optimizers.stacked import Stack
from rrpo.profiles import EMBEDDED

EMOTIONS = EMBEDDED.world.emotions
PHONES = tuple(f"p{i}" for i in range(40))
SPEAKERS = ("anna", "ben")
LEVELS = {125: (5, 5, 5), 1000: (8, 5, 5, 5), 6561: (3,) * 8}
"""Vocabulary -> levels of the quantiser."""
SEVERAL = {
    "members": (1, 2, 4, 8, 16),
    "batch": (8, 32, 64),
    "length": (40, 80, 160),
    "vocabulary": tuple(LEVELS),
    "width": (64, 128, 256),
}
"""What each table varies."""


@dataclass(frozen=True)
class Size:
    """One line of a table."""

    members: int = 4
    batch: int = 32
    length: int = 80
    vocabulary: int = 1000
    width: int = 128


def make(size: Size, device: str, micro: int | None) -> tuple[list[Models], Prompts]:
    """Models of every member, and one batch of prompts."""
    torch.manual_seed(0)
    audio = AudioConfig()
    symbols = (*Policy.SPECIALS, *(f"<{name}>" for name in (*EMOTIONS, *SPEAKERS)), *PHONES)
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
        policy = Policy(config, symbols, size.vocabulary).to(device).eval()
        reference = Policy(config, symbols, size.vocabulary).to(device).eval().requires_grad_(False)
        reference.load_state_dict(policy.state_dict())
        model = RewardModel(RewardModelConfig(), EMOTIONS, audio.n_mels, audio.floor).to(device)
        members.append(Models(policy, reference, model.eval().requires_grad_(False), **common, micro=micro))  # type: ignore[arg-type]
    draws = np.random.default_rng(0)
    phones = [tuple(draws.choice(PHONES, int(n))) for n in draws.integers(8, 30, size.batch)]
    speakers = [SPEAKERS[i % len(SPEAKERS)] for i in range(size.batch)]
    emotions = [EMOTIONS[i % len(EMOTIONS)] for i in range(size.batch)]
    prefix = policy.prefix_ids(phones, speakers, emotions)
    target = torch.tensor([EMOTIONS.index(name) for name in emotions], device=device)
    return members, Prompts(prefix, codec.speaker_index(speakers), target, phones)


def updates(models: Models, prompts: Prompts, config: OptimizeConfig, steps: int, tell: Callable[[int], None]) -> None:
    """Some updates of one member; ``tell`` hears of each before it starts."""
    optimizer = torch.optim.Adam(models.policy.parameters(), lr=1e-5, fused=True)
    for step in range(1, steps + 1):  # no step at which the judges hear the roll-outs
        tell(step)
        take_step(models, DiffRO(), {}, roll_out(models, prompts, config, step), optimizer, config)


class Watch:
    """CPU seconds, or wall seconds where a GPU computes; and memory."""

    def __init__(self, device: str) -> None:
        self.device = device

    def now(self) -> float:
        """Seconds, all that was asked of the GPU done."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def forget(self) -> None:
        """Begins a new peak."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        elif (file := Path("/proc/self/clear_refs")).exists():
            file.write_text("5")

    def peak(self) -> float:
        """MiB since then (of the process's life where Linux is not)."""
        if self.device == "cuda":
            return torch.cuda.max_memory_reserved() / 2**20
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
        return peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Operations(TorchDispatchMode):
    """Counts what is computed in the thread that enters it."""

    def __init__(self, counts: Counter[str], name: str) -> None:
        super().__init__()
        self.counts, self.name = counts, name

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.counts[self.name] += not op.is_view
        return op(*args, **(kwargs or {}))


def single(
    made: tuple[list[Models], Prompts], watch: Watch, counting: Callable[[], AbstractContextManager[Any]]
) -> float:
    """Seconds of the second update of all members, one after another."""
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
    """Seconds of the second update of all members at once."""
    members, prompts = made
    stack = Stack()
    begun: dict[int, float] = {}

    def program(number: int) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            config = OptimizeConfig(steps=1000, batch=len(prompts.phones), seed=number)
            models = stack.join(ask, members[number])
            with counting():
                updates(models, prompts, config, 2, lambda step: begun.setdefault(step, watch.now()) and None)

        return run

    with counting():
        for error in lockstep.run([program(number) for number in range(len(members))], stack.answer):
            if error is not None:
                raise error
    return watch.now() - begun[2]


def measure(
    size: Size, watch: Watch, micro: int | None, rounds: int
) -> tuple[dict[str, float], dict[str, float], Counter[str]]:
    """Seconds an update of all members, peak MiB, and operations an update, of ``single`` and ``stacked``."""
    executors = {"single": single, "stacked": stacked}
    seconds, memory = dict.fromkeys(executors, float("inf")), dict.fromkeys(executors, 0.0)
    for _ in range(rounds):
        for name, run in executors.items():
            watch.forget()
            seconds[name] = min(seconds[name], run(make(size, watch.device, micro), watch, nullcontext))
            memory[name] = max(memory[name], watch.peak())
    counts: Counter[str] = Counter()
    for name, run in executors.items():
        run(make(size, watch.device, micro), watch, lambda name=name: Operations(counts, name))  # type: ignore[misc]
        counts[name] //= 2  # updates
    return seconds, memory, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(SEVERAL), choices=SEVERAL, help="tables")
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help="where it is not what varies")
    parser.add_argument("--most", type=int, default=10**6, help="no more members than this")
    parser.add_argument(
        "--micro", type=int, help="samples a forward of one member; default: the device's, on a GPU all"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = list(asdict(Size()))
    for table in asked.only:
        print(
            f"\nBy {table} ({asked.device}, torch {torch.__version__})\n\n"
            f"| {' | '.join(names)} | single s | stacked s | single / stacked | single MiB | stacked MiB "
            "| single operations | stacked operations |"
        )
        print("|" + "--:|" * (len(names) + 7))
        for value in SEVERAL[table]:
            size = replace(Size(**{name: getattr(asked, name) for name in names}), **{table: value})
            if size.members > asked.most:
                continue
            seconds, memory, counts = measure(size, Watch(asked.device), asked.micro, asked.rounds)
            cells = [str(getattr(size, name)) for name in names]
            cells += [f"{seconds[name]:.2f}" for name in ("single", "stacked")]
            cells += [f"{seconds['single'] / seconds['stacked']:.2f}"]
            cells += [f"{memory[name]:.0f}" for name in ("single", "stacked")]
            cells += [str(counts[name]) for name in ("single", "stacked")]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
