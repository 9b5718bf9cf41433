"""Benchmark of the parts of judging samples: ``python tests/benchmarks/judging.py --runs-dir runs``.

Uses samples of a profile's speech, resynthesized by its codec; both come with the package or from the runs folder, or are built.
Prints the CPU seconds of this process for each part (medians over several interleaved rounds), the time of the library code that
the part replaced (torchaudio's Griffin-Lim from zero phase with 12 and 3 iterations; its cepstra and deltas), and the vocoders'
mean error in log-mel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import edit_distance

import rrpo.torch_shim  # noqa: F401  (before torchaudio)

import torchaudio.functional as taf  # isort: skip
import torchaudio.transforms as tat  # isort: skip

from rrpo.audio import log_mel
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.experiment import world
from rrpo.judges import phonetics
from rrpo.judges.artefacts import detect
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.emotion import CHUNK, GRIFFIN_LIM_STEPS, Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.wave_features import wave_features
from rrpo.masking import valid_mask
from rrpo.models.codec import Codec
from rrpo.models.vocoder import linear_power, vocode
from rrpo.pipeline.stages import Context, materialise
from rrpo.profiles import PROFILES


def library_vocode(F: Tensor, lengths: Tensor, audio: AudioConfig) -> Tensor:
    """Run torchaudio's fast Griffin-Lim from zero phase, on eight utterances of similar length at a time."""
    waves = F.new_zeros(len(F), (F.shape[1] - 1) * audio.hop)
    silent = -(-audio.n_fft // audio.hop)
    for rows in lengths.argsort(stable=True).split(8):
        T = int(lengths[rows].max())
        power = (F[rows, :T].exp() - audio.floor).clamp_min(0) * valid_mask(lengths[rows], T)[..., None]
        linear = linear_power(power.flatten(0, 1), audio).reshape(len(rows), T, -1)
        linear = torch.nn.functional.pad(linear, (0, 0, 0, silent)).transpose(1, 2).sqrt()
        shape = (torch.hann_window(audio.n_fft), audio.n_fft, audio.hop, audio.n_fft)
        wave = taf.griffinlim(linear, *shape, 1.0, audio.griffin_lim_steps, 0.99, None, False)
        samples = (T - 1) * audio.hop
        waves[rows, :samples] = wave[:, :samples] * valid_mask((lengths[rows] - 1) * audio.hop, samples)
    return waves


def library_features(wave: Tensor, rate: int) -> None:
    """Compute cepstra, deltas and the magnitudes of a long window with torchaudio and torch."""
    mel = {"n_fft": 512, "win_length": rate // 40, "hop_length": rate // 50, "n_mels": 40, "pad_mode": "constant"}
    cepstra = tat.MFCC(rate, n_mfcc=20, log_mels=True, melkwargs=mel)(wave)
    taf.compute_deltas(cepstra)
    torch.stft(wave, 1024, rate // 50, window=torch.hann_window(1024), pad_mode="constant", return_complex=True).abs()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--profile", default="embedded", choices=PROFILES)
    parser.add_argument("--speech", default="judge_heldout", help="name of the split")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    profile = PROFILES[options.profile]
    made = (world.world_speech(profile, options.speech), world.codec(profile))
    speech_folder, codec_folder = (materialise(stage, options.runs_dir, Context()) for stage in made)
    speech, codec = SpeechSet.load(speech_folder), Codec.load(codec_folder)
    audio = replace(speech.audio, griffin_lim_steps=AudioConfig().griffin_lim_steps)
    rows = np.arange(min(options.samples, len(speech)))
    utterances = [speech.utterances[i] for i in rows]
    speaker = codec.speaker_index([utterance.speaker for utterance in utterances], average=True)
    F, lengths = codec.resynthesise(*speech.batch(rows), speaker)
    samples = (lengths - 1) * audio.hop
    by_length = lengths.argsort(stable=True)
    judged, twelve, three = (replace(audio, griffin_lim_steps=steps) for steps in (GRIFFIN_LIM_STEPS, 12, 3))
    wave = vocode(F, lengths, audio)
    cut = [each[:size].numpy() for each, size in zip(wave, samples.tolist(), strict=True)]
    test = Judge(JudgeConfig(architecture="stats_tdnn"), tuple(speech.emotions), audio).eval()
    val = Judge(JudgeConfig(), tuple(speech.emotions), audio).eval()
    phones = tuple(sorted({phone for utterance in utterances for phone in utterance.phones}))
    recogniser = Recogniser(RecogniserConfig(), phones, audio.n_mels).eval()
    pairs = [(list(utterance.phones), ["x", *utterance.phones[:-2]]) for utterance in utterances]

    def features() -> None:
        for part in by_length.split(CHUNK):
            wave_features(wave[part, : int(samples[part].max())], samples[part], audio.sample_rate)

    parts: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
        f"vocoder, {audio.griffin_lim_steps} iterations": (
            lambda: vocode(F, lengths, audio),
            lambda: library_vocode(F, lengths, twelve),
        ),
        f"vocoder of the test judge, {GRIFFIN_LIM_STEPS} iteration(s)": (
            lambda: vocode(F, lengths, judged),
            lambda: library_vocode(F, lengths, three),
        ),
        "features of the test judge": (
            features,
            lambda: [library_features(wave[k : k + 64], audio.sample_rate) for k in range(0, len(rows), 64)],
        ),
        "test judge as a whole": (lambda: test.log_probs(F, lengths), None),
        "val judge": (lambda: val.log_probs(F, lengths), None),
        "transcription": (lambda: recogniser.transcribe(F, lengths), None),
        "edit distance": (lambda: [edit_distance(*pair) for pair in pairs], None),
        "artefact detectors": (lambda: detect(F, lengths, audio), None),
        **(
            {"Praat's measures": (lambda: [phonetics.measure(each, audio.sample_rate) for each in cut], None)}
            if phonetics.available()
            else {}
        ),
    }
    print(
        f"{len(rows)} samples of {lengths.float().mean():.0f} frames; CPU seconds for 900 samples, the library's, and the ratio"
    )
    for name, variants in parts.items():
        times: list[list[float]] = [[] for _ in variants]
        for _ in range(options.rounds):
            for found, variant in zip(times, variants, strict=True):
                if variant is not None:
                    start = time.process_time()
                    variant()
                    found.append((time.process_time() - start) * 900 / len(rows))
        now, before = (statistics.median(found) if found else None for found in times)
        print(f"{name:48s}{now:8.2f}" + (f"{before:8.2f}{before / now:8.1f} x" if before and now else ""))

    valid = valid_mask(lengths, F.shape[1])
    for name, vocoded in {
        "ours": wave,
        "ours, test judge": vocode(F, lengths, judged),
        "12 from zero phase": library_vocode(F, lengths, twelve),
        "3 from zero phase": library_vocode(F, lengths, three),
    }.items():
        again, _ = log_mel(vocoded, samples, audio)
        print(f"error in log-mel, {name:30s}{(again - F)[valid].abs().mean():8.3f}")


if __name__ == "__main__":
    main()
