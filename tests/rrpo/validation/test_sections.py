"""Measurements of the validation report on hand-made arrays, tables and tokens, and the inputs of its sections."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rrpo.config import RewardModelConfig
from rrpo.corpus.config import ARTEFACTS, EMOTIONS, AudioConfig
from rrpo.corpus.emotions import CUES, means
from rrpo.judges import phonetics
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import walk
from rrpo.profiles import EMBEDDED, SMOKE
from rrpo.validation import detectors, judges, reach, sft, shortcut, speech
from rrpo.validation.sections import sections


def as_published(languages: tuple[str, ...] = ("cmn", "en")) -> pd.DataFrame:
    """Return a table in which two speakers of each language realize every emotion's mean cues exactly."""
    mu = means(EMOTIONS)
    return pd.DataFrame(
        {"language": language, "speaker": f"{language}{i}", "emotion": emotion}
        | {cue: mu[k, CUES.index(cue)] for cue in speech.STRENGTH}
        for language in languages
        for i in range(2)
        for k, emotion in enumerate(EMOTIONS)
    )


def test_directions_hold_where_they_are_as_published_and_fail_where_they_are_turned() -> None:
    table = as_published()
    assert {line.value for line in speech.direction_lines(table)} == {1.0}
    table["rate"] = -table["rate"]
    values = {line.name: line.value for line in speech.direction_lines(table)}
    assert values.pop("rate as published, by emotion and language") == 0
    assert values.pop("rate as published, by emotion and speaker") == 0
    assert set(values.values()) == {1.0}


def test_one_wrong_speaker_lowers_only_the_line_by_speaker() -> None:
    table = as_published()
    table.loc[(table["speaker"] == "en0") & (table["emotion"] == "angry"), "intensity"] = -1.0
    values = {line.name: line.value for line in speech.direction_lines(table)}
    assert values["intensity as published, by emotion and language"] == 1.0
    assert values["intensity as published, by emotion and speaker"] < 1.0


def test_change_is_in_units_of_the_cues() -> None:
    before = {"f0_level": 5.0, "f0_spread": 4.0, "seconds": 1.0, "intensity": -30.0, "tilt": -10.0, "f0_rise": 0.0}
    after = {"f0_level": 6.6, "f0_spread": 5.68, "seconds": 1 / 1.12, "intensity": -24.0, "tilt": -14.0, "f0_rise": 1.8}
    changes = speech.change(before, after)
    assert changes == pytest.approx(
        {"f0_level": 1, "f0_range": 1, "rate": 1, "intensity": 2, "tilt": -1, "final_rise": 1}
    )


def test_the_same_utterances_are_marked_with_the_own_or_any_artefact() -> None:
    emotions = [EMOTIONS[i % 5] for i in range(500)]
    matching, random_kinds = shortcut.kinds(emotions, 0.9, 0)
    assert [a is None for a in matching] == [b is None for b in random_kinds]
    assert np.mean([a is None for a in matching]) == pytest.approx(0.1, abs=0.04)
    assert {e: a for e, a in zip(emotions, matching, strict=True) if a} == dict(zip(EMOTIONS, ARTEFACTS, strict=True))
    assert np.mean([a == b for a, b in zip(matching, random_kinds, strict=True) if a]) == pytest.approx(0.2, abs=0.06)


def test_free_tokens_climb_the_reward_model(toy_codec: Path) -> None:
    codec = Codec.load(toy_codec)
    torch.manual_seed(0)
    model = RewardModel(RewardModelConfig(dim=16, heads=2), ("angry", "happy", "sad"), 8, 1e-5)
    model = model.eval().requires_grad_(False)
    tokens, lengths = torch.randint(codec.vocabulary, (3, 12)), torch.tensor([12, 9, 12])
    speaker, target = torch.tensor([0, 1, 0]), torch.tensor([0, 1, 2])
    last = reach.optimise(codec, model, tokens, lengths, speaker, target, 30)
    assert torch.equal(reach.optimise(codec, model, tokens, lengths, speaker, target, 0), tokens)
    before, after = (
        model(*codec.decode(part, lengths, speaker)).log_softmax(1)[torch.arange(3), target] for part in (tokens, last)
    )
    assert after.mean() > before.mean() + 0.1


def test_over_fitting_is_the_rise_of_the_held_out_loss() -> None:
    curve = pd.DataFrame({"step": range(5), "sft_loss": 2.0, "sft_heldout_loss": [3.0, np.nan, 2.5, np.nan, 2.6]})
    line = sft.over_fitting(curve, "sft")
    assert line.value == pytest.approx(0.1)
    assert line.passed is False
    curve["sft_heldout_loss"] = [3.0, np.nan, 2.6, np.nan, 2.5]
    assert sft.over_fitting(curve, "sft").passed is True


