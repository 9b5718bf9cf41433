"""Stage ``vocode``: some of a cell's stored samples as waves, shared by all optional listeners (`rrpo.judges.listeners`).

It vocodes samples of the middle and the last checkpoint; the SFT policy's only checkpoint is vocoded once per seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from rrpo.judges.config import VocodeConfig
from rrpo.judges.samples import decoded, load_samples
from rrpo.judges.spoken import peak_scale, waves_of
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context

TABLE = "waves.parquet"
"""One row per wave: ``step, prompt, target, speaker``, its ``size`` in `WAVES`, and its stored ``scale``."""
WAVES = "waves.flac"
"""The waves, concatenated, 16 bit."""


@dataclass(frozen=True)
class Vocoded:
    """Waves of samples."""

    table: pd.DataFrame
    """``step, prompt, target, speaker`` of each wave."""
    waves: list[np.ndarray]
    """``[S]`` each, at their original level."""
    rate: int
    """Hz."""

    @classmethod
    def load(cls, folder: Path) -> Vocoded:
        """Load the waves written by `build`."""
        table = pd.read_parquet(folder / TABLE)
        samples, rate = soundfile.read(folder / WAVES, dtype="float32")
        waves = np.split(samples, np.cumsum(table["size"])[:-1])
        scaled = [wave / scale for wave, scale in zip(waves, table["scale"], strict=True)]
        return cls(table[["step", "prompt", "target", "speaker"]], scaled, rate)


def build(config: VocodeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``samples``, ``eval_prompts`` and ``codec``; write `TABLE` and `WAVES`."""
    samples, prompts = load_samples(inputs)
    middle, last = samples.steps[len(samples.steps) // 2], samples.steps[-1]
    samples = samples.select(np.isin(samples.step, (middle, last)) & (samples.prompt < config.prompts))
    codec = Codec.load(inputs["codec"], context.device)
    waves = waves_of(*decoded(samples, codec, prompts), codec.audio)
    scales = list(map(peak_scale, waves))
    sample_prompts = samples.of(prompts)
    pd.DataFrame(
        {
            "step": samples.step,
            "prompt": samples.prompt,
            "target": [prompt.emotion for prompt in sample_prompts],
            "speaker": [prompt.speaker for prompt in sample_prompts],
            "size": list(map(len, waves)),
            "scale": scales,
        }
    ).to_parquet(out / TABLE, index=False)
    concatenated = np.concatenate([wave * scale for wave, scale in zip(waves, scales, strict=True)])
    soundfile.write(out / WAVES, concatenated, codec.audio.sample_rate, subtype="PCM_16")
