"""Decode speech tokens to audio with an installed CosyVoice: flow matching and vocoder of the user's release.

The decoder gets the tokens of a sample as the source of a voice conversion, and a recording of the target emotion as acoustic
prompt; with a neutral prompt it would remove the emotion. The package ``cosyvoice`` is not on PyPI: clone its repository.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from rrpo.corpus.features import wave_of
from rrpo.corpus.manifest import Utterance, write_manifest
from rrpo.cosyvoice.layout import LONGEST, reading
from rrpo.errors import InputError, writable
from rrpo.identity import content_hash, files_digest
from rrpo.packages import present

PROMPT_RATE = 16000
"""Sample rate at which CosyVoice reads acoustic prompts, Hz."""
WEIGHTS = ("flow.pt", "hift.pt")
"""Files of a release with the weights of its decoder."""
MANIFEST = "manifest.jsonl"
"""Manifest of the decoded samples, labelled by their target emotions."""


class CosyVoiceDecoder:
    """The decoder of an installed CosyVoice."""

    def __init__(self, release: Path) -> None:
        """Load the decoder of a release (``flow.pt``, ``hift.pt`` and others).

        Raises:
            InputError: The package is not installed, or it cannot load the folder.
        """
        if not present("cosyvoice"):
            raise InputError(
                "decoding to audio needs the package cosyvoice",
                got="it cannot be imported",
                fix="clone https://github.com/FunAudioLLM/CosyVoice with its submodules, install its requirements, and put it "
                "and its third_party/Matcha-TTS on PYTHONPATH",
            )
        from cosyvoice.cli.cosyvoice import CosyVoice2

        with reading(release, "a release by CosyVoice", "give a complete folder of CosyVoice2-0.5B"):
            self._voice: Any = CosyVoice2(str(release))
        self.digest = files_digest(release, [path for path in map(release.joinpath, WEIGHTS) if path.is_file()])
        """Hash of the decoder's weights."""
        self.rate = int(self._voice.sample_rate)
        self._prompt = cache(self._read)

    def __call__(self, tokens: Sequence[int], prompt: Utterance) -> np.ndarray:
        """Return the wave ``[S]`` of the tokens, at ``rate`` Hz, in the voice of the recording ``prompt``."""
        model = self._voice.model
        newer = "source_speech_token" in inspect.signature(model.tts).parameters
        convert = model.tts if newer else model.vc
        source = torch.tensor([list(tokens)], dtype=torch.int32)
        parts = convert(**self._prompt(prompt), source_speech_token=source, stream=False, speed=1.0)
        return np.concatenate([part["tts_speech"].flatten().cpu().numpy() for part in parts])

    def _read(self, prompt: Utterance) -> dict[str, Tensor]:
        """Return what the decoder needs of an acoustic prompt: its tokens, frames and speaker vector."""
        frontend = self._voice.frontend.frontend_vc
        # Newer releases take a path, older ones a wave [1, S] at PROMPT_RATE.
        parameter = list(inspect.signature(frontend).parameters)[1]
        source = str(prompt.audio) if parameter == "prompt_wav" else wave_of(prompt, PROMPT_RATE)[None]
        inputs = frontend(source, source, self.rate)
        names = ("flow_prompt_speech_token", "prompt_speech_feat", "flow_embedding")
        return {name: inputs[name] for name in names}


def decode(
    decoder: CosyVoiceDecoder,
    samples: Mapping[str, Sequence[int]],
    recorded: Sequence[Utterance],
    out: Path,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Utterance]:
    """Decode samples and write them as WAV files with a manifest; those of the same decoder that exist already are kept.

    Args:
        decoder: The decoder.
        samples: Id of an utterance of ``recorded`` -> the tokens of a sample with its text and emotion.
        recorded: The recordings, which also serve as acoustic prompts.
        out: Folder to write.
        tell: Called with lines of progress.

    Raises:
        InputError: An id is unknown, no recording can be a prompt or be read, or a file cannot be written.
    """
    by_id = {utterance.id: utterance for utterance in recorded}
    if unknown := [name for name in samples if name not in by_id]:
        raise InputError(
            "samples of utterances that the manifest does not have",
            got=", ".join(unknown[:5]),
            fix="give the manifest from which the tokens were extracted",
        )
    writable(out, what="the decoded samples cannot be written", fix="make the folder writable")
    decoded = []
    for done, (name, tokens) in enumerate(samples.items(), 1):
        utterance = by_id[name]
        prompt = acoustic_prompt(utterance, recorded)
        path = out / f"{content_hash([decoder.digest, name, list(tokens), str(prompt.audio)])[:16]}.wav"
        if not tokens:
            tell(f"{name}: left out, it has no tokens")
            continue
        if not path.is_file():
            wave, partial = decoder(tokens, prompt), path.with_suffix(".partial")
            try:
                soundfile.write(partial, wave, decoder.rate, format="WAV", subtype="PCM_16")
                partial.replace(path)
            except (OSError, soundfile.SoundFileError) as error:
                fix = "free space there, and give the command again; the samples that were decoded are kept"
                raise InputError("a decoded sample cannot be written", got=f"{path}: {error}", fix=fix) from error
        decoded.append(replace(utterance, audio=path.name, split="spoken", votes=None))
        if done % 10 == 0 or done == len(samples):
            tell(f"{done} of {len(samples)} samples decoded")
    write_manifest(out / MANIFEST, decoded)
    return decoded


def acoustic_prompt(utterance: Utterance, recorded: Sequence[Utterance]) -> Utterance:
    """Return the recording that is a sample's acoustic prompt: the same emotion, another text, and the same speaker if possible.

    The first by id is used that is not longer than CosyVoice's tokenizer accepts.

    Raises:
        InputError: No other text was recorded in this emotion.
    """
    candidates = [other for other in recorded if other.emotion == utterance.emotion and other.text != utterance.text]
    candidates.sort(key=lambda other: (other.speaker != utterance.speaker, other.id))
    usable = (other for other in candidates if duration(other) <= LONGEST)
    if (prompt := next(usable, None)) is None:
        got = f"no other text of at most {LONGEST:g} s in the emotion {utterance.emotion}"
        raise InputError("no acoustic prompt", got=got, fix="add recordings to the manifest")
    return prompt


@cache
def duration(utterance: Utterance) -> float:
    """Return the seconds of a recording; 0 for a rendered utterance, which is short, and a file that cannot be read, whose use
    then says why."""
    try:
        return 0.0 if utterance.audio is None else float(soundfile.info(utterance.audio).duration)
    except (OSError, soundfile.SoundFileError):
        return 0.0