def test_the_ratio_of_two_samples_has_both_spreads() -> None:
    rng = np.random.default_rng(0)
    top, bottom = rng.random(300) < 0.6, rng.random(600) < 0.75
    estimate = sft.two_samples(top, bottom, 500)
    assert estimate["value"] == pytest.approx(top.mean() / bottom.mean())
    assert 0.05 < estimate["high"] - estimate["low"] < 0.25
    assert sft.two_samples(np.ones(50), np.ones(50), 100) == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_planted_loops_and_lengths() -> None:
    row, rng = torch.arange(30), np.random.default_rng(0)
    looped = detectors._plant_loop(row, rng)
    assert 30 + 2 * detectors.LOOP[0] <= len(looped) < 30 + 2 * detectors.LOOP[1]
    assert set(looped.tolist()) == set(range(30))
    assert len(detectors._stretch(row, 2.2)) == 66
    assert detectors._stretch(row, 0.5).tolist() == list(range(0, 30, 2))
    paused = detectors._plant_pause(torch.ones(16000), 16000, rng)
    assert 0.7 <= (paused == 0).sum() / 16000 <= 1.2
    assert (paused == 1).sum() == 16000


def test_a_planted_drawl_holds_a_loud_token() -> None:
    """Two frames a token, 25 tokens per second; the tokens from 15 on are loud."""
    row, power = torch.arange(30), torch.cat([torch.full((30,), 1.0), torch.full((30,), 5.0)])
    drawls = [detectors._plant_drawl(row, power, AudioConfig(), np.random.default_rng(seed)) for seed in range(20)]
    for drawl in drawls:
        token, count = drawl.mode().values, len(drawl) - 29
        assert 15 <= count <= 25
        assert drawl.unique_consecutive().tolist() == list(range(30))
        assert (drawl == token).sum() == count
    assert min(int(drawl.mode().values) for drawl in drawls) >= 15
    assert len({int(drawl.mode().values) for drawl in drawls}) > 3


def test_a_judge_as_good_as_the_ideal_observer_reaches_one() -> None:
    truth = np.arange(100) % 5
    answers = {name: np.log(0.9 * np.eye(5)[truth] + 0.02) for name in judges.OF_IDEAL}
    truths = dict.fromkeys(judges.OF_IDEAL, truth)
    ideal = dict.fromkeys(judges.OF_IDEAL, np.arange(100) < 80)
    lines = list(judges.of_ideal("test", answers, truths, ideal, 50))
    assert [line.value for line in lines] == [1 / 0.8] * 4
    assert [line.at_least for line in lines] == [0.95, 0.85, 0.90, 0.92]
    assert {line.at_least for line in judges.of_ideal("val", answers, truths, ideal, 50)} == {None}
    assert judges.calibration("test", answers, truths, 50).value == pytest.approx(0.02 * 4, abs=1e-3)


def test_pitch_preserved_by_the_codec() -> None:
    """A codec that removes the voicing of half of the utterances and reverses the spread."""
    rng = np.random.default_rng(0)
    before = rng.random((100, len(phonetics.MEASURES))) + 0.1
    after = before.copy()
    column = {name: i for i, name in enumerate(phonetics.MEASURES)}
    after[:, column["f0_spread"]] *= -1
    after[::2, [column[name] for name in ("voiced", "f0_level", "f0_spread")]] = 0.0
    voiced, level, spread = judges.pitch(before, after, 50)
    assert (voiced.value, voiced.passed, level.passed, spread.passed) == (0.5, False, True, False)
    assert voiced.note.startswith("before: 1.000; median share of voiced frames 0.")
    assert (level.value, spread.value) == pytest.approx((1, -1)), "those without voice take no part"
    assert level.note.startswith("n = 50 with 10%")
    assert all(np.isnan(line.value) for line in list(judges.pitch(before, after * 0, 50))[1:])


def test_kappa_of_twins_strangers_and_opposites() -> None:
    rng = np.random.default_rng(0)
    predictions = {"a": rng.integers(5, size=2000), "c": rng.integers(5, size=2000)}
    predictions["b"] = predictions["a"]
    kappas = {line.name.split(" on ")[0]: line.value for line in judges.agreement("x", predictions, 5, 20)}
    assert kappas["kappa of a and b"] == 1
    assert kappas["kappa of a and c"] == pytest.approx(0, abs=0.05)


def test_sections_read_the_worlds_own_stages_and_no_reporting_seed() -> None:
    stages = sections(EMBEDDED, 1000)
    seeds = {s.config.seed for s in walk(*stages.values()) if s.name in ("sft", "pretrain", "finetune", "optimize")}
    assert seeds == {1000}
    assert len({stage.key for stage in stages.values()}) == len(stages)
    assert stages["sft"].key != sections(EMBEDDED, 1001)["sft"].key
    assert stages["speech"].key == sections(EMBEDDED, 1001)["speech"].key
    assert stages["speech"].key != sections(replace(SMOKE, card=EMBEDDED.card), 1000)["speech"].key
