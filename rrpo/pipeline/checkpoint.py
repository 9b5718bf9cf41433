"""Checkpoints of a running stage: a build that was killed resumes from the newest one, with bit-identical results.

A checkpoint is a torch archive of tensors, numbers and text in the stage's own folder (if it has several trainings, in one for
each, see `Context.part`), named ``STEP-SHA256.ckpt`` after the step to resume from and the hash of its bytes. It is written
under a temporary name, flushed and renamed, so a final name never refers to a partial file. The newest two are kept, or only
the last one of a finished part. A checkpoint is refused if its hash does not match (truncated or altered), or if it records
another stage, precision or software (whose rounding may differ). The size of a stack may change: a member may resume alone. A
refused checkpoint is logged, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rrpo.pipeline.errors import Interrupted
from rrpo.pipeline.stages import Context, flush

FORMAT = 1
"""Version of the checkpoint format. Raise it when a loop stores its state in another form; older checkpoints are then refused."""
KEPT = 2
"""Number of checkpoints that are kept."""
SHARE = 0.01
"""Maximum share of the build time spent on saving; the interval grows up to `STRETCH` times to meet it."""
STRETCH = 20

log = logging.getLogger(__name__)


class Checkpoints:
    """Save, resume and stop a training loop. Without a folder nothing is saved.

    A loop whose randomness comes only from torch's global generator or from keys is restored exactly. Saved are the trained
    parameters (buffers must be set by the build), the optimizer's state, the generator's state, and the loop's own state.
    """

    def __init__(self, context: Context, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        self.context, self.optimizer = context, optimizer
        self.parameters = list(parameters)
        self.due = time.monotonic() + context.checkpoint_seconds

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Restore the newest valid checkpoint.

        Returns:
            The step to resume from and the loop's own state (tensors on the CPU); ``(0, {})`` without a checkpoint.
        """
        folder, clock = self.context.checkpoints, self.context.clock
        checkpoint = load(folder, self._description(), remove=self.context.saves) if folder else None
        if checkpoint is None:
            return 0, {}
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, checkpoint["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["generator"])
        if "cuda_generator" in checkpoint:
            torch.cuda.set_rng_state(checkpoint["cuda_generator"], self._device())
        clock.earlier = max(clock.earlier, checkpoint["seconds"])  # which include those of earlier trainings
        log.warning("resuming from step %d of %s", checkpoint["step"], checkpoint["stage"])
        return checkpoint["step"], checkpoint["kept"]

    def boundary(self, step: int, state: Callable[[], Mapping[str, Any]], *, last: bool = False) -> None:
        """Save if a save is due, and end the build if a stop is requested. Call it between two steps.

        Args:
            step: The step to resume from.
            state: Returns the loop's state besides its model: tensors, numbers, text, and lists, tuples and dicts of them.
            last: Whether all steps are done; a save is then due if `Context.keep_last`, and it replaces all others.

        Raises:
            Interrupted: `Context.stop` returned True; everything is saved.
            OSError: The checkpoint could not be written; older ones are unchanged.
        """
        stop, last = self.context.stop(), last and self.context.keep_last
        if self.context.checkpoints is not None and (stop or last or time.monotonic() >= self.due):
            start = time.monotonic()
            content = self._description() | self._state() | {"kept": state()}
            save(self.context.checkpoints, step, content, 1 if last else KEPT)
            interval, now = self.context.checkpoint_seconds, time.monotonic()
            self.due = now + max(interval, min(STRETCH * interval, (now - start) / SHARE))
        if stop:
            raise Interrupted(f"stopped before step {step + 1}; run the same command again to resume")

    def discard(self) -> None:
        """Remove every checkpoint of this training."""
        if self.context.checkpoints is not None:
            shutil.rmtree(self.context.checkpoints, ignore_errors=True)

    def _device(self) -> torch.device:
        return self.parameters[0].device if self.parameters else torch.device("cpu")

    def _description(self) -> dict[str, Any]:
        """Return the values in which a checkpoint must match this stage."""
        return {
            "format": FORMAT,
            "stage": self.context.checkpoints.name if self.context.checkpoints else "",
            "software": f"torch {torch.__version__} on {self._device().type}",
            "executor": str(replace(self.context.executor, members=0)),
            "shapes": [list(parameter.shape) for parameter in self.parameters],
        }

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "seconds": self.context.clock.seconds(),
            # Those of a stacked model are views; torch.save would write the parameters of all members.
            "parameters": [parameter.detach().clone() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "generator": torch.get_rng_state(),
        }
        if self._device().type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state(self._device())
        return state


def save(folder: Path, step: int, content: Mapping[str, Any], kept: int = KEPT) -> Path:
    """Write one checkpoint, then remove all but the newest ``kept``.

    Raises:
        OSError: It could not be written completely; existing checkpoints are unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{step:08d}.{os.getpid()}.draft"
    try:
        with draft.open("w+b") as file:
            torch.save({**content, "step": step}, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = folder / f"{step:08d}-{digest}.ckpt"
        os.replace(draft, path)
    except RuntimeError as error:
        # The file's own error may be hidden by a second one, which torch's archive writer raises on exit.
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    finally:
        draft.unlink(missing_ok=True)
    flush(folder)
    for old in sorted(folder.glob("*.ckpt"))[:-kept]:
        old.unlink(missing_ok=True)
    return path


def load(folder: Path, description: Mapping[str, Any], *, remove: bool = True) -> dict[str, Any] | None:
    """Return the newest checkpoint of ``folder`` that is valid and matches ``description``.

    ``remove``: whether refused ones and drafts are removed. If several processes share a run, only the one that writes does so.
    """
    for draft in folder.glob(".*.draft") if remove else ():
        draft.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        try:
            return _read(path, description)
        except FileNotFoundError:
            continue  # the process that writes has just replaced it
        except ValueError as error:
            log.warning("checkpoint %s refused: %s; trying the previous one", path, error)
            if remove:
                path.unlink(missing_ok=True)
    return None


def _read(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint. Raise ValueError if it is damaged or does not match ``description``."""
    step, _, digest = path.stem.partition("-")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError("its content does not match the hash in its name: it was truncated, altered or renamed")
        file.seek(0)
        try:
            content = dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises arbitrary errors for a file that it did not write
            raise ValueError(f"it is not an archive of tensors ({type(error).__name__})") from error
    for name, expected in {**description, "step": int(step)}.items():
        if content.get(name) != expected:
            raise ValueError(f"its {name} is {content.get(name)!r}, not {expected!r}")
    return content
