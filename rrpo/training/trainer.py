"""Training loop of all models of a cell: Adam, learning-rate schedule, clipping, divergence check, progress."""

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
"""Multiplier of the learning rate as a function of the completed share of the updates after warm-up."""
CLIP = 1.0
"""Maximum L2 norm of the gradient."""


def multiplier(step: int, steps: int, warmup: int = 0, schedule: str = "cosine") -> float:
    """Return the multiplier of the learning rate at update ``step``, counted from 0, of ``steps``.

    It is ``(step + 1) / warmup`` during warm-up, and then follows one of `SCHEDULES` from 1 to its value after the last update.
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
    schedule: Callable[[int, int], float] = multiplier,
    history: dict[int, Any] | None = None,
) -> list[float]:
    """Minimize ``loss_fn(step)`` with Adam and return the loss of every step. Resumes from a checkpoint if there is one.

    Args:
        parameters: Parameters to train.
        loss_fn: Scalar loss of one step; it draws its own batch, keyed by the step.
        steps: Updates.
        lr: Peak learning rate, multiplied by ``schedule(step, steps)``.
        context: Receives the progress; sets the checkpoint folder and when to stop.
        schedule: Multiplier of the learning rate; by default `multiplier`'s cosine to zero.
        history: Values that ``loss_fn`` records per step (tensors or numbers); saved in and restored from checkpoints, with
            tensors on the CPU after a resume.

    Raises:
        Interrupted: ``context`` requested a stop between two steps.
        DivergedError: The loss or the gradient's norm is not finite; raised before the optimizer's step.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr, fused=True)
    checkpoints = Checkpoints(context, trained, optimizer)
    start, saved = checkpoints.resume()
    losses: list[Tensor] = [loss.to(trained[0].device) for loss in saved.get("losses", ())]
    history = {} if history is None else history
    history.update(saved.get("history", {}))
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(step)
        context.backward(loss)
        norm = nn.utils.clip_grad_norm_(trained, CLIP)
        losses.append(loss.detach())
        if not bool(torch.isfinite(losses[-1] + norm)):
            raise DivergedError(
                f"step {step + 1} of {steps}: loss {losses[-1].item():.4g}, gradient norm {norm.item():.4g}; "
                "lower the learning rate or check the features for non-finite values"
            )
        optimizer.step()
        checkpoints.boundary(
            step + 1, lambda: {"losses": torch.stack(losses), "history": history}, last=step + 1 == steps
        )
        context.report(step + 1, steps)
    optimizer.zero_grad(set_to_none=True)  # on a GPU, gradients need as much memory as the weights
    return torch.stack(losses).tolist() if losses else []
