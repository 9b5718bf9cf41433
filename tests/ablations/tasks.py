"""Functions that workers of the scheduler's tests run, and markers of stages that nobody built."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ablations.execution.worker import stopping
from ablations.failures import Lost
from rrpo import plugins
from rrpo.identity import canonical
from rrpo.pipeline.claims import Claims
from rrpo.pipeline.errors import ClaimedError, DivergedError, Interrupted
from rrpo.pipeline.stages import MARKER, Context, Stage

Report = Callable[[int, int], None]


def note(path: str, word: str, report: Report) -> int:
    """Append a word to a file and return the process id."""
    report(1, 2)
    with Path(path).open("a") as file:
        file.write(word + "\n")
    print(f"noted {word}")
    return os.getpid()


def plugin_names(report: Report) -> list[str]:
    """Return the plugin files that this worker has loaded."""
    return [path.name for path in plugins.loaded()]


def told_when_to_end(folder: str, report: Report) -> int:
    """Report progress, wait until a file exists, and return the process id."""
    (Path(folder) / "pid").write_text(str(os.getpid()))
    report(1, 3)
    deadline = time.monotonic() + 60
    while not (Path(folder) / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    print("at the end")
    return os.getpid()


def meet(folder: str, me: str, other: str, report: Report) -> bool:
    """Return whether the other task runs at the same time."""
    (Path(folder) / me).touch()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (Path(folder) / other).exists():
            return True
        time.sleep(0.01)
    return False


def fail(report: Report) -> None:
    """Raise an error."""
    raise RuntimeError("planted failure")


def die(report: Report) -> None:
    """Kill the process, as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path: str, report: Report) -> str:
    """Die on the first attempt."""
    if Path(path).exists():
        return "second try"
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fill(samples: int, report: Report) -> int:
    """Run out of memory with more than two samples per forward pass."""
    if samples > 2:
        raise MemoryError(f"{samples} samples do not fit")
    return samples


def diverge(report: Report) -> None:
    """Diverge."""
    raise DivergedError("loss nan")


def claimed_until(path: str, report: Report) -> str:
    """Be claimed by another process until a file exists."""
    if not Path(path).exists():
        raise ClaimedError("built by process 1 on elsewhere")
    return "free"


def fail_with_claim(folder: str, report: Report) -> None:
    """Hold a claim until a file exists, then raise."""
    claim = Claims(Path(folder) / "claims").take("work")
    if claim is None:
        raise ClaimedError("another process is at work")
    print("at work", flush=True)
    (Path(folder) / "started").touch()
    try:
        fail_after(f"{folder}/go", report)
    finally:
        claim.release()


def fail_after(path: str, report: Report) -> None:
    """Raise an error once a file exists."""
    while not Path(path).exists():
        time.sleep(0.01)
    raise RuntimeError("planted failure")


def steps(folder: str, report: Report) -> None:
    """Run in steps, and save a checkpoint when asked to stop."""
    (Path(folder) / "started").touch()
    for step in range(6000):
        report(step, 6000)
        if stopping():
            (Path(folder) / "checkpoint").touch()
            raise Interrupted
        time.sleep(0.01)


def sleep_after_report(folder: str, report: Report) -> None:
    """Report progress, then ignore every request to stop."""
    try:
        report(0, 1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.1)
        (Path(folder) / "slept").touch()
    finally:
        (Path(folder) / "cleaned").touch()


def write(path: str, report: Report) -> str:
    """Fail with a full disk until a file exists."""
    if not Path(path).exists():
        raise OSError(errno.ENOSPC, "No space left on device")
    return "written"


def leave(report: Report) -> None:
    """Exit the process with a status."""
    os._exit(7)


def sleep(folder: str, report: Report) -> None:
    """Report the start, and clean up when terminated."""
    try:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        (Path(folder) / "started").touch()
        time.sleep(60)
    finally:
        (Path(folder) / "cleaned").touch()


def environment(report: Report) -> tuple[str, bool]:
    """Return the thread limit, and whether torch was imported."""
    import sys

    return os.environ["OMP_NUM_THREADS"], "torch" in sys.modules


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Config of a stage that is built at the same time as another one."""

    folder: str
    me: str
    other: str


def build_together(config: Meeting, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write the visible GPUs, while the other stage is being built."""
    assert meet(config.folder, config.me, config.other, context.report)
    (out / "gpus.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"])


def visible_gpus(report: Report) -> str | None:
    """Return the value of CUDA_VISIBLE_DEVICES."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def several(folder: str, outcomes: list[str], report: Report) -> list[float | Lost]:
    """Return each part's result: ``ok``, or a kind of failure. The whole task dies or raises if the first part says so."""
    first = Path(folder) / "tried"
    if outcomes[0] == "dies" and not first.exists():
        first.touch()
        die(report)
    return [1.0 if outcome in ("ok", "dies") else Lost(outcome, f"planted {outcome}") for outcome in outcomes]


def marked(store: Path, stage: Stage, seconds: float, device: str = "cpu") -> None:
    """The marker of a stored stage, which took that long."""
    folder = store / "stages" / f"{stage.name}-{len(list(store.glob('stages/*')))}"
    folder.mkdir(parents=True)
    marker = {
        "name": stage.name,
        "config": canonical(stage.config),
        "device": device,
        "seconds": seconds,
        "bytes": 2**20,
    }
    (folder / MARKER).write_text(json.dumps(marker))
