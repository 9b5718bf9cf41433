"""Benchmark of evaluation: ``python tests/benchmarks/diagnostics.py [--profile embedded] [--runs-dir runs] [--full]``.

Prints the share of a cell's steps spent on evaluating training roll-outs by the judges, and the time of every stage that
evaluates an arm with three checkpoints, and the SFT policy. Models have the profile's sizes but are trained only briefly, because
times hardly depend on training (``--full``: train as configured). Times are CPU seconds of this process: medians over several
interleaved rounds.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ablations.grids import arms
from rrpo.experiment import dataflow, measurements
from rrpo.optimizers import DiffRO, loop
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import roll_out
from rrpo.pipeline.stages import Context, Stage, materialise
from rrpo.profiles import PROFILES, Profile
from rrpo.seeding import permutation_batches


def quick(profile: Profile) -> Profile:
    """Return the profile with models of the same size, trained briefly on little data."""
    return replace(
        profile,
        name=f"{profile.name} (quick)",
        sizes=dict.fromkeys(profile.sizes, 80),
        annotated=60,
        rl_prompts=64,
        codec=replace(profile.codec, steps=60),
        recogniser=replace(profile.recogniser, steps=5),
        val_judge=replace(profile.val_judge, steps=5),
        test_judge=replace(profile.test_judge, steps=5),
        pretrain=replace(profile.pretrain, steps=5),
        finetune=replace(profile.finetune, steps=5),
        base=replace(profile.base, steps=150),
        sft=replace(profile.sft, steps=5),
        optimize=replace(profile.optimize, steps=10, checkpoints=(0, 5, 10)),
    )


def steps(stage: Stage, inputs: dict[str, Path], rounds: int) -> tuple[float, float]:
    """Return the CPU seconds of a step without and with an evaluation by the judges."""
    config, models = stage.config, Models.load(inputs, "cpu")
    prompts = Prompts.load(inputs["rl_prompts"], models)
    rows = torch.from_numpy(permutation_batches(len(prompts.phones), config.batch, 1, 0, "benchmark")[0])
    optimizer = torch.optim.Adam(models.policy.parameters(), lr=0.0)
    times: dict[int, list[float]] = {1: [], 0: []}
    for _ in range(rounds):
        for step in times:  # the first step of an interval is evaluated
            start = time.process_time()
            batch = roll_out(models, prompts.select(rows), config, step)
            loop.take_step(models, DiffRO(), {}, batch, optimizer, config)
            times[step].append(time.process_time() - start)
    return statistics.median(times[1]), statistics.median(times[0])


def built(stage: Stage, inputs: dict[str, Path], rounds: int) -> float:
    """Return the CPU seconds of a stage's build."""
    module, name = stage.build.split(":")
    build: Callable[..., None] = getattr(importlib.import_module(module), name)
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            build(stage.config, inputs, Path(folder), Context())
            found.append(time.process_time() - start)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="embedded", choices=PROFILES)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    profile = PROFILES[options.profile] if options.full else quick(PROFILES[options.profile])

    def inputs_of(stage: Stage) -> dict[str, Path]:
        return {role: materialise(child, options.runs_dir, Context()) for role, child in stage.inputs.items()}

    optimized = dataflow.optimized(profile, arms()["rrpo"], options.seed)
    plain, evaluated = steps(optimized, inputs_of(optimized), 2 * options.rounds + 1)
    cost = (evaluated - plain) / loop.CURVE_INTERVAL
    share = cost / (plain + cost)
    print(
        f"step {1000 * plain:.0f} ms, with evaluation {1000 * evaluated:.0f} ms: {100 * share:.1f} % of the steps' time"
    )
    for title, arm in (("SFT, once per seed", dataflow.SFT), ("one arm", arms()["rrpo"])):
        stages = {
            **measurements.core(profile, arm, options.seed, policy=True),
            "waves": measurements.vocoded(profile, arm, options.seed),
            **measurements.optional(profile, arm, options.seed, policy=True),
        }
        del stages["optimized"]
        seconds = {role: built(stage, inputs_of(stage), options.rounds) for role, stage in stages.items()}
        print(f"{title}: {sum(seconds.values()):.1f} s")
        for role, value in seconds.items():
            print(f"    {role:16s}{value:8.2f} s")


if __name__ == "__main__":
    main()
