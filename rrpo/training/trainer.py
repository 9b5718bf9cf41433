"""The training loop that all models of a cell share: Adam, a schedule, clipping, a stop on divergence, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rrpo.pipeline.checkpoint import Checkpoints
from rrpo.pipeline.errors import DivergedError
from rrpo.pipeline.stages import Context

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
"""Multiplier of the learning rate by the share of the updates after the warm-up that are done."""


def multiplier(step: int, steps: int, warmup: int = 0, schedule: str = "cosine") -> float:
    """Multiplier of the learning rate at update ``step``, from 0, of ``steps``.

    ``(step + 1) / warmup`` during the warm-up; then one of `SCHEDULES` from 1, to what it is when all updates are done.
    """
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule](min(1.0, (step - warmup) / max(1, steps - warmup)))


def fit(
    parameters: Iterable[nn.Parameter],
    loss_fn: Callable[[int], Tensor],
    steps: int,
    lr: float,
    context: Context,
    clip: float = 1.0,
    schedule: Callable[[int, int], float] = multiplier,
    history: dict[int, Any] | None = None,
) -> list[float]:
    """Minimises ``loss_fn(step)`` by Adam and returns the loss of every step; goes on from a checkpoint if there is one.

    Args:
        parameters: What is trained.
        loss_fn: The scalar loss of one step; it draws its own batch, keyed by the step.
        steps: Updates.
        lr: Peak learning rate, times ``schedule(step, steps)``.
        context: Told the progress; says where checkpoints go, and when to stop.
        clip: L2 norm to which the gradient is clipped; ``inf`` leaves it alone.
        schedule: Multiplier of the rate; by default `multiplier`'s cosine to zero.
        history: What ``loss_fn`` notes of its steps (tensors or numbers); saved and filled again with the checkpoints, its
            tensors then on the CPU.

    Raises:
        Interrupted: ``context`` asked for it between two steps.
        DivergedError: The loss or the gradient's norm is not finite; raised before the optimiser's step.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr, fused=True)
    checkpoints = Checkpoints(context, trained, optimizer)
    start, kept = checkpoints.resume()
    losses: list[Tensor] = [loss.to(trained[0].device) for loss in kept.get("losses", ())]
    history = {} if history is None else history
    history.update(kept.get("history", {}))
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, clip)
        losses.append(loss.detach())
        if not bool(torch.isfinite(losses[-1] + norm)):
            raise DivergedError(
                f"step {step + 1} of {steps}: loss {losses[-1].item():.4g}, gradient norm {norm.item():.4g}; "
                "lower the learning rate or look for non-finite features"
            )
        optimizer.step()
        checkpoints.boundary(step + 1, lambda: {"losses": torch.stack(losses), "history": history})
        context.report(step + 1, steps)
    return torch.stack(losses).tolist() if losses else []
