"""Claims: of all processes that share a folder, on one host or many, one does a piece of work; the rest wait or do other work.

A claim is the file ``NAME.GENERATION``, made with its content in one step by a hard link, so that of many that try one
succeeds. It names its owner: host, boot and process namespace, process id and the time the process started. A dead
owner is succeeded by the next generation:

- on the owner's own host (same boot, same namespace) at once, when no process with that id *and* start exists any more;
- elsewhere when the claim was not renewed for `LEASE` seconds. Owners renew every `LEASE / 4`; hosts' clocks must agree to
  within half a lease.

A live owner is never succeeded, with one exception that no lease can exclude: one that was frozen for longer than a lease.
So whoever publishes a result asks `Claim.held` first.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

LEASE = 120.0
"""Seconds without renewal after which another host may take a claim over."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a claim."""

    host: str
    """Host name, boot and process namespace: within one, process ids can be compared."""
    pid: int
    """Process id."""
    started: str
    """When the process started, in the system's own clock: tells it from a later one of the same id."""
    name: str = ""
    """Host name for people."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.name or self.host}"


@cache
def host_identity() -> str:
    """Host, boot and process namespace."""
    parts = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("ns/pid") else Path(path).read_text().strip())
        except OSError:
            parts.append("")
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """When a process of this host started, None when there is none (or only its remains)."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]  # ticks since boot: no change of the clock moves them
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None


def this_process() -> Owner:
    """The calling process."""
    return Owner(host=host_identity(), pid=os.getpid(), started=process_start(os.getpid()) or "", name=platform.node())


def is_alive(owner: Owner) -> bool | None:
    """Whether the owner's process lives; None when that cannot be told from this host."""
    if owner.host != host_identity():
        return None
    return process_start(owner.pid) == owner.started


@dataclass(frozen=True)
class Claim:
    """One claim that this process made."""

    path: Path
    """The file of its generation."""
    text: str
    """Its content, unlike that of any other claim."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""

    def held(self) -> bool:
        """Whether nobody has succeeded this owner."""
        try:
            newest = max(_generations(self.path.parent, self.path.stem))
            return newest == _generation(self.path) and self.path.read_text() == self.text
        except (OSError, ValueError):
            return False

    def renew(self) -> None:
        """Start the lease anew."""
        now = self.clock()
        if self.held():
            os.utime(self.path, (now, now))

    def release(self) -> None:
        """Give it up; nothing happens when it has been taken over."""
        if self.held():
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Claims:
    """The claims in one shared folder, as one process sees them."""

    folder: Path
    """Made on the first claim."""
    owner: Owner = field(default_factory=this_process)
    """Who claims."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    alive: Callable[[Owner], bool | None] = is_alive
    """Whether an owner lives; None when only its lease can tell."""
    lease: float = LEASE
    """Seconds."""

    def take(self, name: str) -> Claim | None:
        """The claim on ``name``, or None while another live owner (this very process included) has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        generations = _generations(self.folder, name)
        if generations and self.holder(name) is not None:
            return None
        path = self.folder / f"{name}.{max(generations, default=-1) + 1}"
        text = json.dumps(asdict(self.owner) | {"nonce": uuid.uuid4().hex})
        draft = self.folder / f".{name}.{uuid.uuid4().hex}"
        draft.write_text(text)
        now = self.clock()
        os.utime(draft, (now, now))
        try:
            os.link(draft, path)
        except FileExistsError:
            return None  # another was faster
        finally:
            draft.unlink(missing_ok=True)
        for old in generations:
            (self.folder / f"{name}.{old}").unlink(missing_ok=True)
        return Claim(path, text, self.clock)

    def holders(self) -> dict[str, Owner]:
        """The live owner of everything that has one."""
        if not self.folder.is_dir():
            return {}
        names = sorted({path.stem for path in self.folder.iterdir() if path.suffix[1:].isdecimal()})
        return {name: owner for name in names if (owner := self.holder(name)) is not None}

    def holder(self, name: str) -> Owner | None:
        """The live owner of ``name``; None when it is free, or its owner is dead or silent for too long."""
        generations = _generations(self.folder, name)
        if not generations:
            return None
        path = self.folder / f"{name}.{max(generations)}"
        try:
            content = json.loads(path.read_text())
            owner = Owner(**{key: content[key] for key in ("host", "pid", "started", "name")})
            silent = self.clock() - path.stat().st_mtime
        except FileNotFoundError:  # released, or taken over, just now
            return self.holder(name)
        except (ValueError, KeyError, TypeError):  # not written by us: left to its lease
            owner, silent = Owner(host="unknown", pid=0, started=""), self.clock() - path.stat().st_mtime
        alive = self.alive(owner)
        return owner if alive or (alive is None and silent <= self.lease) else None


def _generation(path: Path) -> int:
    return int(path.suffix.removeprefix("."))


def _generations(folder: Path, name: str) -> list[int]:
    """Of a name's claims in the folder."""
    found = []
    for path in folder.glob(f"{name}.*"):
        suffix = path.name.removeprefix(f"{name}.")
        if suffix.isdecimal():
            found.append(int(suffix))
    return found


@contextmanager
def kept(claim: Claim, every: float = LEASE / 4) -> Iterator[Claim]:
    """A claim that a thread renews until the block ends, and that is then released."""
    end = threading.Event()

    def renew() -> None:
        while not end.wait(every):
            with suppress(OSError):  # a file system that is away for a moment: the next turn tries again
                claim.renew()

    thread = threading.Thread(target=renew, daemon=True, name="claim")
    thread.start()
    try:
        yield claim
    finally:
        end.set()
        thread.join()
        claim.release()
