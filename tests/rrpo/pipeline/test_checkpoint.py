"""Checkpoints: complete or absent, valid or refused, and the previous one if the newest is damaged."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from rrpo.pipeline import checkpoint
from rrpo.pipeline.checkpoint import Checkpoints, load, save
from rrpo.pipeline.errors import Interrupted, failure_kind
from rrpo.pipeline.executor import Executor
from rrpo.pipeline.stages import Context
from rrpo.training.trainer import fit

OURS = {"stage": "codec-0123", "software": "torch"}


def written(folder: Path, *steps: int) -> list[Path]:
    return [save(folder, step, {**OURS, "value": torch.full((1000,), float(step))}) for step in steps]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def of_another_stage(path: Path) -> None:
    renamed(path, torch_bytes(path, stage="sft-4567"))


def of_other_software(path: Path) -> None:
    renamed(path, torch_bytes(path, software="torch 1.0"))


def under_another_step(path: Path) -> None:
    path.rename(path.with_name(path.name.replace("00000003-", "00000009-")))


def without_a_hash(path: Path) -> None:
    path.rename(path.with_name("newest.ckpt"))


def that_runs_code(path: Path) -> None:
    """A pickle that calls a function when loaded, named after its correct hash."""
    renamed(path, pickle.dumps(Malicious(path.with_name("owned")), protocol=2))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def torch_bytes(path: Path, **changes: str) -> bytes:
    torch.save(torch.load(path, weights_only=True) | changes, path)
    return path.read_bytes()


def renamed(path: Path, content: bytes) -> None:
    path.unlink()
    path.with_name(f"00000003-{hashlib.sha256(content).hexdigest()}.ckpt").write_bytes(content)


def test_the_newest_two_stay_and_the_newest_is_read(tmp_path: Path) -> None:
    paths = written(tmp_path, 1, 2, 3)
    checkpoint = load(tmp_path, OURS)
    assert checkpoint is not None
    assert (checkpoint["step"], checkpoint["value"][0].item()) == (3, 3.0)
    assert sorted(tmp_path.iterdir()) == paths[1:]
    assert load(tmp_path / "none", OURS) is None


@pytest.mark.parametrize(("seconds", "left"), [(30.0, 0), (math.inf, 2)])
def test_half_written_and_damaged_ones_are_removed_by_who_writes(tmp_path: Path, seconds: float, left: int) -> None:
    """The other processes of a run do not save, and may find the draft of the one that does."""
    (tmp_path / ".00000004.77.draft").write_bytes(b"half")
    (tmp_path / "00000003-abc.ckpt").write_bytes(b"damaged")
    context = Context(checkpoints=tmp_path, checkpoint_seconds=seconds)
    parameter = torch.nn.Parameter(torch.zeros(1))
    assert Checkpoints(context, [parameter], torch.optim.Adam([parameter])).resume() == (0, {})
    assert len(list(tmp_path.iterdir())) == left


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        emptied,
        flipped,
        of_another_stage,
        of_other_software,
        under_another_step,
        without_a_hash,
        that_runs_code,
    ],
    ids=lambda damage: damage.__name__,
)
def test_what_is_not_ours_or_not_whole_is_refused_and_stepped_back_from(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = written(tmp_path, 2, 3)
    damage(newer)
    with caplog.at_level(logging.WARNING):
        checkpoint = load(tmp_path, OURS)
    assert checkpoint is not None
    assert checkpoint["step"] == 2
    assert "refused" in caplog.text
    assert list(tmp_path.iterdir()) == [older], "nothing ran, and the refused one does not count among those that stay"


@pytest.mark.parametrize(
    ("executor", "step"),
    [(Executor(8, "bf16"), 3), (Executor(2, "bf16"), 3), (Executor(8), 0), (Executor(8, "tf32"), 0)],
)
def test_a_build_resumes_in_the_precision_in_which_it_began(tmp_path: Path, executor: Executor, step: int) -> None:
    def checkpoints(executor: Executor) -> Checkpoints:
        parameter = torch.nn.Parameter(torch.zeros(1))
        context = Context(checkpoints=tmp_path, checkpoint_seconds=0.0, executor=executor)
        return Checkpoints(context, [parameter], torch.optim.Adam([parameter]))

    checkpoints(Executor(8, "bf16")).boundary(3, dict)
    assert checkpoints(executor).resume() == (step, {})


def test_when_all_are_damaged_the_build_starts_anew(tmp_path: Path) -> None:
    for path in written(tmp_path, 2, 3):
        flipped(path)
    assert load(tmp_path, OURS) is None


def test_a_full_disk_is_an_os_error_and_harms_no_older_checkpoint(full_disk: Path) -> None:
    """A real tmpfs of 1 MiB, with sizes around its free space."""
    older = [path.read_bytes() for path in written(full_disk, 1, 2)]
    for size in (2**18 - 2000, 2**18, 2**19):
        with pytest.raises(OSError, match="No space left") as caught:
            save(full_disk, 3, {**OURS, "value": torch.rand(size)})
        assert caught.value.errno == errno.ENOSPC
        assert failure_kind(caught.value) == "disk"
        assert [path.read_bytes() for path in sorted(full_disk.iterdir())] == older
        checkpoint = load(full_disk, OURS)
        assert checkpoint is not None
        assert checkpoint["step"] == 2


class Line:
    """Fit a straight line, with dropout from the global generator."""

    def __init__(self, context: Context, steps: int = 40) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        x = torch.randn(16, 4)
        self.losses = fit(
            self.model.parameters(), lambda step: (self.model(x) - x.sum(1)).square().mean(), steps, 0.1, context
        )


@pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.long)])
def test_killed_at_any_moment_ends_as_undisturbed(rounds: int, tmp_path: Path) -> None:
    """Real processes, killed by SIGKILL up to 20 ms after a random step of a build that saves at every step.

    A process stops ten steps, at least 20 ms, after that step, so that the first is killed however late the signal comes.
    """
    expected = repr(Line(Context()).losses)
    fork = multiprocessing.get_context("fork")
    draws = random.Random(rounds)
    for round_ in range(rounds):
        folder, out = tmp_path / str(round_) / "line-1", tmp_path / f"{round_}.losses"
        kills = 0
        while not out.exists():
            ours, theirs = fork.Pipe()
            at = draws.randint(1, 15)

            def build(connection: Connection = theirs, folder: Path = folder, out: Path = out, at: int = at) -> None:
                steps = iter(range(at + 10))

                def report(done: int, total: int) -> None:
                    connection.send(done)
                    time.sleep(0.002)
                    if next(steps, None) is None:
                        signal.pause()

                losses = Line(Context(checkpoints=folder, checkpoint_seconds=0.0, report=report)).losses
                out.with_suffix(".draft").write_text(repr(losses))
                out.with_suffix(".draft").rename(out)
                os._exit(0)

            process = fork.Process(target=build)
            process.start()
            theirs.close()
            with suppress(EOFError):  # it ended first
                for _ in range(at):
                    ours.recv()
                time.sleep(draws.uniform(0, 0.02))
            process.kill()
            process.join()
            ours.close()
            kills += process.exitcode == -signal.SIGKILL
        assert kills > 0
        assert out.read_text() == expected


def test_a_fit_without_a_folder_saves_nothing_and_can_still_be_stopped(tmp_path: Path) -> None:
    calls = iter([False, False, True])
    with pytest.raises(Interrupted, match="before step 4"):
        Line(Context(stop=lambda: next(calls)))
    assert not list(tmp_path.iterdir())


def test_the_interval_is_kept_and_stretched_by_what_saving_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated clock: a step of 1 s, an interval of 10 s; saving for 0, 0.5 (1 % of 50 s) or 60 s (at most 200 s)."""
    now = 0.0
    saved: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for cost, expected in ((0.0, [10, 20, 30]), (0.5, [10, 60, 110]), (60.0, [10, 210, 410])):
        saved.clear()
        now = 0.0

        def saving(folder: Path, step: int, content: object, kept: int, cost: float = cost) -> None:
            nonlocal now
            now += cost
            saved.append(step)

        monkeypatch.setattr(checkpoint, "save", saving)
        parameter = torch.nn.Parameter(torch.zeros(1))
        store = Checkpoints(
            Context(checkpoints=tmp_path, checkpoint_seconds=10.0), [parameter], torch.optim.Adam([parameter])
        )
        for step in range(1, 500):
            now += 1.0
            store.boundary(step, dict)
        assert saved[:3] == expected


