"""Benchmark of stacked trainings, ``python tests/benchmarks/trainings.py [--device cuda]``: SFT, pre-training and fine-tuning.

Prints, for one step of all members, one after another and stacked: the seconds, and the operations that torch dispatches, except
views (see ``update.py``). Networks have the sizes of the profile ``embedded``; they are untrained, and data are random.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from update import EMOTIONS, PHONES, SPEAKERS, SYMBOLS, Operations, Watch, show

from rrpo.config import OFF, PolicyConfig, RegularizerConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.models.policy import Policy
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.provenance import processor
from rrpo.pipeline.stages import Context
from rrpo.profiles import EMBEDDED
from rrpo.regularizers.objective import robust_loss
from rrpo.stacking import lockstep
from rrpo.stacking.lockstep import Ask
from rrpo.stacking.stack import Stack
from rrpo.stacking.trainings import PolicyTrainings, RewardModelTrainings
from rrpo.training.trainer import fit

STEPS = 2, 6
"""Steps of two trainings, whose difference is measured: the first step also creates Adam's moments."""
FRAMES, TOKENS = 200, 60
"""Length of an utterance: 4 s of frames, tokens of SFT."""
CODES = 1000
"""Size of the codec's vocabulary."""
Loss = Callable[[Any, int], Tensor]


def reward_model(device: str) -> RewardModel:
    """Return an untrained reward model in training mode."""
    audio = AudioConfig()
    return RewardModel(RewardModelConfig(), EMOTIONS, audio.n_mels, audio.floor).to(device).train()


def policy(device: str) -> Policy:
    """Return an untrained policy."""
    config = PolicyConfig(dim=EMBEDDED.policy.dim, layers=EMBEDDED.policy.layers, max_tokens=TOKENS)
    return Policy(config, SYMBOLS, CODES).to(device)


def fine_tuning(device: str, regularizers: RegularizerConfig) -> Loss:
    """Return the loss of a fine-tuning with these regularizers."""
    batch = EMBEDDED.finetune.batch
    F, lengths = torch.randn(batch, FRAMES, AudioConfig().n_mels, device=device), torch.full((batch,), FRAMES)
    y = functional.one_hot(torch.arange(batch, device=device) % len(EMOTIONS), len(EMOTIONS)).float()
    return lambda model, step: robust_loss(model, F, lengths.to(device), y, regularizers, 0, step)["loss"]


def pre_training(device: str) -> Loss:
    """Return the loss of a pre-training."""
    batch = EMBEDDED.pretrain.batch
    F, lengths = torch.randn(batch, FRAMES, AudioConfig().n_mels, device=device), torch.full((batch,), FRAMES)
    labels = torch.arange(batch, device=device) % len(EMOTIONS)
    return lambda model, step: functional.cross_entropy(model(F, lengths.to(device)), labels)


def supervised(device: str) -> Loss:
    """Return the loss of SFT."""
    batch = EMBEDDED.sft.batch
    prefix = policy(device).prefix_ids([PHONES[:20]] * batch, [SPEAKERS[0]] * batch, [EMOTIONS[0]] * batch)
    tokens = torch.randint(CODES, (batch, TOKENS), device=device)
    counts = torch.full((batch,), TOKENS, device=device)
    targets = tokens.flatten()
    return lambda model, step: functional.cross_entropy(model.packed_logits(prefix, tokens, counts), targets)


def single(members: list[Any], loss: Loss, steps: int, mode: AbstractContextManager[Any]) -> None:
    """Train the members one after another."""
    with mode:
        for model in members:
            fit(model.parameters(), partial(loss, model), steps, 1e-4, Context())


def stacked(members: list[Any], loss: Loss, steps: int, mode: AbstractContextManager[Any], stack: Stack) -> None:
    """Train all members at once, each in its own thread; the operations of the stack are those of this thread."""

    def program(member: Any) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            model, context = stack.join(ask, member), Context(backward=partial(ask, "backward"))
            with mode:
                fit(model.parameters(), partial(loss, model), steps, 1e-4, context)

        return run

    with mode:
        for error in lockstep.run([program(member) for member in members], stack.answer):
            if isinstance(error, BaseException):
                raise error


def a_step(train: Callable[[int, AbstractContextManager[Any]], None], watch: Watch) -> tuple[float, float]:
    """Return the seconds and operations of one step of all members."""
    seconds, operations = [], []
    for steps in STEPS:
        begun = watch.now()
        train(steps, nullcontext())
        seconds.append(watch.now() - begun)
        counts = Counter[str]()
        train(steps, Operations(counts, "all"))
        operations.append(counts["all"])
    count = STEPS[1] - STEPS[0]
    return (seconds[1] - seconds[0]) / count, (operations[1] - operations[0]) / count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--members", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, watch = options.device, Watch(options.device)
    print(f"{processor()}, torch {torch.__version__}, {device}, {options.members} members, one step of all")
    trainings: dict[str, tuple[Callable[[str], Any], Loss, type[Stack]]] = {
        "SFT": (policy, supervised(device), PolicyTrainings),
        "pre-training": (reward_model, pre_training(device), RewardModelTrainings),
        "fine-tuning, no regularizer": (reward_model, fine_tuning(device, OFF), RewardModelTrainings),
        "fine-tuning, RRPO": (reward_model, fine_tuning(device, RegularizerConfig()), RewardModelTrainings),
    }

    def row(name: str) -> dict[str, str]:
        make, loss, stack = trainings[name]

        def members() -> list[Any]:
            return [make(device) for _ in range(options.members)]

        one, operations = a_step(lambda steps, mode: single(members(), loss, steps, mode), watch)
        all_, together = a_step(lambda steps, mode: stacked(members(), loss, steps, mode, stack()), watch)
        cells = {"training": name, "single s": f"{one:.3f}", "stacked s": f"{all_:.3f}"}
        cells |= {"single / stacked": f"{one / all_:.2f}", "single operations": f"{operations:.0f}"}
        return cells | {"stacked operations": f"{together:.0f}", "ratio": f"{operations / together:.1f}"}

    show("Trainings", map(row, trainings))


if __name__ == "__main__":
    main()
