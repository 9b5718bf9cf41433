"""What a policy optimiser is: it turns one step's roll-outs into losses, and the loop does the rest.

The loop (`rrpo.optimizers.loop`) draws the roll-outs, differentiates, clips and applies the updates, stops when something is not
finite, measures curves and evaluation points, and saves checkpoints. `rrpo.optimizers.scoring` has what most objectives are made
of: log-probabilities, the KL to the reference, the reward of the sampled speech. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import OptimizeConfig
    from rrpo.models.policy import Rollout
    from rrpo.optimizers.rollout import Models, Prompts

State = dict[str, "Tensor"]
"""What an optimiser keeps from one step to the next, by name; part of the checkpoints."""


@dataclass(frozen=True)
class Batch:
    """One step's roll-outs: k samples of each of m prompts, B = k m rows; row r is a sample of prompt ``r % m``.

    A value of each row ``[B]`` is therefore, seen as ``[k, m]``, one column a prompt.
    """

    step: int
    """Index of the step, from 0."""
    prompts: Prompts
    """B rows."""
    rollout: Rollout
    """B rows, drawn from the policy as it is before the step's first update."""
    numbers: Sequence[int] | None = None
    """Of the rows in the whole batch, by which their noise is keyed, where several processes share it; None: their places."""

    def keys(self, rows: Sequence[int]) -> Sequence[int]:
        """What keys the noise of these rows."""
        return rows if self.numbers is None else [self.numbers[row] for row in rows]


@dataclass(frozen=True)
class MicroBatch:
    """Rows of a batch that go through the models together."""

    rows: Tensor
    """``[b]`` row numbers."""
    share: float
    """b / B: the weight of the rows' mean in the batch's mean."""
    prompts: Prompts
    """Of these rows."""
    rollout: Rollout
    """Of these rows."""


@dataclass(frozen=True)
class Loss:
    """What one micro-batch adds to an update's loss, and what is measured on the way."""

    part: MicroBatch
    """The rows."""
    loss: Tensor
    """Scalar to be differentiated: the rows' share of the batch's mean, so that the shares' sum is the update's loss."""
    values: dict[str, Tensor]
    """``[b]``, without gradient, by name: ``reward_loss`` (-R), ``content_loss``, and what else the optimiser wants in the
    curves, where the batch's mean appears under that name."""
    kl: Tensor
    """``[b]``, without gradient: KL to the reference in nats an utterance."""
    log_p: Tensor
    """``[P, V + 1]``, without gradient: log-probabilities at the scored positions, one row after another."""
    frames: tuple[Tensor, Tensor]
    """The sampled tokens decoded: F ``[b, T, M]``, without gradient, and lengths ``[b]``."""

    def look(self, models: Models, config: OptimizeConfig) -> dict[str, Tensor]:
        """Further values ``[b]`` by name that are measured only at the steps at which the judges hear the roll-outs."""
        return {}


class PolicyOptimizer(Protocol):
    """Base class of optimisers: a frozen dataclass whose fields (numbers, text, switches) are its options.
    `rrpo.plugins.searched` declares those that studies search.

    Randomness comes from `rrpo.seeding.uniform`, keyed by ``config.seed``, a name, the step and the row, and never from a global
    generator: arms of one seed then share their noise, and a resumed run draws what an undisturbed one would have drawn.
    `rrpo.testing.optimizers.OptimizerContract` tests an implementation.
    """

    version: ClassVar[int] = 0
    """Of an optimiser of this package: raised when what it computes changes, so that its cells become stale and no others. 0 for
    DiffRO, which the version of the stage guards, and for plugins, which the hash of their file guards."""

    equation: ClassVar[str] = ""
    """Its loss in one line."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Further inputs of the stage that `start` reads: names of `rrpo.pipeline.dataflow.further_inputs`."""
        return ()

    @property
    def samples(self) -> int:
        """k, roll-outs of each prompt in a batch; ``OptimizeConfig.batch`` is a multiple of it."""
        return 1

    def start(self, models: Models, prompts: Prompts, config: OptimizeConfig, inputs: Mapping[str, Path]) -> State:
        """The state before the first step, such as data of the optimiser's own drawn from the SFT policy.

        Args:
            models: The policy is still the reference.
            prompts: All training prompts.
            config: The shared settings.
            inputs: Folders of the finished stages that the optimisation reads, by role.
        """
        return {}

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterable[Iterator[Loss]]:
        """The updates to make on one batch of roll-outs, each as the losses of its micro-batches.

        Each loss is differentiated before the next is asked for, so that only one graph is held; the policy is updated before the
        next update is asked for. An objective that makes several updates on a batch keeps what it needs of the first, such as the
        log-probabilities under the policy that sampled, in local variables.

        Args:
            models: Policy, reference and the frozen models.
            batch: The step's roll-outs.
            config: The shared settings: reward and its weights, β, seed.
            state: What `start` returned and earlier steps changed; to be changed in place.
        """
        ...
