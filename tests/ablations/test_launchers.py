"""Every launcher on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PARENT = """
import sys
from pathlib import Path
from ablations.launchers.local import LocalPool
from ablations.launchers.pool import Task

if __name__ == "__main__":
    pool = LocalPool(1)
    folder = Path(sys.argv[1])
    pool.submit(Task(key="a", title="a", function="tasks:sleep", arguments=(str(folder),)), folder / "log")
    pool.events(None)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends when it next tells of its progress")
def test_a_local_worker_dies_with_its_parent(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    places = os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE.parent.parent), str(HERE)))}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=places) as parent:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        worker = int((tmp_path / "pid").read_text())
        assert not gone(worker)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while not gone(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(worker)
