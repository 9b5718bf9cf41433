"""Detectors on planted and on clean signals."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rrpo.audio import log_mel
from rrpo.corpus.config import ARTEFACTS, AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.render import render
from rrpo.judges.artefacts import OTHERS, detect, planted_flags, repetition, scores

AUDIO = AudioConfig()
SILENCE = float(np.log(AUDIO.floor))


@pytest.fixture(scope="module")
def planted(stages: dict[str, Path]) -> dict[str, tuple[Tensor, Tensor]]:
    """``F, lengths`` of 18 held-out utterances, clean and with each artefact; none was used to set a threshold."""
    specs = [utterance.spec for utterance in SpeechSet.load(stages["heldout"]).utterances[:18]]

    @cache
    def frames(kind: str) -> tuple[Tensor, Tensor]:
        waves = [
            torch.from_numpy(render(replace(spec, artefact=None if kind == "clean" else kind), AUDIO.sample_rate))
            for spec in specs
            if spec is not None
        ]
        lengths = torch.tensor([len(wave) for wave in waves])
        return log_mel(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths, AUDIO)

    return {kind: frames(kind) for kind in ("clean", *ARTEFACTS)}


def test_clean_speech_raises_no_alarm(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    flags = detect(*planted["clean"], AUDIO)
    assert set(flags) == {*ARTEFACTS, *OTHERS}
    assert sum(int(flag.sum()) for flag in flags.values()) <= 2, "of 7 kinds on 18 utterances"


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_planted_artefact_is_found_and_taken_for_no_other(planted: dict[str, tuple[Tensor, Tensor]], kind: str) -> None:
    flags = detect(*planted[kind], AUDIO)
    assert flags[kind].float().mean() >= 0.9
    assert sum(int(flags[other].sum()) for other in ARTEFACTS if other != kind) <= 3, (
        "of 72; the world card has the rates"
    )


def test_loudness_changes_no_verdict(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    for kind in ARTEFACTS:
        F, lengths = planted[kind]
        assert torch.equal(detect(F + 1.0, lengths, AUDIO)[kind], detect(F, lengths, AUDIO)[kind])


def test_flags_do_not_depend_on_padding_or_neighbours(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    for kind in ("clean", *ARTEFACTS):
        F, lengths = planted[kind]
        lengths = lengths - 5 * (torch.arange(len(F)) % 3)  # ends in mid-speech too
        padded = torch.nn.functional.pad(F, (0, 0, 0, 30), value=3.0)
        for name, flag in detect(padded, lengths, AUDIO).items():
            assert torch.equal(flag, detect(F, lengths, AUDIO)[name])
            for row in range(0, len(F), 6):
                alone = detect(F[row : row + 1, : int(lengths[row])], lengths[row : row + 1], AUDIO)[name]
                assert alone.item() == flag[row].item()


def test_scores_do_not_depend_on_what_lies_beyond_the_end(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    F, lengths = planted["click"]
    loudest = F.exp().mean(2).argmax(1)
    lengths = torch.minimum(lengths, loudest + 2)  # the utterance ends on a click
    padded = scores(torch.nn.functional.pad(F, (0, 0, 0, 9), value=3.0), lengths, AUDIO)
    for row in range(len(F)):
        alone = scores(F[row : row + 1, : int(lengths[row])], lengths[row : row + 1], AUDIO)
        for kind in ARTEFACTS:
            assert torch.allclose(padded[kind][row], alone[kind][0], atol=1e-4)


def test_long_pause_and_silence(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    F, lengths = planted["clean"]
    middle = int(lengths.min()) // 2
    gap = torch.full((len(F), 40, F.shape[2]), SILENCE)
    paused = torch.cat([F[:, :middle], gap, F[:, middle:]], 1)
    assert detect(paused, lengths + 40, AUDIO)["silence"].all()
    assert detect(torch.full((1, 50, F.shape[2]), SILENCE), torch.tensor([50]), AUDIO)["silence"].all()


def test_drawn_out_sound(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    F, lengths = planted["clean"]
    loudest = F[0, : lengths[0]].exp().mean(1).argmax()
    drawl = torch.cat([F[0, :loudest], F[0, loudest].expand(35, -1), F[0, loudest : lengths[0]]])
    assert detect(drawl[None], torch.tensor([len(drawl)]), AUDIO)["drawl"].all()


def test_a_whistle_outside_the_band_is_no_whine() -> None:
    time = torch.arange(16000) / 16000
    noise = 0.05 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    tones = torch.stack([noise + 0.1 * torch.sin(2 * torch.pi * hertz * time) for hertz in (1000.0, 3100.0)])
    F, lengths = log_mel(tones, torch.tensor([16000, 16000]), AUDIO)
    assert detect(F, lengths, AUDIO)["whine"].tolist() == [False, True]


def test_a_steady_band_of_noise_is_no_whine() -> None:
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(noise)
    hertz = torch.fft.rfftfreq(16000, 1 / 16000)
    band = torch.fft.irfft(spectrum * ((hertz > 2000) & (hertz < 4500)), n=16000)
    F, lengths = log_mel(band[None], torch.tensor([16000]), AUDIO)
    assert not detect(F, lengths, AUDIO)["whine"].any()


def test_columns_of_planted_flags_follow_the_declared_order(planted: dict[str, tuple[Tensor, Tensor]]) -> None:
    for column, kind in enumerate(ARTEFACTS):
        flags = planted_flags(*planted[kind], AUDIO)
        assert flags.shape == (len(planted[kind][0]), len(ARTEFACTS))
        assert flags.float().mean(0).argmax() == column


@pytest.mark.parametrize("length", [1, 2, 3])
def test_very_short_samples_have_a_verdict(length: int) -> None:
    F = torch.randn(2, length, AUDIO.n_mels)
    assert all(flag.shape == (2,) for flag in detect(F, torch.tensor([length, length]), AUDIO).values())


def test_repetition_by_hand() -> None:
    tokens = torch.tensor([[1, 2, 1, 2, 1, 2, -1, -1], [1, 2, 3, 4, 5, 6, 7, 8], [7, 7, 7, 7, 7, 7, 7, 7]])
    # bigrams of row 0: 12 21 12 21 12, of which the last three came before; row 2: 77 seven times, six came before
    assert torch.allclose(repetition(tokens, torch.tensor([6, 8, 8]), n=2), torch.tensor([3 / 5, 0, 6 / 7]))
    assert repetition(tokens[:, :1], torch.tensor([1, 1, 0]), n=2).tolist() == [0, 0, 0]
