"""The stage ``voices``: emotional speech by a second synthesizer, unseen by all models, in the format of a ``speech`` stage.

Each neutral reading (`rrpo.corpus.neural`) is modified (`rrpo.corpus.prosody`) to cues of every emotion, drawn from the world's
model of emotion. The speech is English and its emotions are simulated; only the synthesizer differs from the world's English
speakers. Waves are stored beside the manifest for listening.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
import torch

from rrpo.audio import log_mel, resampled
from rrpo.corpus import espeak, neural, prosody
from rrpo.corpus.config import VoicesConfig
from rrpo.corpus.draws import generator, key
from rrpo.corpus.emotions import draw_cues
from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.texts import draw_texts
from rrpo.pipeline.stages import Context

CUES = "cues.npy"
"""File of the cues of all utterances ``[n, len(rrpo.corpus.emotions.CUES)]``, for the ideal observer."""


def build(config: VoicesConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write the files of a ``speech`` stage, `CUES`, and ``audio/<id>.wav``. Speakers are named ``<engine>-<speaker>``."""
    world, rate = config.world, config.world.audio.sample_rate
    texts = draw_texts(config.readings, config.texts, neural.LANGUAGE, world.seed, "voices")
    phones = espeak.phones(texts, neural.LANGUAGE)
    (out / "audio").mkdir()
    utterances, cues, mels = [], [], []
    engine = config.engine
    for index, text in enumerate(texts):
        speaker = neural.ENGINES[engine][index % len(neural.ENGINES[engine])]
        reading = resampled(neural.speak(text, engine, speaker), neural.RATES[engine], rate)
        labels = np.arange(len(world.emotions))
        keys = ("voices", engine, index)
        languages = [neural.LANGUAGE] * len(labels)
        class_cues, _ = draw_cues(world.emotions, labels, languages, world.cue_spread, generator(world.seed, *keys))
        for label, z in zip(labels, class_cues, strict=True):
            name = f"{engine}-{index:03d}-{world.emotions[label]}"
            noise = np.random.default_rng(key(world.seed, *keys, int(label)))
            wave = prosody.shift_cues(reading, rate, tuple(map(float, z)), noise)
            soundfile.write(out / "audio" / f"{name}.wav", wave, rate, subtype="PCM_16")
            F, frames = log_mel(torch.from_numpy(wave)[None], torch.tensor([len(wave)]), world.audio)
            mels.append(F[0, : int(frames[0])].half().numpy())
            cues.append(z)
            utterances.append(
                Utterance(
                    id=name,
                    text=text,
                    phones=phones[index],
                    speaker=f"{engine}-{speaker}",
                    language=neural.LANGUAGE,
                    emotion=world.emotions[label],
                    true_emotion=world.emotions[label],
                    split="voices",
                    audio=f"audio/{name}.wav",
                )
            )
        context.report(index + 1, len(texts))
    write_speech(out, world.audio, world.emotions, utterances, mels)
    np.save(out / CUES, np.array(cues))
