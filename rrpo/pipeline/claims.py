"""Claims: locks in a shared folder, so that one process on one of several hosts does a piece of work while the others wait.

A claim is the file ``NAME.GENERATION``. It is created together with its content in one step, by a hard link, so that only one
of several competing processes succeeds. It names its owner: host, boot and process namespace, process id and the start time of
the process. The claim of a dead owner is taken over by creating the next generation:

- on the owner's own host (same boot, same namespace) at once, when no process with that id *and* start time exists any more;
- elsewhere when the claim was not renewed for `LEASE` seconds. Owners renew every `LEASE / 4`; the hosts' clocks must agree to
  within half a lease.

A live owner is never succeeded, with one exception that leases cannot exclude: an owner that was suspended for longer than a
lease. A process must therefore check `Claim.held` before it publishes a result.
"""

from __future__ import annotations

import hashlib
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
"""Seconds without renewal after which another host may take over a claim."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Process that holds a claim."""

    host: str
    """Digest of the host's name, boot and process namespace. Process ids are comparable only if these are equal."""
    pid: int
    """Process id."""
    started: str
    """Start time of the process by the system's clock; distinguishes it from a later process with the same id."""
    name: str = ""
    """Host name for display."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.name or self.host}"


@cache
def host_identity() -> str:
    """Return a digest of the host's name, its boot and process namespace as one text."""
    parts = [hashlib.sha256(platform.node().encode()).hexdigest()[:16]]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("ns/pid") else Path(path).read_text().strip())
        except OSError:
            parts.append("")
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """Return the start time of a process of this host, or None if it does not exist or is a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]  # ticks since boot, which changes of the clock do not affect
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None


def this_process() -> Owner:
    """Return the calling process as an owner."""
    return Owner(host=host_identity(), pid=os.getpid(), started=process_start(os.getpid()) or "", name=platform.node())


def is_alive(owner: Owner) -> bool | None:
    """Return whether the owner's process is alive; None if this host cannot tell."""
    if owner.host != host_identity():
        return None
    return process_start(owner.pid) == owner.started


@dataclass(frozen=True)
class Claim:
    """One claim held by this process."""

    path: Path
    """File of its generation."""
    text: str
    """Content of the file, unique to this claim."""
    clock: Callable[[], float] = time.time
    """Returns the time in seconds since 1970."""

    def held(self) -> bool:
        """Return whether the claim has not been taken over."""
        try:
            newest = max(_generations(self.path.parent, self.path.stem))
            return self.path.suffix == f".{newest}" and self.path.read_text() == self.text
        except (OSError, ValueError):
            return False

    def renew(self) -> None:
        """Restart the lease."""
        now = self.clock()
        if self.held():
            os.utime(self.path, (now, now))

    def release(self) -> None:
        """Give up the claim; does nothing if it has been taken over."""
        if self.held():
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Claims:
    """The claims in one shared folder, as seen by one process."""

    folder: Path
    """Folder of the claim files; created with the first claim."""
    owner: Owner = field(default_factory=this_process)
    """Owner of the claims that this object takes."""
    clock: Callable[[], float] = time.time
    """Returns the time in seconds since 1970."""
    alive: Callable[[Owner], bool | None] = is_alive
    """Returns whether an owner is alive; None if only its lease can tell."""
    lease: float = LEASE
    """Duration of a lease in seconds."""

    def take(self, name: str) -> Claim | None:
        """Claim ``name``. Return None if a live owner, possibly this process, holds it."""
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
            _create(draft, path)
        except FileExistsError:
            return None  # another process was faster
        finally:
            draft.unlink(missing_ok=True)
        for old in generations:
            (self.folder / f"{name}.{old}").unlink(missing_ok=True)
        return Claim(path, text, self.clock)

    def holders(self) -> dict[str, Owner]:
        """Return the live owner of every claimed name."""
        if not self.folder.is_dir():
            return {}
        names = sorted({path.stem for path in self.folder.iterdir() if path.suffix[1:].isdecimal()})
        return {name: owner for name in names if (owner := self.holder(name)) is not None}

    def holder(self, name: str) -> Owner | None:
        """Return the live owner of ``name``; None if it is free, or its owner is dead or its lease has expired."""
        generations = _generations(self.folder, name)
        if not generations:
            return None
        path = self.folder / f"{name}.{max(generations)}"
        try:
            content = json.loads(path.read_text())
            owner = Owner(**{key: content[key] for key in ("host", "pid", "started", "name")})
            silent = self.clock() - path.stat().st_mtime
        except FileNotFoundError:  # released or taken over a moment ago
            return self.holder(name)
        except (ValueError, KeyError, TypeError):  # a foreign file: treat it as a claim until its lease expires
            owner, silent = Owner(host="unknown", pid=0, started=""), self.clock() - path.stat().st_mtime
        alive = self.alive(owner)
        return owner if alive or (alive is None and silent <= self.lease) else None


def _create(draft: Path, path: Path) -> None:
    """Create ``path`` with the content and time of ``draft``. Raise FileExistsError if it exists."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: until its content is written, the file counts as a claim
        with path.open("x") as file:
            try:
                file.write(draft.read_text())
                file.flush()
                os.utime(path, (draft.stat().st_mtime,) * 2)
            except OSError:  # a full disk: an empty file would be a claim until its lease expires
                path.unlink()
                raise


def _generations(folder: Path, name: str) -> list[int]:
    """Return the generations of a name's claims in the folder."""
    suffixes = (path.name.removeprefix(f"{name}.") for path in folder.glob(f"{name}.*"))
    return [int(suffix) for suffix in suffixes if suffix.isdecimal()]


@contextmanager
def keep_renewed(claim: Claim, every: float = LEASE / 4) -> Iterator[Claim]:
    """Renew a claim from a thread until the block ends, then release it."""
    try:
        with repeated(claim.renew, every):
            yield claim
    finally:
        claim.release()


@contextmanager
def repeated(sign: Callable[[], None], every: float) -> Iterator[None]:
    """Call ``sign``, which gives a sign of life, from a thread every few seconds until the block ends."""
    end = threading.Event()

    def run() -> None:
        while not end.wait(every):
            with suppress(Exception):  # a file system or database may be away for a moment: the next turn tries again
                sign()

    thread = threading.Thread(target=run, daemon=True, name="sign of life")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
