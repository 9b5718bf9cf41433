"""What all tests share: a store of their own, whatever server the caller's shell names, their order, ports, and the documented
columns."""

import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ablations.grids import GRIDS
from ablations.tracking.connection import create_store
from ablations.tracking.runs_folder import RunsFolder
from rrpo import plugins
from rrpo.arms import ARMS
from rrpo.corpus.readers import READERS
from rrpo.judges.protocol import JUDGES
from rrpo.optimizers import OPTIMIZERS
from rrpo.plugins import Registry
from rrpo.regularizers import REGULARIZERS

os.environ.pop("MLFLOW_TRACKING_URI", None)


FIRST = ("test_smoke_grid.py", "test_the_site_builds_strictly")
"""The longest tests. Idle test processes take over tests from the end, and with them the fixtures of their module."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with `FIRST`, so that their fixtures are built once and none of them is left at the end."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in FIRST))


def pytest_collection_finish() -> None:
    """A test file that loads a plugin when it is imported changes the records of all other tests."""
    assert not plugins.loaded()


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget at the end of the test what it registers and loads; the function forgets it at once."""
    registries: tuple[Registry[Any], ...] = (ARMS, GRIDS, JUDGES, OPTIMIZERS, READERS, REGULARIZERS)
    own = [(registry, dict(registry._items), dict(registry._sources)) for registry in registries]

    def forget() -> None:
        for registry, items, sources in own:
            monkeypatch.setattr(registry, "_items", dict(items))
            monkeypatch.setattr(registry, "_sources", dict(sources))
        monkeypatch.setattr(plugins, "_loaded", {})
        monkeypatch.setenv(plugins.VARIABLE, "")

    forget()
    return forget


@pytest.fixture(scope="session")
def for_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is created once for all test processes."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def empty_store(for_all_processes: Path) -> Path:
    """The file of an empty store."""
    shared = RunsFolder(for_all_processes / "empty-store")
    with FileLock(f"{shared.root}.lock"):
        shared.root.mkdir(exist_ok=True)
        create_store(shared)
    return shared.database


@pytest.fixture
def stores_copied(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy an empty store for each new runs folder: MLflow needs over a second to create one."""

    def copy(folder: RunsFolder) -> None:
        if not (folder.server or folder.database.exists()):
            shutil.copy(empty_store, folder.database)

    monkeypatch.setattr("ablations.tracking.recorder.create_store", copy)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port that nobody listens on."""

    def find() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def documented() -> Callable[[str], list[str]]:
    """Return a function that gives the names in the table below a heading of the MLflow guide."""
    guide = (Path(__file__).parents[1] / "docs" / "mlflow.md").read_text(encoding="utf-8")
    sections = dict(section.split("\n", 1) for section in guide.split("\n### ")[1:])
    return lambda heading: re.findall(r"^\| `(\S+)` \|", sections[heading], re.M)
