"""Seconds an update of C stacked policies against the same C one after another: ``python tests/benchmarks/stacked.py``.

Every table varies one of: members C, roll-outs a step, longest roll-out, vocabulary, width of the policy; ``--only`` names some.
Networks have the sizes of the profile ``embedded`` and are untrained, prompts are drawn; a member is an arm with a reward model
and a seed of its own, its update a roll-out, DiffRO's losses and Adam. Single and stacked run in turn in the same process. On
the CPU, times are CPU seconds of one thread, quickest of several rounds; memory is the process's peak, or what torch held on the
GPU.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

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


def make(size: Size, device: str) -> tuple[list[Models], Prompts]:
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
        members.append(Models(policy, reference, model.eval().requires_grad_(False), **common))  # type: ignore[arg-type]
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


def measure(size: Size, device: str, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds an update of all members, and peak MiB, of ``single`` and ``stacked``."""
    watch = Watch(device)
    config = OptimizeConfig(steps=1000, batch=size.batch)

    def single() -> float:
        members, prompts = make(size, device)
        start = 0.0
        for number, models in enumerate(members):
            begun: dict[int, float] = {}
            own = replace(config, seed=number)
            updates(models, prompts, own, 2, lambda step, begun=begun: begun.setdefault(step, watch.now()))  # type: ignore[misc]
            start += watch.now() - begun[2]
        return start

    def stacked() -> float:
        members, prompts = make(size, device)
        stack, begun = Stack(), {}

        def program(number: int) -> Callable[[Ask], None]:
            def run(ask: Ask) -> None:
                models = stack.join(ask, members[number])
                updates(models, prompts, replace(config, seed=number), 2, tell)

            def tell(step: int) -> None:
                begun.setdefault(step, watch.now())

            return run

        for error in lockstep.run([program(number) for number in range(size.members)], stack.answer):
            if error is not None:
                raise error
        return watch.now() - begun[2]

    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in (("single", single), ("stacked", stacked)):
            watch.forget()
            seconds[name] = min(seconds.get(name, float("inf")), run())
            memory[name] = watch.peak()
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(SEVERAL), choices=SEVERAL, help="tables")
    parser.add_argument("--members", type=int, default=Size.members, help="C where it is not what varies")
    parser.add_argument("--most", type=int, default=10**6, help="no more members than this")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = [field.name for field in fields(Size)]
    for table in asked.only:
        print(
            f"\nBy {table} ({asked.device}, torch {torch.__version__})\n\n"
            f"| {' | '.join(names)} | single s | stacked s | single / stacked | single MiB | stacked MiB |"
        )
        print("|" + "--:|" * (len(names) + 5))
        for value in SEVERAL[table]:
            size = replace(Size(members=asked.members), **{table: value})
            if size.members > asked.most:
                continue
            seconds, memory = measure(size, asked.device, asked.rounds)
            cells = [str(getattr(size, name)) for name in names]
            cells += [f"{seconds[name]:.2f}" for name in ("single", "stacked")]
            cells += [f"{seconds['single'] / seconds['stacked']:.2f}"]
            cells += [f"{memory[name]:.0f}" for name in ("single", "stacked")]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
