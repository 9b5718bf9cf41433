"""Interface of policy optimizers, which compute losses from the roll-outs of one step.

The loop (`rrpo.optimizers.loop`) draws the roll-outs, differentiates, clips gradients, applies updates, stops on non-finite
values, measures curves and evaluation points, and saves checkpoints. `rrpo.optimizers.scoring` provides the components of most
objectives: log-probabilities, the KL to the reference, the reward of the sampled speech. Importing this module does not import
torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from rrpo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import OptimizeConfig
    from rrpo.models.policy import Rollout
    from rrpo.optimizers.rollout import Models, Prompts

State = dict[str, "Tensor"]
"""Tensors that an optimizer keeps between steps, by name; part of the checkpoints."""


@dataclass(frozen=True)
class Batch:
    """Roll-outs of one step: k samples of each of m prompts, B = k m rows; row r is a sample of prompt ``r % m``.

    Values ``[B]`` viewed as ``[k, m]`` therefore have one column per prompt.
    """

    step: int
    """Index of the step, from 0."""
    prompts: Prompts
    """Prompts of the B rows."""
    rollout: Rollout
    """B samples of the policy before the first update of the step."""
    numbers: Sequence[int] | None = None
    """Row numbers in the whole batch, which key the noise, if several processes share the batch; None: 0 to B - 1."""

    def keys(self, rows: Sequence[int]) -> Sequence[int]:
        """Return the noise keys of these rows."""
        return rows if self.numbers is None else [self.numbers[row] for row in rows]


@dataclass(frozen=True)
class MicroBatch:
    """Rows of a batch that are processed in one forward pass."""

    rows: Tensor
    """``[b]`` row numbers."""
    share: float
    """b / B: the weight of the mean over these rows in the mean over the batch."""
    prompts: Prompts
    """Prompts of these rows."""
    rollout: Rollout
    """Samples of these rows."""


@dataclass(frozen=True)
class Loss:
    """Contribution of one micro-batch to the loss of an update, with the values measured along the way."""

    part: MicroBatch
    """The micro-batch."""
    loss: Tensor
    """Scalar to differentiate, weighted by ``part.share``: the sum over micro-batches is the loss of the update."""
    values: dict[str, Tensor]
    """Values ``[b]`` without gradient, by name: ``reward_loss`` (-R), ``content_loss`` and any others. The curves show their
    batch means under these names."""
    kl: Tensor
    """``[b]``, without gradient: KL to the reference, nats per utterance."""
    log_p: Tensor
    """``[P, V + 1]``, without gradient: log-probabilities at the scored positions, concatenated over rows."""
    frames: tuple[Tensor, Tensor]
    """The sampled tokens decoded: F ``[b, T, M]``, without gradient, and lengths ``[b]``."""

    def measurements(self, models: Models, config: OptimizeConfig) -> dict[str, Tensor]:
        """Return further values ``[b]`` by name; called only at steps at which the judges evaluate the roll-outs."""
        return {}


class PolicyOptimizer(Protocol):
    """Base class of optimizers, to be derived from: a frozen dataclass whose fields (numbers, strings, booleans) are its options.

    `rrpo.plugins.searched` declares the options that studies search. Take random numbers from `rrpo.seeding.uniform`, keyed by
    ``config.seed``, a name, the step and the row, never from a global generator: arms of one seed then share their noise, and a
    resumed run equals an uninterrupted one. `rrpo.testing.optimizers.OptimizerContract` tests an implementation.
    """

    version: ClassVar[int] = 0
    """Version of an optimizer of this package. Increment it when its results change, so that only its own cells become stale. 0
    for DiffRO, which is covered by the version of the stage, and for plugins, which are covered by the hash of their file."""

    equation: ClassVar[str] = ""
    """The loss in one line."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Additional stage inputs that `start` reads: names of `rrpo.experiment.dataflow.further_inputs`."""
        return ()

    @property
    def samples(self) -> int:
        """k, number of roll-outs per prompt in a batch; ``OptimizeConfig.batch`` must be a multiple of it."""
        return 1

    def start(self, models: Models, prompts: Prompts, config: OptimizeConfig, inputs: Mapping[str, Path]) -> State:
        """Return the state before the first step, such as data sampled from the SFT policy.

        Args:
            models: The models; the policy still equals the reference.
            prompts: All training prompts.
            config: The shared settings.
            inputs: Folders of the input stages, by role.
        """
        return {}

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterable[Iterator[Loss]]:
        """Yield the updates on one batch of roll-outs, each as an iterator over the losses of its micro-batches.

        The loop differentiates each loss before it requests the next, so that only one graph is in memory, and updates the
        policy before it requests the next update. An objective with several updates per batch keeps values of the first, such
        as the log-probabilities under the sampling policy, in local variables.

        Args:
            models: Policy, reference and the frozen models.
            batch: The roll-outs of the step.
            config: The shared settings: reward and its weights, β, seed.
            state: Returned by `start`; may be modified in place.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no updates")


def prompts_of(method: PolicyOptimizer, config: OptimizeConfig) -> int:
    """Return the number of prompts in a batch; each is sampled ``method.samples`` times.

    Raises:
        InputError: The batch does not hold whole groups of samples.
    """
    prompts, remainder = divmod(config.batch, method.samples)
    if remainder:
        raise InputError(
            f"a batch does not hold {method.samples} samples of each of its prompts",
            got=f"{config.batch} roll-outs",
            fix=f"set the batch of the optimization to a multiple of {method.samples}",
        )
    return prompts
