"""Claims: one owner at a time; dead owners are succeeded at once or by lease, live ones never; with a simulated clock."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rrpo.pipeline.claims import (
    LEASE,
    Claim,
    Claims,
    Owner,
    host_identity,
    is_alive,
    keep_renewed,
    process_start,
    this_process,
)

HOLD = "import sys, time; from pathlib import Path; from rrpo.pipeline.claims import Claims\n"
HOLD += "assert Claims(Path(sys.argv[1])).take('work'); print('held', flush=True); time.sleep(60)"


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links."""

    def link(source: Path, target: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_threads_gets_it(tmp_path: Path, request: pytest.FixtureRequest, links: bool) -> None:
    if not links:
        request.getfixturevalue("no_links")
    got: list[Claim | None] = []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        got.append(Claims(tmp_path).take("work"))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in got) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work.0"], "no draft is left"


def test_a_killed_process_is_succeeded_at_once_a_live_one_never(tmp_path: Path) -> None:
    process = holder(tmp_path)
    claims = Claims(tmp_path, clock=lambda: 4e9)  # a hundred years on: no lease counts on the same host
    assert claims.take("work") is None
    owner = claims.holder("work")
    assert owner is not None
    assert owner.pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    claim = claims.take("work")
    assert claim is not None
    assert claim.held()
    assert [path.name for path in tmp_path.iterdir()] == ["work.1"]


def test_the_id_of_a_dead_process_used_again_is_not_its_owner(tmp_path: Path) -> None:
    owner = this_process()
    reused = Owner(host=owner.host, pid=owner.pid, started="1", name=owner.name)
    assert is_alive(owner)
    assert is_alive(reused) is False
    assert is_alive(Owner(host="elsewhere", pid=owner.pid, started=owner.started)) is None
    assert Claims(tmp_path, owner=reused).take("work")
    assert Claims(tmp_path).take("work")


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_claims_are_taken_over_and_released(tmp_path: Path) -> None:
    now = [1000.0]
    elsewhere = Owner(host="elsewhere", pid=1, started="1")
    assert Claims(tmp_path, owner=elsewhere, clock=lambda: now[0]).take("work")
    claims = Claims(tmp_path, clock=lambda: now[0])
    now[0] += LEASE
    assert claims.take("work") is None
    now[0] += 1
    claim = claims.take("work")
    assert claim is not None
    assert claim.held()
    assert claims.holder("work") == this_process()
    assert [path.name for path in tmp_path.iterdir()] == ["work.1"]
    claim.release()
    assert not list(tmp_path.iterdir())


def test_without_hard_links_a_faster_process_keeps_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        target.write_text("the faster one's")
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    assert Claims(tmp_path).take("work") is None
    assert [path.name for path in tmp_path.iterdir()] == ["work.0"]
    assert (tmp_path / "work.0").read_text() == "the faster one's"


def test_a_zombie_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert process_start(child) is None
    finally:
        os.waitpid(child, 0)


def test_a_taken_over_owner_knows_and_disturbs_nobody(tmp_path: Path) -> None:
    elsewhere = Owner(host="elsewhere", pid=1, started="1")
    now = [0.0]
    frozen = Claims(tmp_path, owner=elsewhere, clock=lambda: now[0]).take("work")
    assert frozen is not None
    claims = Claims(tmp_path, clock=lambda: now[0])
    now[0] = LEASE
    assert claims.take("work") is None, "silent for no longer than its lease"
    now[0] = LEASE + 1
    successor = claims.take("work")
    assert successor is not None
    frozen.renew()
    frozen.release()
    assert not frozen.held()
    assert successor.held()
    successor.release()
    again = Claims(tmp_path, owner=elsewhere, clock=lambda: now[0]).take("work")
    assert again is not None
    assert again.path == frozen.path
    assert not frozen.held(), "another claim in a file of the same name"


def test_a_file_that_is_no_claim_counts_until_its_lease(tmp_path: Path) -> None:
    (tmp_path / "work.0").write_text("{torn")
    os.utime(tmp_path / "work.0", (1000, 1000))
    assert Claims(tmp_path, clock=lambda: 1000 + LEASE).take("work") is None
    assert Claims(tmp_path, clock=lambda: 1001 + LEASE).take("work") is not None


