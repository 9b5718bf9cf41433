"""Stage ``mine``: label a policy's samples that fooled its reward model and add them to the annotated utterances.

A sample fools the reward model if the reward model predicts the target and the ``val`` judge predicts another emotion. That
emotion becomes its label: the judge replaces raters. The ``test`` judges are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rrpo.config import MineConfig
from rrpo.corpus.features import SpeechSet, write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges.samples import FILE, Samples, decoded
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context


def build(config: MineConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write the files of a ``speech`` stage: the utterances of ``inputs["speech"]`` and the mined samples.

    Also reads ``samples``, whose last checkpoint contains the answers to ``prompts``, and ``codec``.
    """
    speech = SpeechSet.load(inputs["speech"])
    prompts = load_prompts(inputs["prompts"])
    samples = Samples.load(inputs["samples"], len(prompts))
    last = samples.at(samples.steps[-1])
    fooling = last.select(chosen(last, prompts, speech.emotions, config.limit))
    mels = [speech.mel(i).half().numpy() for i in range(len(speech))]
    if len(fooling.step):
        F, lengths = decoded(fooling, Codec.load(inputs["codec"], context.device), prompts)
        mels += [F[i, :length].half().cpu().numpy() for i, length in enumerate(lengths.tolist())]
    language = speech.utterances[0].language
    labelled = zip(fooling.of(prompts), fooling.val_argmax, strict=True)
    mined = [
        utterance(f"mined-{index}", prompt, speech.emotions[label], language)
        for index, (prompt, label) in enumerate(labelled, len(speech))
    ]
    write_speech(out, speech.audio, speech.emotions, [*speech.utterances, *mined], mels)


def chosen(samples: Samples, prompts: Sequence[Prompt], emotions: Sequence[str], limit: int) -> np.ndarray:
    """Return the rows of at most ``limit`` samples that fool the reward model, most confident first; skip samples without
    tokens."""
    target = np.array([emotions.index(prompt.emotion) for prompt in samples.of(prompts)])
    fooled = (samples.proxy_argmax == target) & (samples.val_argmax != target) & (samples.lengths > 0)
    order = np.argsort(-samples.proxy_logprob, kind="stable")
    return order[fooled[order]][:limit]


def utterance(name: str, prompt: Prompt, emotion: str, language: str) -> Utterance:
    """Return a sample as an utterance labeled with the emotion that the judge predicted."""
    return Utterance(
        id=name,
        text=prompt.text,
        phones=prompt.phones,
        speaker=prompt.speaker,
        language=language,
        emotion=emotion,
        true_emotion=emotion,
        split="mined",
        audio=FILE,
    )
