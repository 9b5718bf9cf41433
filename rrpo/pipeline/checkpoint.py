"""Checkpoints of one running stage, so that a build that was killed goes on where it was, bit for bit.

A checkpoint is one torch archive of tensors, numbers and text, in the stage's own folder, named ``STEP-SHA256.ckpt`` by the
step to go on from and the hash of its bytes. It is written under another name, flushed and renamed, so a name never shows half
a file; the newest two stay. A truncated or altered file no longer has its hash, one of another stage, or of other software
(whose rounding may differ), says so inside: each is refused with a line in the log, and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rrpo.pipeline.errors import Interrupted
from rrpo.pipeline.stages import Context, flush

FORMAT = 1
"""Raise it when what a loop keeps changes its form: older checkpoints are refused."""
KEPT = 2
"""Checkpoints that stay."""
SHARE = 0.01
"""Most of a build's time that saving takes: the interval is stretched until it does, at most `STRETCH` times."""
STRETCH = 20
NAME = re.compile(r"(\d{8,})-([0-9a-f]{64})\.ckpt")

log = logging.getLogger(__name__)


class RefusedError(ValueError):
    """A file that is no checkpoint of this stage."""


class Checkpoints:
    """When a training loop saves, where it goes on, and where it stops. Without a folder nothing is saved.

    A loop that takes all its randomness from torch's global generator or from keys is restored exactly: parameters (those that
    are trained; buffers are the build's to set), the optimiser's state, the generator's state, and what the loop keeps itself.
    """

    def __init__(self, context: Context, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        self.context, self.optimizer = context, optimizer
        self.parameters = list(parameters)
        self.due = time.monotonic() + context.checkpoint_seconds

    def resume(self) -> tuple[int, dict[str, Any]]:
        """Restores the newest good checkpoint: the step to go on from, and what the loop kept (tensors on the CPU).

        ``(0, {})`` where there is none.
        """
        if self.context.checkpoints is None:
            return 0, {}
        found = load(self.context.checkpoints, self._description())
        if found is None:
            return 0, {}
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, found["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(found["optimizer"])
        torch.set_rng_state(found["generator"])
        if "cuda_generator" in found:
            torch.cuda.set_rng_state(found["cuda_generator"], self._device())
        self.context.clock.earlier += found["seconds"]
        log.warning("goes on from step %d of %s", found["step"], self.context.checkpoints.name)
        return found["step"], found["kept"]

    def boundary(self, step: int, kept: Callable[[], Mapping[str, Any]]) -> None:
        """Between two steps: saves if it is time to, and ends the build if that is asked for.

        Args:
            step: The step to go on from.
            kept: What the loop needs beside its model: tensors, numbers, text, and lists, tuples and dicts of them.

        Raises:
            Interrupted: `Context.stop` said so; everything is saved.
            OSError: The checkpoint could not be written; older ones are as they were.
        """
        stop = self.context.stop()
        if self.context.checkpoints is not None and (stop or time.monotonic() >= self.due):
            start = time.monotonic()
            save(self.context.checkpoints, step, self._description() | self._state() | {"kept": kept()})
            wanted, now = self.context.checkpoint_seconds, time.monotonic()
            self.due = now + max(wanted, min(STRETCH * wanted, (now - start) / SHARE))
        if stop:
            raise Interrupted(f"stopped before step {step + 1}; the same command goes on from there")

    def discard(self) -> None:
        """Removes every checkpoint of this stage."""
        if self.context.checkpoints is not None:
            shutil.rmtree(self.context.checkpoints, ignore_errors=True)

    def _device(self) -> torch.device:
        return self.parameters[0].device if self.parameters else torch.device("cpu")

    def _description(self) -> dict[str, Any]:
        """What a checkpoint must agree in to be ours."""
        return {
            "format": FORMAT,
            "stage": self.context.checkpoints.name if self.context.checkpoints else "",
            "software": f"torch {torch.__version__} on {self._device().type}",
            "shapes": [list(parameter.shape) for parameter in self.parameters],
        }

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "seconds": self.context.clock.seconds(),
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "generator": torch.get_rng_state(),
        }
        if self._device().type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state(self._device())
        return state


def save(folder: Path, step: int, content: Mapping[str, Any]) -> Path:
    """Writes one checkpoint, and then removes all but the newest `KEPT`.

    Raises:
        OSError: It could not be written whole; what was there before is untouched.
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
    except RuntimeError as error:  # torch's archive writer fails once more on its way out, over the file's own error
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    finally:
        draft.unlink(missing_ok=True)
    flush(folder)
    for old in sorted(folder.glob("*.ckpt"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load(folder: Path, description: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest checkpoint of ``folder`` that is whole and agrees with ``description``; those that are not are removed."""
    for left in folder.glob(".*.draft"):
        left.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.ckpt"), reverse=True):
        try:
            return _read(path, description)
        except RefusedError as error:
            log.warning("checkpoint %s refused: %s; trying the one before it", path, error)
            path.unlink(missing_ok=True)
    return None


def _read(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    named = NAME.fullmatch(path.name)
    if named is None:
        raise RefusedError("its name is not a step and a hash")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != named[2]:
            raise RefusedError("its bytes do not have the hash it is named by: truncated, or altered")
        file.seek(0)
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a file that torch did not write raises
            raise RefusedError(f"it is no archive of tensors ({type(error).__name__})") from error
    for name, wanted in {**description, "step": int(named[1])}.items():
        if not isinstance(content, dict) or content.get(name) != wanted:
            found = content.get(name) if isinstance(content, dict) else None
            raise RefusedError(f"its {name} is {found!r}, not {wanted!r}")
    return content
