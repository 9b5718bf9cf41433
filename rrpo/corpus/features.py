"""The stage ``speech``: a split's utterances and their log-mel frames on disk, and the one class through which all
read them.
"""

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
from rrpo.corpus.manifest import ManifestError, Utterance, read_manifest, write_manifest
from rrpo.corpus.processes import MANY, in_order, usable_cpus
from rrpo.corpus.render import render
from rrpo.corpus.splits import classes, draw_split
from rrpo.pipeline.stages import Context

BATCH = 10
"""Utterances analysed together, and between two reports of progress: more leave the CPU's caches (50: twice as slow)."""


def wave_of(utterance: Utterance, sample_rate: int) -> torch.Tensor:
    """The wave ``[S]`` of ``utterance``, rendered or loaded. Raises `ManifestError` on a file that cannot be used."""
    if utterance.spec is not None:
        return torch.from_numpy(render(utterance.spec, sample_rate))
    try:
        return load_wave(str(utterance.audio), sample_rate)
    except AudioError as error:
        raise ManifestError(f"utterance {utterance.id!r} of split {utterance.split!r}: {error}") from error


def build(config: SpeechConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes ``manifest.jsonl``, ``mel.npy`` (float16, all frames ``[sum T, M]``), ``offsets.npy`` ``[n + 1]``,
    ``config.json``.
    """
    audio = config.world.audio
    utterances = draw_split(config.world, config.split)
    batches = [utterances[start : start + BATCH] for start in range(0, len(utterances), BATCH)]
    many = config.split.manifest is not None and len(utterances) >= MANY

    def mels() -> Iterator[np.ndarray]:
        done = 0
        for found in in_order(partial(frames_of, audio=audio), batches, usable_cpus() if many else 1):
            yield from found
            done += len(found)
            context.report(done, len(utterances))

    write_speech(out, audio, classes(config.world, config.split), utterances, mels())


def frames_of(utterances: Sequence[Utterance], audio: AudioConfig) -> list[np.ndarray]:
    """Log-mel frames of each utterance, float16 ``[T, M]``."""
    waves = [wave_of(utterance, audio.sample_rate) for utterance in utterances]
    lengths = torch.tensor([len(wave) for wave in waves])
    mel, frames = log_mel(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths, audio)
    return [mel[i, : frames[i]].half().numpy() for i in range(len(waves))]


def write_speech(
    out: Path, audio: AudioConfig, emotions: Sequence[str], utterances: Sequence[Utterance], mels: Iterable[np.ndarray]
) -> None:
    """What `SpeechSet.load` reads; ``mels`` are float16 ``[T, M]``, one an utterance, and go to disk as they come."""
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
    """The start of a float16 npy file; numpy pads it, so that it takes the same place whatever the number of rows."""
    description = np.lib.format.dtype_to_descr(np.dtype(np.float16))
    np.lib.format.write_array_header_1_0(file, {"descr": description, "fortran_order": False, "shape": shape})


@dataclass(frozen=True)
class SpeechSet:
    """A split as the rest of the package sees it: utterances and their log-mel frames F."""

    utterances: tuple[Utterance, ...]
    audio: AudioConfig
    emotions: tuple[str, ...]
    """Its classes, in the order of `labels`."""
    _mel: np.ndarray
    _offsets: np.ndarray

    @classmethod
    def load(cls, path: Path) -> SpeechSet:
        """Reads what `build` wrote; the frames are mapped, not copied."""
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
        """Number of frames ``[n]`` of each utterance."""
        return np.diff(self._offsets)

    @property
    def floor(self) -> float:
        """Its logarithm is silence."""
        return self.audio.floor

    def mel(self, index: int) -> torch.Tensor:
        """F ``[T, M]`` of one utterance, float32."""
        return torch.from_numpy(self._mel[self._offsets[index] : self._offsets[index + 1]].astype(np.float32))

    def batch(
        self, indices: Sequence[int] | np.ndarray, device: str | torch.device = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """F ``[B, T, M]`` padded with ``log(floor)``, and lengths ``[B]``, on ``device``."""
        mels = [self.mel(int(index)) for index in indices]
        padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True, padding_value=float(np.log(self.floor)))
        return padded.to(device), torch.tensor([len(mel) for mel in mels], device=device)

    def labels(self, emotions: Sequence[str]) -> torch.Tensor:
        """Class index ``[n]`` of each utterance's label among ``emotions``."""
        index = {emotion: k for k, emotion in enumerate(emotions)}
        return torch.tensor([index[utterance.emotion] for utterance in self.utterances])


class WaveSet(SpeechSet):
    """The same utterances as waveforms: F holds `AudioConfig.hop` samples a frame, the last frame ends in silence."""

    @property
    def floor(self) -> float:
        """Its logarithm, 0, is silence."""
        return 1.0

    def mel(self, index: int) -> torch.Tensor:
        """F ``[T, hop]`` of one utterance, rendered or decoded anew."""
        wave = wave_of(self.utterances[index], self.audio.sample_rate).float()
        return torch.nn.functional.pad(wave, (0, -len(wave) % self.audio.hop)).view(-1, self.audio.hop)
