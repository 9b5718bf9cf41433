"""References of the optional listeners, measured once per world on held-out speech, in one stage each.

``speakers``: the mean embedding of each of the policy's speakers on re-synthesized speech, so that codec and vocoder do not
count as a change of voice; and how well the encoder distinguishes the speakers, on other utterances. ``predictor``: a predictor
of naturalness is used only if it rates clean re-synthesis above clicked; the first such predictor in
`rrpo.judges.naturalness.MEASURES`, or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rrpo.audio import log_mel, resampled
from rrpo.corpus.artefacts import plant
from rrpo.corpus.draws import generator
from rrpo.corpus.features import SpeechSet, wave_of
from rrpo.corpus.manifest import Utterance
from rrpo.judges import naturalness, speaker
from rrpo.judges.config import PredictorConfig, SpeakersConfig
from rrpo.judges.spoken import waves_of
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context

VOICES = "voices.npz"
"""``speakers [n]`` and their unit vectors ``voices [n, 256]``."""


def speakers(config: SpeakersConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``speech`` and ``codec``; write `VOICES` and ``scalars.json``.

    ``voice_same``, ``voice_other``: mean similarity to the own and to another voice; ``voice_nearest``: share of utterances
    whose own voice is the nearest.
    """
    codec = Codec.load(inputs["codec"], context.device)
    utterances = unmarked(SpeechSet.load(inputs["speech"]))[: config.utterances]
    rate = codec.audio.sample_rate
    waves = resynthesised([wave_of(utterance, rate).numpy() for utterance in utterances], utterances, codec)
    vectors = speaker.embeddings([resampled(wave, rate, speaker.RATE) for wave in waves])
    scalars = _voices([u.speaker for u in utterances], vectors, out / VOICES)
    (out / "scalars.json").write_text(json.dumps(scalars))


def predictor(config: PredictorConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Read ``speech`` and ``codec``; write ``scalars.json``.

    ``<predictor>_clean``, ``<predictor>_gap``; ``naturalness``: the predictor's name, or empty.
    """
    codec = Codec.load(inputs["codec"], context.device)
    rate = codec.audio.sample_rate
    clean, clicked = clean_and_clicked(inputs["speech"], config.planted, codec)
    scalars: dict[str, float | str] = {"naturalness": ""}
    for name in naturalness.MEASURES:
        clean_scores, clicked_scores = (naturalness.predicted(name, waves, rate) for waves in (clean, clicked))
        gap = float((clean_scores - clicked_scores).mean())
        scalars |= {f"{name}_clean": float(clean_scores.mean()), f"{name}_gap": gap}
        if gap >= config.separation:
            scalars["naturalness"] = name
            break
    (out / "scalars.json").write_text(json.dumps(scalars))


def clean_and_clicked(speech: Path, n: int, codec: Codec) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the first ``n`` utterances without an artefact, re-synthesized, without and with clicks added before."""
    utterances, rate = unmarked(SpeechSet.load(speech))[:n], codec.audio.sample_rate
    waves = [wave_of(utterance, rate).numpy() for utterance in utterances]
    return resynthesised(waves, utterances, codec), resynthesised(click(waves, rate), utterances, codec)


def unmarked(speech: SpeechSet) -> list[Utterance]:
    """Return the utterances without an artefact, in the set's order."""
    return [utterance for utterance in speech.utterances if utterance.artefact is None]


def click(waves: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
    """Return the waves with clicks added, the same on every call."""
    return [plant(wave.astype(float), "click", rate, generator("yardsticks", i)) for i, wave in enumerate(waves)]


@torch.no_grad()
def resynthesised(waves: Sequence[np.ndarray], utterances: Sequence[Utterance], codec: Codec) -> list[np.ndarray]:
    """Re-synthesize waves ``[S]`` with codec and vocoder."""
    tensors = [torch.from_numpy(np.asarray(wave, dtype=np.float32)) for wave in waves]
    lengths = torch.tensor([len(wave) for wave in tensors])
    F, frames = log_mel(torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths, codec.audio)
    speaker = codec.speaker_index([utterance.speaker for utterance in utterances], average=True)
    return waves_of(*codec.resynthesise(F.to(codec.device), frames.to(codec.device), speaker), codec.audio)


def _voices(names: Sequence[str], vectors: np.ndarray, path: Path) -> dict[str, float]:
    """Store the voices from the even utterances; measure on the odd ones of speakers that have a voice."""
    rows = np.arange(len(names))
    speakers = sorted({name for i, name in enumerate(names) if i % 2 == 0})
    labels = np.array([speakers.index(name) if name in speakers else -1 for name in names])
    voices = np.array([vectors[(labels == k) & (rows % 2 == 0)].mean(0) for k in range(len(speakers))])
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    np.savez(path, speakers=np.array(speakers), voices=voices)
    tested = (rows % 2 == 1) & (labels >= 0)
    similarity, targets = vectors[tested] @ voices.T, labels[tested]
    if not len(targets) or len(speakers) < 2:
        return {}
    same = np.arange(len(speakers)) == targets[:, None]
    return {
        "voice_same": float(similarity[same].mean()),
        "voice_other": float(similarity[~same].mean()),
        "voice_nearest": float((similarity.argmax(1) == targets).mean()),
    }
