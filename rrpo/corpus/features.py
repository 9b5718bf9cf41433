"""The stage ``speech``, which writes the utterances of a split and their log-mel frames, and `SpeechSet`, which reads them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from rrpo.audio import AudioError, load_wave, log_mel
from rrpo.corpus.config import AudioConfig, SpeechConfig
from rrpo.corpus.intake import require_unchanged
from rrpo.corpus.manifest import ManifestError, Utterance, read_manifest, write_manifest
from rrpo.corpus.processes import MANY, in_order, usable_cpus
from rrpo.corpus.render import render
from rrpo.corpus.splits import classes, draw_split
from rrpo.pipeline.stages import Context

BATCH = 10
"""Utterances analyzed together, and per progress report. Larger batches exceed the CPU caches (50: twice as slow)."""


def wave_of(utterance: Utterance, sample_rate: int) -> torch.Tensor:
    """Render or load the wave ``[S]`` of ``utterance``. Raises `ManifestError` if its file cannot be used."""
    if utterance.spec is not None:
        return torch.from_numpy(render(utterance.spec, sample_rate))
    try:
        return load_wave(str(utterance.audio), sample_rate)
    except AudioError as error:
        raise ManifestError(f"utterance {utterance.id!r} of split {utterance.split!r}: {error}") from error


def build(config: SpeechConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write ``manifest.jsonl``, ``mel.npy`` (float16, all frames ``[sum T, M]``), ``offsets.npy`` ``[n + 1]`` and
    ``config.json``."""
    audio = config.world.audio
    utterances = draw_split(config.world, config.split)
    if config.split.manifest is not None:
        require_unchanged(config.split.manifest, utterances, audio)
    batches = [utterances[start : start + BATCH] for start in range(0, len(utterances), BATCH)]
    many = config.split.manifest is not None and len(utterances) >= MANY

    def mels() -> Iterator[np.ndarray]:
        done = 0
        for frames in in_order(partial(frames_of, audio=audio), batches, usable_cpus() if many else 1):
            yield from frames
            done += len(frames)
            context.report(done, len(utterances))

    write_speech(out, audio, classes(config.world, config.split), utterances, mels())


def frames_of(utterances: Sequence[Utterance], audio: AudioConfig) -> list[np.ndarray]:
    """Return the log-mel frames of each utterance, float16 ``[T, M]``."""
    waves = [wave_of(utterance, audio.sample_rate) for utterance in utterances]
    lengths = torch.tensor([len(wave) for wave in waves])
    mel, frames = log_mel(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths, audio)
    return [mel[i, : frames[i]].half().numpy() for i in range(len(waves))]


def write_speech(
    out: Path, audio: AudioConfig, emotions: Sequence[str], utterances: Sequence[Utterance], mels: Iterable[np.ndarray]
) -> None:
    """Write the files that `SpeechSet.load` reads. ``mels``, float16 ``[T, M]`` per utterance, are written as they are
    produced."""
    lengths = [0]
    with (out / "mel.npy").open("wb") as file:
        _write_header(file, (0, audio.n_mels))
        for mel in mels:
            file.write(mel.tobytes())
            lengths.append(len(mel))
        file.seek(0)
        _write_header(file, (sum(lengths), audio.n_mels))
    np.save(out / "offsets.npy", np.cumsum(lengths))
    write_manifest(out / "manifest.jsonl", utterances)
    description = {"audio": dataclasses.asdict(audio), "emotions": tuple(emotions)}
    (out / "config.json").write_text(json.dumps(description, indent=1))


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """Write the header of a float16 npy file. numpy pads it, so its size does not depend on the number of rows."""
    description = np.lib.format.dtype_to_descr(np.dtype(np.float16))
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})


@dataclass(frozen=True)
class SpeechSet:
    """The utterances of a split and their log-mel frames F."""

    utterances: tuple[Utterance, ...]
    audio: AudioConfig
    emotions: tuple[str, ...]
    """Classes of the split, in the order of the class index."""
    _mel: np.ndarray
    _offsets: np.ndarray

    @classmethod
    def load(cls, path: Path) -> SpeechSet:
        """Load what `build` wrote; the frames are memory-mapped."""
        description = json.loads((path / "config.json").read_text())
        emotions = tuple(description["emotions"])
        manifest = path / "manifest.jsonl"
        utterances = read_manifest(manifest, emotions) if manifest.stat().st_size else []
        mel = np.load(path / "mel.npy", mmap_mode="r")
        return cls(tuple(utterances), AudioConfig(**description["audio"]), emotions, mel, np.load(path / "offsets.npy"))

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def frames(self) -> np.ndarray:
        """Number of frames of each utterance, ``[n]``."""
        return np.diff(self._offsets)

    @property
    def floor(self) -> float:
        """Value whose logarithm represents silence in F."""
        return self.audio.floor

    def mel(self, index: int) -> torch.Tensor:
        """Return F ``[T, M]`` of one utterance, float32."""
        return torch.from_numpy(self._mel[self._offsets[index] : self._offsets[index + 1]].astype(np.float32))

    def batch(
        self, indices: Sequence[int] | np.ndarray, device: str | torch.device = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return F ``[B, T, M]`` padded with ``log(floor)``, and lengths ``[B]``, on ``device``."""
        mels = [self.mel(int(index)) for index in indices]
        padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True, padding_value=float(np.log(self.floor)))
        return padded.to(device), torch.tensor([len(mel) for mel in mels], device=device)

    def labels(self, emotions: Sequence[str]) -> torch.Tensor:
        """Return the index ``[n]`` of each utterance's label in ``emotions``."""
        index = {emotion: k for k, emotion in enumerate(emotions)}
        return torch.tensor([index[utterance.emotion] for utterance in self.utterances])


class WaveSet(SpeechSet):
    """A `SpeechSet` of waveforms: each frame of F has `AudioConfig.hop` samples; the last frame is padded with silence."""

    @property
    def floor(self) -> float:
        """1, because silence is 0 in a waveform."""
        return 1.0

    def mel(self, index: int) -> torch.Tensor:
        """Render or decode one utterance and return F ``[T, hop]``."""
        wave = wave_of(self.utterances[index], self.audio.sample_rate).float()
        return torch.nn.functional.pad(wave, (0, -len(wave) % self.audio.hop)).view(-1, self.audio.hop)
