"""Build several stages in one process, batching the calls of their models.

The build of each stage runs unchanged, with its own checkpoints, curves and result, in lockstep with the others
(`rrpo.stacking.lockstep`); a `rrpo.stacking.stack.Stack` serves its calls. A member equals a stage built alone up to rounding,
after which the trajectories of policy optimizations diverge; the marker of a stage therefore records its executor, and all
policy optimizations of a seed use the same one (`ablations.execution.stacking`). A member that diverges or fails does not affect
the others, and each member can resume from its own checkpoint, alone or in another stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rrpo.pipeline.stages import Context, Stage, materialise
from rrpo.stacking import lockstep
from rrpo.stacking.groups import stack_group
from rrpo.stacking.lockstep import Ask
from rrpo.stacking.optimizations import Optimizations
from rrpo.stacking.stack import Stack
from rrpo.stacking.trainings import PolicyTrainings, RewardModelTrainings

STACKS: dict[str, type[Stack]] = {
    "sft": PolicyTrainings,
    "pretrain": RewardModelTrainings,
    "finetune": RewardModelTrainings,
    "optimize": Optimizations,
}
"""Kind of stage -> its stack."""


def build(
    stages: Sequence[Stage],
    store: Path,
    context: Context,
    own: Callable[[Stage, Context], Context] = lambda stage, context: context,
) -> list[Path | BaseException]:
    """Build several stages together, after building their inputs one by one. Return the folder or error of each.

    Finished stages are not rebuilt; a stage that another process is building gives ClaimedError.

    Args:
        stages: The members.
        store: Folder of the results.
        context: Shared by all stages; receives their total progress.
        own: Adds stage-specific settings, such as a watch, to the context of one stage.

    Raises:
        ValueError: The stages do not belong to one `stack_group`.
    """
    groups = {stack_group(stage) for stage in stages}
    if len(groups) > 1 or None in groups:
        raise ValueError(
            f"stages of one stack must be of one kind and have one architecture and the same inputs in common, got {groups}; "
            "stack only cells of one profile and world"
        )
    alone = replace(context, executor=replace(context.executor, members=0))
    for stage in stages:
        for child in stage.inputs.values():
            materialise(child, store, alone)
    progress: dict[str, tuple[int, int]] = {}
    stack = STACKS[stages[0].name]()
    executor = replace(context.executor.of(stages[0].name), members=len(stages))

    def program(stage: Stage) -> Callable[[Ask], Path]:
        def report(done: int, total: int) -> None:
            progress[stage.key] = (done, total)
            context.report(sum(done for done, _ in progress.values()), sum(total for _, total in progress.values()))

        def run(ask: Ask) -> Path:
            join, backward = partial(stack.join, ask), partial(ask, "backward")
            shared = replace(context, join=join, backward=backward, executor=executor, report=report, wait=False)
            return materialise(stage, store, own(stage, shared))

        return run

    with executor.applied():  # process-wide settings: keep them until the last member has ended
        return lockstep.run([program(stage) for stage in stages], stack.answer)
