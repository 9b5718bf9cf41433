"""A grid of real stages on a few utterances and steps, which takes seconds. Run as a program, it runs the grid."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from ablations.grids import GRIDS, Grid, arms, product
from rrpo.config import SftConfig
from rrpo.experiment.cell import Cell
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.profiles import SMOKE, Profile

TINY = replace(
    SMOKE,
    name="tiny",
    sizes={name: 12 for name in SMOKE.sizes}
    | {"codec": 24, "base": 24, "sft": 16, "sft_heldout": 8, "judge_third": 100},
    annotated=20,
    rl_prompts=16,
    codec=replace(SMOKE.codec, steps=12),
    recogniser=RecogniserConfig(dim=16, steps=8, batch=8),
    val_judge=JudgeConfig(dim=16, steps=8, batch=8),
    test_judge=JudgeConfig(architecture="stats_tdnn", dim=16, steps=8, batch=8),
    pretrain=replace(SMOKE.pretrain, steps=8, batch=8),
    finetune=replace(SMOKE.finetune, steps=6, batch=8),
    base=SftConfig(steps=12, lr=3e-3),
    sft=SftConfig(steps=6),
    optimize=replace(SMOKE.optimize, steps=8, batch=4, checkpoints=(0, 4, 8), eval_prompts=10, final_prompts=20),
    examine=replace(SMOKE.examine, interpolation_pairs=4, pgd_steps=1),
    score=replace(SMOKE.score, audio_prompts=2),
)


def cells(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Vanilla and robust."""
    return product({name: arms()[name] for name in ("diffro", "rrpo")}, TINY, seeds)


if __name__ == "__main__":
    from ablations import run

    GRIDS.register("tiny", Grid(cells=cells, profile="smoke", seeds=1, first_seed=1))
    sys.argv[0] = "ablations.run"
    run.main()
