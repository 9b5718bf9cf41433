"""A study in a real PostgreSQL and a real MariaDB, started here from Debian's packages; skipped where not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from rrpo.errors import InputError
from studies import recovery, storage
from studies.recovery import RETRY, claim, lost_trials, recover
from studies.storage import open_storage, open_study, reach

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
MARIADB = shutil.which("mariadbd") or shutil.which("mysqld") or next(iter(Path("/usr/sbin").glob("mariadbd")), None)
ROOT = Path(__file__).parents[2]
WORK = """
import sys
from pathlib import Path
from studies import search as searching
from studies.search import Search, one_trial
from studies.trial import TrialSpec
from rrpo.profiles import SMOKE

def measure(spec, arm, seed, *rest, **options):
    import time
    time.sleep(float(sys.argv[3]))
    return {"clean_success": arm.regularizers.epsilon}

searching.measure = measure
spec = TrialSpec(profile=SMOKE, store=Path(sys.argv[1]), seeds=(1000,), objectives=("clean_success",))
search = Search(study="regularizers", name="s", spec=spec, trials=12, storage=sys.argv[2], sampler="random")
while one_trial(search, lambda done, total: None) is not None:
    pass
"""
"""A worker process whose trials take a given time."""


def when_up(url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while True:
        try:
            reach(url)
            return url
        except InputError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{error}\n{log.read_text()}")
            time.sleep(0.2)


@contextmanager
def server_folder(user: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for a server, and who runs it: as root it is the package's own user, since servers refuse root."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if os.geteuid() != 0:
            yield Path(folder), {}
            return
        shutil.chown(folder, user, user)
        yield Path(folder), {"user": user, "group": user}


def run_as(command: Sequence[object], user: Mapping[str, str]) -> None:
    completed = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd="/", **user)  # type: ignore[call-overload]
    assert completed.returncode == 0, completed.stdout + completed.stderr


@contextmanager
def serving(
    command: Sequence[object], user: Mapping[str, str], log: Path, stop: int
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        server = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, cwd="/", **user)  # type: ignore[call-overload]
    try:
        yield server
    finally:
        server.send_signal(stop)
        server.wait(60)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    programs, port, log = POSTGRES[-1].parent, free_port(), tmp_path_factory.mktemp("logs") / "postgres.log"
    with server_folder("postgres") as (folder, user):
        run_as([programs / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust", "--no-sync"], user)
        command = [programs / "postgres", "-F", "-D", folder / "data", "-p", port, "-k", folder, "-h", "127.0.0.1"]
        with serving(command, user, log, signal.SIGINT) as server:
            yield when_up(f"postgresql://me@127.0.0.1:{port}/postgres", server, log)


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    if not MARIADB:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server")
    pytest.importorskip("pymysql", reason="PyMySQL is not installed: pip install pymysql")
    port, log = free_port(), tmp_path_factory.mktemp("logs") / "mariadb.log"
    with server_folder("mysql") as (folder, user):
        data = ["--no-defaults", f"--datadir={folder / 'data'}"]
        run_as(["mariadb-install-db", *data, "--auth-root-authentication-method=normal", "--skip-test-db"], user)
        begin = folder / "begin.sql"
        begin.write_text(
            "CREATE DATABASE studies;\nCREATE USER me@localhost;\nGRANT ALL ON studies.* TO me@localhost;\n"
        )
        command = [MARIADB, *data, f"--port={port}", f"--socket={folder / 'socket'}", "--bind-address=127.0.0.1"]
        with serving([*command, f"--init-file={begin}"], user, log, signal.SIGTERM) as server:
            yield when_up(f"mysql://me@127.0.0.1:{port}/studies", server, log)


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database by address."""
    address: str = request.getfixturevalue(request.param)
    yield address
    import sqlalchemy

    engine = sqlalchemy.create_engine(storage._with_driver(address))
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)


@pytest.mark.long
def test_processes_share_a_study_and_the_trial_of_one_that_is_killed_is_run_again(tmp_path: Path, url: str):
    study = open_study(open_storage(url, tmp_path), "s", ["maximize"], {})

    def worker(folder: str, seconds: float) -> subprocess.Popen[bytes]:
        """Folders are not shared, as on hosts that only share the database."""
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORK, str(tmp_path / folder), url, str(seconds)], cwd=ROOT
        )

    victim = worker("a", 60)
    deadline = time.monotonic() + 120
    while not any("owner" in t.user_attrs for t in study.trials):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    victim.kill()
    victim.wait()
    workers = [worker(folder, 0.05) for folder in ("a", "b")]
    assert [process.wait(300) for process in workers] == [0, 0]
    trials = study.trials
    assert [t.state.name for t in trials].count("COMPLETE") in (12, 13), "hosts that share no lock may run one more"
    assert lost_trials(trials) == {0}
    assert next(t for t in trials if t.user_attrs.get(RETRY) == 0).params == trials[0].params
    points = [tuple(t.params.values()) for t in trials if RETRY not in t.user_attrs]
    assert len(set(points)) == len(points), "no two hosts draw the same point"


def test_a_host_that_is_not_heard_of_any_more_loses_its_trial(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    study = open_study(open_storage(url, tmp_path), "s", ["maximize"], {})
    space = {"epsilon": optuna.distributions.FloatDistribution(0, 0.3)}
    monkeypatch.setattr("rrpo.pipeline.claims.host_identity", lambda: "elsewhere")
    trial = study.ask(space)
    claim(trial)
    monkeypatch.undo()
    recover(study)
    assert study.trials[trial.number].state.name == "RUNNING", "heard of just now"
    monkeypatch.setattr(recovery, "SILENCE", 0)
    recover(study)
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]


def test_a_refused_login_and_a_missing_database_are_told(tmp_path: Path, postgres: str):
    with pytest.raises(InputError, match="cannot be opened") as caught:
        reach(postgres.replace("/postgres", "/nosuch"))
    assert 'database "nosuch" does not exist' in str(caught.value)