def test_the_time_of_earlier_attempts_comes_with_the_checkpoint(tmp_path: Path) -> None:
    context = Context(checkpoints=tmp_path / "line-1", checkpoint_seconds=0.0)
    context.clock.earlier = 1000.0
    Line(context, steps=3)
    later = Context(checkpoints=tmp_path / "line-1")
    Line(later, steps=3)
    assert 1000.0 < later.clock.seconds() < 2000.0


def test_the_time_of_a_training_is_counted_once_when_several_resume(tmp_path: Path) -> None:
    first = Context(checkpoints=tmp_path / "line-1")
    first.clock.earlier = 1000.0
    for name in ("one", "two"):
        Line(first.part(name), steps=3)
    later = Context(checkpoints=tmp_path / "line-1")
    losses = [Line(later.part(name), steps=3).losses for name in ("one", "two")]
    assert 1000.0 < later.clock.seconds() < 2000.0
    assert [len(row) for row in losses] == [3, 3]


def test_only_a_training_that_is_a_part_keeps_its_last_state_and_no_other(tmp_path: Path) -> None:
    context = Context(checkpoints=tmp_path / "line-1", checkpoint_seconds=1e9)
    Line(context, steps=3)
    assert not list(tmp_path.rglob("*.ckpt"))
    for part in (context.part("one"), replace(context, checkpoint_seconds=0.0).part("two")):
        Line(part, steps=3)
        assert part.checkpoints is not None
        assert [path.name[:8] for path in part.checkpoints.iterdir()] == ["00000003"]
    Line(replace(context, checkpoint_seconds=math.inf).part("three"), steps=3)
    assert not (tmp_path / "line-1" / "three").exists(), "a process that does not save"
