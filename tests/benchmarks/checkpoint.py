"""Benchmark of checkpoints: ``python tests/benchmarks/checkpoint.py [--profile embedded] [--rounds 20] [--folder FOLDER]``.

Saves and restores a policy of the profile's size with its optimizer, and the curves and samples of a whole run, in a folder on
disk (flushed, so the disk matters). Prints the size, milliseconds, and the share of a build's time at the default interval. For
comparison it times an update of a policy of that size on a batch with 40 tokens per sample, without roll-out and reward.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from rrpo.models.policy import Policy
from rrpo.pipeline.checkpoint import Checkpoints
from rrpo.pipeline.stages import Context
from rrpo.profiles import PROFILES

TOKENS = 40


def median_ms(rounds: int, function: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="embedded", choices=PROFILES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="folder on the same disk as the runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    profile = PROFILES[options.profile]
    config = profile.optimize
    symbols = [*Policy.SPECIALS, *(f"<{i}>" for i in range(300))]
    policy = Policy(profile.policy, symbols, codes=torch.tensor(profile.codec.levels).prod().item())
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    prefix, tokens = torch.randint(1, 300, (config.batch, 30)), torch.randint(0, 100, (config.batch, TOKENS))

    def update() -> None:
        optimizer.zero_grad()
        policy.logits(prefix, tokens).logsumexp(-1).mean().backward()
        optimizer.step()

    update()
    curves = [{"step": step} | {f"metric_{i}": 0.1 * i for i in range(30)} for step in range(config.steps)]
    sample = {"tokens": torch.zeros(config.eval_prompts, profile.policy.max_tokens, dtype=torch.int16)}
    kept = {"curves": curves, "points": curves[:6], "samples": [sample] * len(config.checkpoints)}
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        context = Context(checkpoints=Path(folder) / "policy", checkpoint_seconds=0.0)
        always = Checkpoints(context, policy.parameters(), optimizer)
        saving = median_ms(options.rounds, lambda: always.boundary(1, lambda: kept))
        size = max(path.stat().st_size for path in (Path(folder) / "policy").iterdir())
        resuming = median_ms(options.rounds, always.resume)
        rarely = Checkpoints(Context(checkpoints=Path(folder)), policy.parameters(), optimizer)
        between = median_ms(1000, lambda: rarely.boundary(1, lambda: kept))
    step = median_ms(options.rounds, update)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    interval = Context().checkpoint_seconds
    print(f"{'parameters':44s}{parameters / 1e6:10.2f} million, {size / 2**20:.1f} MiB per checkpoint")
    print(f"{'saving, flushed to disk':44s}{saving:10.1f} ms, {saving / interval / 10:.3f} % of {interval:.0f} s")
    print(f"{'restoring':44s}{resuming:10.1f} ms")
    print(
        f"{'a step without a due checkpoint':44s}{1000 * between:10.1f} us, {100 * between / step:.4f} % of an update"
    )
    print(f"{'an update, without roll-out and reward':44s}{step:10.1f} ms")


if __name__ == "__main__":
    main()
