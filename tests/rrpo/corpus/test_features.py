"""The speech stage and `SpeechSet`."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from rrpo.audio import log_mel
from rrpo.corpus import features
from rrpo.corpus.config import EMOTIONS, AudioConfig, SpeechConfig, SplitConfig, WorldConfig
from rrpo.corpus.features import SpeechSet, build, wave_of
from rrpo.pipeline.stages import Context

CONFIG = SpeechConfig(world=WorldConfig(), split=SplitConfig(name="sft", size=7, artefact_rate=0.5))


def test_another_process_writes_the_same_bytes(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    code = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from rrpo.corpus.config import SpeechConfig, SplitConfig, WorldConfig
from rrpo.corpus.features import build
from rrpo.pipeline.stages import Context
split = SplitConfig(name="sft", size=7, artefact_rate=0.5)
build(SpeechConfig(world=WorldConfig(), split=split), {}, Path(sys.argv[1]), Context())
"""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", code, str(folders[0])])
    try:
        build(CONFIG, {}, folders[1], Context())
        assert process.wait() == 0
    finally:
        torch.set_num_threads(threads)
    for name in ("mel.npy", "offsets.npy", "manifest.jsonl", "config.json"):
        first, second = (hashlib.sha256((folder / name).read_bytes()).digest() for folder in folders)
        assert first == second, name


def test_a_set_gives_padded_batches_lengths_and_labels(tmp_path):
    calls = []
    build(CONFIG, {}, tmp_path, Context(report=lambda done, total: calls.append((done, total))))
    speech = SpeechSet.load(tmp_path)
    assert calls[-1] == (7, 7)
    assert len(speech) == len(speech.utterances) == len(speech.frames) == 7
    F, lengths = speech.batch([3, 0, 3])
    assert F.shape == (3, int(speech.frames[[3, 0]].max()), 80)
    assert F.dtype == torch.float32
    assert lengths.tolist() == speech.frames[[3, 0, 3]].tolist()
    for row, index in enumerate((3, 0)):
        assert torch.equal(F[row, : lengths[row]], speech.mel(index))
        assert torch.all(F[row, lengths[row] :] == torch.tensor(math.log(1e-5)))
    wave = wave_of(speech.utterances[6], 16000)
    expected, _ = log_mel(wave[None], torch.tensor([len(wave)]), speech.audio)
    torch.testing.assert_close(speech.mel(6), expected[0], atol=0.01, rtol=0)  # float16 on disk
    assert [EMOTIONS[k] for k in speech.labels(EMOTIONS)] == [u.emotion for u in speech.utterances]


def test_an_empty_split_is_an_empty_set(tmp_path):
    build(SpeechConfig(world=WorldConfig(), split=SplitConfig(name="none", size=0)), {}, tmp_path, Context())
    assert len(SpeechSet.load(tmp_path)) == 0


def test_frames_are_written_as_numpy_writes_them(tmp_path: Path) -> None:
    """Byte for byte, for no utterances, few, and more rows than the digits of the initial header suggest."""
    rng = np.random.default_rng(0)
    for lengths in ([], [3, 1, 2], [40_000, 70_000]):
        mels = [rng.normal(size=(length, 80)).astype(np.float16) for length in lengths]
        features.write_speech(tmp_path, AudioConfig(), ("sad",), [], iter(mels))
        np.save(tmp_path / "expected.npy", np.concatenate([np.zeros((0, 80), np.float16), *mels]))
        assert (tmp_path / "mel.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
        assert np.load(tmp_path / "offsets.npy").tolist() == [0, *np.cumsum(lengths)]
