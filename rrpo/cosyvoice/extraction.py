"""Speech tokens from audio by CosyVoice2's own tokeniser, ``speech_tokenizer_v2.onnx``, where the user has it.

Its interface, as upstream's extraction tool uses it: input 0 is Whisper's log-mel spectrogram ``[1, 128, T]`` at 16 kHz and 100
frames a second, input 1 its number of frames ``[1]`` (int32), output 0 the token ids at 25 a second. Audio of more than 30 s gets
no tokens. The package onnxruntime is optional (extra ``judges``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrpo.errors import InputError
from rrpo.packages import present

SAMPLE_RATE, N_FFT, HOP, MELS = 16000, 400, 160, 128
"""Of Whisper's spectrogram."""
LONGEST = 30.0
"""Seconds."""


@cache
def mel_filters() -> Tensor:
    """``[128, 201]``: Slaney's mel scale and area normalisation, 0 to 8000 Hz, as Whisper's (librosa's default)."""
    from torchaudio.functional import melscale_fbanks

    filters: Tensor = melscale_fbanks(
        N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, MELS, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return filters.T.contiguous()


def whisper_log_mel(audio: Tensor) -> Tensor:
    """``audio [S]`` at 16 kHz -> ``[128, S // 160]``: log10 mel power, at most 8 below its maximum, then ``(x + 4) / 4``."""
    spectrum = torch.stft(audio, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
    power = spectrum[:, :-1].abs().square()
    logs = (mel_filters() @ power).clamp(min=1e-10).log10()
    return (logs.clamp(min=float(logs.max()) - 8.0) + 4.0) / 4.0


class SpeechTokenizer:
    """``speech_tokenizer_v2.onnx``."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where the file is missing or takes other inputs, RuntimeError without onnxruntime."""
        if not present("onnxruntime"):
            raise InputError(
                "speech tokens are extracted by onnxruntime", got="it is not installed", fix="pip install onnxruntime"
            )
        if not path.is_file():
            raise InputError(
                f"{path} is not there", got="no such file", fix="give speech_tokenizer_v2.onnx of CosyVoice2-0.5B"
            )
        import onnxruntime

        self._session: Any = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
        inputs = self._session.get_inputs()
        if len(inputs) != 2:
            raise InputError(
                f"{path} is no speech tokeniser of CosyVoice2",
                got=f"{len(inputs)} inputs, not a spectrogram and its length",
                fix="give speech_tokenizer_v2.onnx",
            )
        self._names = [found.name for found in inputs]

    def __call__(self, audio: Tensor, rate: int) -> list[int]:
        """Token ids of ``audio [S]`` at ``rate`` Hz; none above 30 s, as upstream."""
        from torchaudio.functional import resample

        audio = resample(audio, rate, SAMPLE_RATE)
        if len(audio) > LONGEST * SAMPLE_RATE:
            return []
        mel = whisper_log_mel(audio)[None].numpy()
        given = {self._names[0]: mel, self._names[1]: np.array([mel.shape[2]], dtype=np.int32)}
        return [int(token) for token in self._session.run(None, given)[0].ravel()]


def extract(
    tokenizer: SpeechTokenizer, audio: Mapping[str, Path], tell: Callable[[str], None] = lambda line: None
) -> dict[str, list[int]]:
    """Token ids of audio files by name, channels averaged; a file that cannot be read is reported and skipped."""
    import soundfile

    found = {}
    for name, path in audio.items():
        try:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            tell(f"{path}: left out, {error}")
            continue
        found[name] = tokenizer(torch.from_numpy(samples.mean(1)), rate)
        if not found[name]:
            tell(f"{path}: no tokens, longer than {LONGEST:.0f} s")
    return found
