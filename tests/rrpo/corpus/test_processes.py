"""Work by several processes: same results in the same order, errors are raised, no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from rrpo.corpus import features
from rrpo.corpus.config import AudioConfig, SpeechConfig, SplitConfig, WorldConfig
from rrpo.corpus.features import build
from rrpo.corpus.intake import check_manifest
from rrpo.corpus.manifest import ManifestError, read_manifest
from rrpo.corpus.processes import in_order
from rrpo.pipeline.stages import Context
from rrpo.testing.corpora import write_tone

LINE = '{{"audio": "{}.wav", "text": "a", "phones": ["a"], "speaker": "s", "language": "en", "emotion": "sad"}}\n'


def recordings(folder: Path, count: int) -> SpeechConfig:
    for number in range(count):
        write_tone(folder / f"{number}.wav", 100 + 7 * number, seconds=0.1 + 0.02 * (number % 5))
    (folder / "m.jsonl").write_text("".join(LINE.format(number) for number in range(count)))
    path = folder / "m.jsonl"
    manifest = check_manifest(path, read_manifest(path, None), AudioConfig())
    return SpeechConfig(world=WorldConfig(), split=SplitConfig(name="annotated", size=0, manifest=manifest))


def ended(process: psutil.Process) -> bool:
    """Return whether a process has ended; it may do so at any time, and wait as a zombie for its new parent."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_one_process_works_here() -> None:
    assert list(in_order(lambda x: (x, os.getpid()), [3, 1], 1)) == [(3, os.getpid()), (1, os.getpid())]


@pytest.mark.long
def test_two_processes_write_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recordings(tmp_path, 45)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(features, "usable_cpus", lambda: 2)
    reported: list[int] = []
    try:
        for name, many in (("one", 46), ("two", 45)):
            monkeypatch.setattr(features, "MANY", many)
            (tmp_path / name).mkdir()
            build(config, {}, tmp_path / name, Context(report=lambda count, total: reported.append(count)))
    finally:
        torch.set_num_threads(threads)
    for file in ("mel.npy", "offsets.npy", "manifest.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert reported == 2 * [10, 20, 30, 40, 45]
    assert len(np.load(tmp_path / "two/offsets.npy")) == 46
    monkeypatch.setattr(features, "require_unchanged", lambda *arguments: None)
    (tmp_path / "44.wav").write_bytes(b"no audio")
    with pytest.raises(ManifestError, match=r"44\.wav: not readable as audio"):
        build(config, {}, tmp_path / "two", Context())


@pytest.mark.long
@pytest.mark.parametrize("early", [True, False], ids=["before they work", "while they work"])
def test_the_processes_end_with_their_parent(early: bool) -> None:
    code = (
        "import time\nfrom rrpo.corpus.processes import in_order\n"
        "if __name__ == '__main__':\n"
        "    found = in_order(abs, range(-100, 0), 2)\n    print(next(found), flush=True)\n    time.sleep(60)\n"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None
    parent = psutil.Process(script.pid)
    if early:
        while len(children := parent.children(recursive=True)) < 3:  # two, and multiprocessing's resource tracker
            time.sleep(0.01)
    else:
        assert script.stdout.readline().strip() == "100"
        children = parent.children(recursive=True)
    script.send_signal(signal.SIGKILL)
    script.wait()
    assert len(children) >= 3
    deadline = time.monotonic() + 60
    while not all(map(ended, children)):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.1)
