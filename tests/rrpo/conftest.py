"""A toy world on disk: speech whose emotion is its loud mel band, and an untrained codec."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rrpo.config import CodecConfig
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.models.codec import Codec

TOY_EMOTIONS = ("angry", "happy", "sad")
TOY_AUDIO = AudioConfig(n_mels=8)
SPEAKERS = ("anna", "ben")

torch.set_num_threads(1)  # as a worker does; tiny tensors are slower on more


def _write_speech(folder: Path, size: int, seed: int, raters: int, emotions: tuple[str, ...]) -> Path:
    """Write the files of a ``speech`` stage, without audio. Raters disagree in every third utterance."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    utterances, mels = [], []
    for i in range(size):
        k = i % 3
        votes = tuple(emotions[k if rater or i % 9 >= 3 else (k + 1) % 3] for rater in reversed(range(raters)))
        mel = rng.normal(-3.0, 1.0, (int(rng.integers(9, 24)), TOY_AUDIO.n_mels))
        mel[:, 2 * k : 2 * k + 2] += 2.0
        mels.append(mel.astype(np.float16))
        utterances.append(
            Utterance(
                id=str(i),
                text="t",
                phones=("t",),
                speaker=SPEAKERS[i % 2],
                language="en",
                emotion=emotions[k],
                true_emotion=emotions[k],
                votes=votes or None,
                split="toy",
                audio="none.wav",
            )
        )
    write_speech(folder, TOY_AUDIO, emotions, utterances, mels)
    return folder


@pytest.fixture(scope="session")
def toy_speech(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``toy_speech(size, seed=0, raters=0, emotions=TOY_EMOTIONS)`` -> the folder of a ``speech`` stage; class = index mod 3."""
    root = tmp_path_factory.mktemp("speech")

    def make(size: int, seed: int = 0, raters: int = 0, emotions: tuple[str, ...] = TOY_EMOTIONS) -> Path:
        folder = root / "-".join(map(str, (size, seed, raters, *emotions)))
        return folder if folder.exists() else _write_speech(folder, size, seed, raters, emotions)

    return make


@pytest.fixture(scope="session")
def toy_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained codec with the toy world's speakers."""
    folder = tmp_path_factory.mktemp("codec")
    torch.manual_seed(0)
    Codec(CodecConfig(levels=(5, 5), dim=16), TOY_AUDIO, SPEAKERS).save(folder)
    return folder


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a capacity of 1 MiB: a small tmpfs, if the process may mount one."""
    folder = tmp_path / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