def test_kept_renews_and_releases(tmp_path: Path) -> None:
    claim = Claims(tmp_path).take("work")
    assert claim is not None
    os.utime(claim.path, (0, 0))
    renewed = threading.Event()
    with keep_renewed(claim, every=0.01):
        for _ in range(500):
            if claim.path.stat().st_mtime > 0:
                renewed.set()
                break
            renewed.wait(0.01)
        assert renewed.is_set()
    assert not list(tmp_path.iterdir())


def test_identity_is_of_this_host() -> None:
    assert this_process().host == host_identity()
    assert process_start(os.getpid()) == this_process().started != ""


class Hosts(RuleBasedStateMachine):
    """Two hosts with two processes each compete for one claim; processes die, are suspended and return, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.living: dict[tuple[str, int], bool] = {}
        self.claims: dict[tuple[str, int], Claim] = {}
        self.renewed: dict[tuple[str, int], float] = {}

    @initialize(folder=st.uuids())
    def begin(self, folder: object) -> None:
        import tempfile

        self.folder = Path(tempfile.mkdtemp(prefix=f"claims-{folder}"))
        self.living = {(host, pid): True for host in ("a", "b") for pid in (1, 2)}

    def teardown(self) -> None:
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)

    def seen_by(self, who: tuple[str, int]) -> Claims:
        def alive(owner: Owner) -> bool | None:
            return self.living[(owner.host, owner.pid)] if owner.host == who[0] else None

        owner = Owner(host=who[0], pid=who[1], started="1")
        return Claims(self.folder, owner=owner, clock=lambda: self.now, alive=alive)

    who = st.tuples(st.sampled_from("ab"), st.sampled_from((1, 2)))

    @precondition(lambda self: any(self.living.values()))
    @rule(who=who)
    def take(self, who: tuple[str, int]) -> None:
        if not self.living[who]:
            return
        before = {other: claim for other, claim in self.claims.items() if claim.held()}
        claim = self.seen_by(who).take("work")
        for other in before:
            silent = self.now - self.renewed[other]
            if self.living[other] and (other[0] == who[0] or silent <= LEASE):
                assert claim is None, "the living are never succeeded"
            if not self.living[other] and other[0] == who[0]:
                assert claim is not None, "the dead of the same host are, at once"
            if silent > LEASE and other[0] != who[0]:
                assert claim is not None, "the silent of another host are"
        if not before:
            assert claim is not None, "what nobody holds is free"
        if claim is not None:
            self.claims[who], self.renewed[who] = claim, self.now

    @rule(who=who)
    def renew(self, who: tuple[str, int]) -> None:
        if self.living[who] and who in self.claims:
            mine = self.claims[who].held()
            self.claims[who].renew()
            if mine:
                self.renewed[who] = self.now

    @rule(who=who)
    def release(self, who: tuple[str, int]) -> None:
        if self.living[who] and who in self.claims:
            self.claims.pop(who).release()

    @rule(who=who)
    def die(self, who: tuple[str, int]) -> None:
        self.living[who] = False

    @rule(seconds=st.sampled_from((1.0, LEASE / 4, LEASE, 2 * LEASE)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def at_most_one_holds(self) -> None:
        assert sum(claim.held() for claim in self.claims.values()) <= 1


TestHosts = Hosts.TestCase
TestHosts.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_broken_lease_is_noticed() -> None:
    """The machine above fails if an owner on another host is treated as dead."""

    class Broken(Hosts):
        def seen_by(self, who: tuple[str, int]) -> Claims:
            good = super().seen_by(who)
            return Claims(good.folder, owner=good.owner, clock=good.clock, alive=good.alive, lease=-1.0)

    from hypothesis.stateful import run_state_machine_as_test

    with pytest.raises(AssertionError, match="never succeeded"):
        run_state_machine_as_test(
            Broken, settings=settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate])
        )
