"""Which predictor of naturalness may be used: the first that tells clean from clicked re-synthesis, on fixed prompts; or none.

That a predictor is deaf to clicks is a fault of the predictor, not of the world: its line says so and counts neither way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from rrpo.audio import vocode
from rrpo.codec import Codec
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.prompts import load_prompts
from rrpo.data import Frames
from rrpo.judges import naturalness
from rrpo.judges.config import YardstickConfig
from rrpo.judges.score import PEAK, Samples, decoded
from rrpo.stages import Context
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import everything, planted, resynthesised
from rrpo.validation.lines import NOT_INSTALLED, Line, mean

SECTION = "Naturalness"
LEAST = YardstickConfig.separation
"""What the diagnosis of samples asks too."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> list[Line]:
    """The section *Naturalness*: one vocoder for all; never called N-MOS."""
    title = "clean re-synthesis above clicked"
    if not naturalness.available():
        return [Line(section=SECTION, name=title, at_least=LEAST, note=NOT_INSTALLED)]
    codec = Codec.load(inputs["codec"], context.device)
    clean = SpeechSet.load(inputs["clean"])
    chosen = clean.utterances[: config.card.naturalness]
    speakers = codec.speaker_index([u.speaker for u in chosen])
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"] / "samples.npz", len(prompts))
    F, lengths = decoded(samples, 0, codec, prompts)
    n = min(config.card.naturalness, len(prompts))
    policy = Frames((f[:size] for f, size in zip(F[:n], lengths[:n].tolist(), strict=True)), codec.audio.floor)
    waves = {"SFT policy": spoken(policy, codec)}
    for name, kind in (("clean", None), ("clicked", "click")):
        frames = planted(chosen, [kind] * len(chosen), clean.audio, codec.mean.device)
        waves[name] = spoken(resynthesised(frames, speakers, codec), codec)
    lines = []
    for done, name in enumerate(naturalness.MEASURES):
        last = name == naturalness.MEASURES[-1]
        predictor: Callable[[np.ndarray], float] = getattr(naturalness, name)
        heard = {what: np.array([predictor(wave) for wave in found]) for what, found in waves.items()}
        used = mean(heard["clean"] - heard["clicked"], config.card.resamples)
        good = used["value"] >= LEAST
        then = "no naturalness is reported" if last else f"next: {naturalness.MEASURES[done + 1]}"
        note = "used" if good else f"not used, {LEAST} asked; {then}"
        lines.append(
            Line(section=SECTION, name=f"{name}: {title}", at_least=LEAST if good else None, note=note, **used)
        )
        context.report(done + 1, len(naturalness.MEASURES))
        if good:
            for what in ("clean", "SFT policy"):
                shown = "codec re-synthesis" if what == "clean" else what
                lines.append(Line(section=SECTION, name=f"{name}: {shown}", **mean(heard[what], config.card.resamples)))
            break
    return lines


@torch.no_grad()
def spoken(frames: Frames, codec: Codec) -> list[np.ndarray]:
    """Waves of ``frames``, turned down where they would clip."""
    F, lengths = everything(frames)
    waves = vocode(F, lengths, codec.audio).cpu().numpy()
    cut = [wave[: (n - 1) * codec.audio.hop] for wave, n in zip(waves, lengths.tolist(), strict=True)]
    return [wave * min(1.0, PEAK / max(float(np.abs(wave).max()), 1e-9)) for wave in cut]
