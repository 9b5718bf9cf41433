"""Vocoded samples and the optional listeners end to end on a tiny real world, and missing or degenerate inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import samples_of
from torchaudio.functional import edit_distance

from rrpo.audio import resampled
from rrpo.corpus import espeak
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.prompts import load_prompts
from rrpo.experiment import measurements
from rrpo.judges import content, listeners, naturalness, phonetic_judge, phonetics, speaker, yardsticks
from rrpo.judges.config import (
    ContentConfig,
    NaturalnessConfig,
    NoSettings,
    PhoneticJudgeConfig,
    PredictorConfig,
    SpeakersConfig,
    VocodeConfig,
)
from rrpo.judges.samples import Samples, decoded
from rrpo.judges.spoken import waves_of
from rrpo.models.codec import Codec
from rrpo.packages import present
from rrpo.pipeline.stages import Context

STEPS = (0, 2, 5, 9)
SPOKEN = 6
needs_praat = pytest.mark.skipif(not phonetics.available(), reason="praat-parselmouth is not installed")
needs_encoder = pytest.mark.skipif(not present("resemblyzer"), reason="resemblyzer is not installed")
needs_predictors = pytest.mark.skipif(not naturalness.available(), reason="speechmos is not installed")


@pytest.fixture(scope="module")
def inputs(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The SFT policy outputs real speech, an arm noise after step 0; both vocoded: ``sft_waves``, ``waves``."""
    root = tmp_path_factory.mktemp("listeners")
    codec, speech = Codec.load(stages["codec"]), SpeechSet.load(stages["heldout"])
    n = len(load_prompts(stages["prompts"]))
    tokens, sizes = codec.encode(*speech.batch(range(n)))
    real = [row[:size].tolist() for row, size in zip(tokens, sizes.tolist(), strict=True)]
    rng = np.random.default_rng(0)
    noise = [[rng.integers(0, codec.vocabulary, len(row)).tolist() for row in real] for _ in STEPS[1:]]
    noise[-1][1] = []
    parts = [samples_of(step, tokens) for step, tokens in zip(STEPS, [real, *noise], strict=True)]
    folders = {name: root / name for name in ("samples", "sft_samples", "waves", "sft_waves")}
    for folder in folders.values():
        folder.mkdir()
    Samples.concatenate(parts).save(folders["samples"])
    parts[0].save(folders["sft_samples"])
    shared = {"eval_prompts": stages["prompts"], "codec": stages["codec"]}
    for name in ("", "sft_"):
        reads = shared | {"samples": folders[f"{name}samples"]}
        listeners.vocode(VocodeConfig(prompts=SPOKEN), reads, folders[f"{name}waves"], Context())
    return folders | shared


@pytest.fixture(scope="module")
def reference(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build the reference stage of a listener."""
    root = tmp_path_factory.mktemp("reference")
    builds = {
        "third": lambda *of: phonetic_judge.build(PhoneticJudgeConfig(folds=2), *of),
        "speakers": lambda *of: yardsticks.speakers(SpeakersConfig(utterances=40), *of),
        "predictor": lambda *of: yardsticks.predictor(PredictorConfig(planted=1), *of),
    }

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            (root / name).mkdir()
            builds[name]({"speech": stages["speech"], "codec": stages["codec"]}, root / name, Context())
        return root / name

    return find


@pytest.fixture
def listener_columns(documented: Callable[[str], list[str]]) -> set[str]:
    """The documented columns of the listeners' points."""
    return set(documented("Checkpoints by optional judges"))


def run(
    name: str, config: object, inputs: dict[str, Path], out: Path, stage: str = "", **more_inputs: Path
) -> tuple[pd.DataFrame, ...]:
    """Return the points and samples of an arm, after the SFT policy was measured."""
    build = getattr(listeners, stage or name)
    for folder, reads in ((out / "sft", "sft_waves"), (out / "arm", "waves")):
        folder.mkdir(parents=True)
        sft = {"sft": out / "sft"} if reads == "waves" else {}
        build(config, {"waves": inputs[reads]} | more_inputs | sft, folder, Context())
    scalars = json.loads((out / "arm" / "scalars.json").read_text())
    assert np.isfinite(list(scalars.values())).all()
    return tuple(pd.read_parquet(out / "arm" / f"{name}_{table}.parquet") for table in ("points", "samples"))


def test_waves_of_the_middle_and_the_last_checkpoint_are_kept(inputs: dict[str, Path]) -> None:
    waves = listeners.Vocoded.load(inputs["waves"])
    prompts = load_prompts(inputs["eval_prompts"])
    assert waves.table["step"].tolist() == [5] * SPOKEN + [9] * SPOKEN
    assert waves.table["prompt"].tolist() == [*range(SPOKEN)] * 2
    assert waves.table["speaker"].tolist() == [prompt.speaker for prompt in prompts[:SPOKEN]] * 2
    assert waves.table["target"].tolist() == [prompt.emotion for prompt in prompts[:SPOKEN]] * 2
    assert set(listeners.Vocoded.load(inputs["sft_waves"]).table["step"]) == {0}


def test_waves_are_those_of_the_samples_at_their_own_level(inputs: dict[str, Path]) -> None:
    waves = listeners.Vocoded.load(inputs["waves"])
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"], len(prompts))
    codec = Codec.load(inputs["codec"])
    last = samples.select((samples.step == 9) & (samples.prompt < SPOKEN))
    assert waves.rate == codec.audio.sample_rate
    for wave, exact in zip(waves.waves[SPOKEN:], waves_of(*decoded(last, codec, prompts), codec.audio), strict=True):
        assert len(wave) == len(exact)
        loudest = max(1.0, float(np.abs(exact).max(initial=0.0)))
        assert np.allclose(wave, exact, atol=1e-3 * loudest), "16 bits of its loudest"


@needs_praat
def test_the_third_judge_and_prosody(
    inputs: dict[str, Path], reference: Callable[[str], Path], tmp_path: Path, listener_columns: set[str]
) -> None:
    points, samples = run("phonetics", NoSettings(), inputs, tmp_path, third=reference("third"))
    assert points["step"].tolist() == [0, 5, 9]
    assert samples.groupby("step")["third"].count().tolist() == [SPOKEN] * 3
    for name in ("f0_level", "f0_spread"):
        assert (samples[name].isna() == (samples["voiced"] == 0)).all(), "what has no voice has no F0"
    hits = samples.groupby("step").apply(lambda rows: (rows["third"] == rows["target"]).mean())
    assert np.allclose(points.set_index("step")["third_accuracy"], hits)
    assert set(points.columns) - {"step"} <= listener_columns


def test_a_wave_is_compared_with_the_voice_of_its_speaker(
    inputs: dict[str, Path], tmp_path: Path, listener_columns: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orthogonal voices of the two speakers; SFT's waves have similarities .6 and .8 to them, the arm's 1 and 0."""
    first, second = sorted({prompt.speaker for prompt in load_prompts(inputs["eval_prompts"])})
    np.savez(tmp_path / yardsticks.VOICES, speakers=np.array([second, first]), voices=np.eye(2))
    sft, arm = [0.6, 0.8], [1.0, 0.0]
    monkeypatch.setattr(
        speaker, "embeddings", lambda waves: np.array([sft if len(waves) == SPOKEN else arm] * len(waves))
    )
    points, samples = run("voice", NoSettings(), inputs, tmp_path / "out", speakers=tmp_path)
    assert points["step"].tolist() == [0, 5, 9]
    assert set(samples["speaker"]) == {first, second}
    for _, row in samples.iterrows():
        own = [second, first].index(row["speaker"])
        assert row["speaker_similarity"] == (arm if row["step"] else sft)[own]
        assert row["speaker_right"] == (own == (0 if row["step"] else 1))
    for name in ("speaker_similarity", "speaker_right"):
        assert np.allclose(points[name], samples.groupby("step")[name].mean())
    assert set(points.columns) - {"step"} <= listener_columns


@needs_encoder
def test_a_speaker_without_a_voice_is_not_judged(
    inputs: dict[str, Path], reference: Callable[[str], Path], tmp_path: Path
) -> None:
    stored = dict(np.load(reference("speakers") / yardsticks.VOICES))
    first = load_prompts(inputs["eval_prompts"])[0].speaker
    names = np.array(["somebody else" if name == first else name for name in stored["speakers"]])
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / yardsticks.VOICES, voices=stored["voices"], speakers=names)
    _, samples = run("voice", NoSettings(), inputs, tmp_path / "out", speakers=tmp_path / "other")
    absent = samples["speaker"] == first
    assert (samples["speaker_similarity"].isna() == absent).all()
    assert (samples["speaker_right"].isna() == absent).all()


@needs_predictors
def test_the_valid_predictor_rates_sft_and_the_last_checkpoint(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Make PLCMOS the valid predictor, whichever is valid here."""
    (tmp_path / "predictor").mkdir()
    (tmp_path / "predictor" / "scalars.json").write_text(json.dumps({"naturalness": "plcmos"}))
    config = NaturalnessConfig(prompts=2)
    points, samples = run("naturalness", config, inputs, tmp_path / "out", predictor=tmp_path / "predictor")
    assert points["step"].tolist() == [0, 9]
    assert points.columns.tolist() == ["step", "plcmos"]
    assert samples[["step", "prompt"]].to_numpy().tolist() == [[0, 0], [0, 1], [9, 0], [9, 1]]
    assert samples["plcmos"].between(1, 5).all()
    assert np.allclose(points["plcmos"], samples.groupby("step")["plcmos"].mean())


def test_without_a_valid_predictor_there_are_no_scores(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "predictor").mkdir()
    (tmp_path / "predictor" / "scalars.json").write_text(json.dumps({"naturalness": ""}))
    config = NaturalnessConfig(prompts=2)
    points, _ = run("naturalness", config, inputs, tmp_path / "out", predictor=tmp_path / "predictor")
    assert points.columns.tolist() == ["step"]
    assert json.loads((tmp_path / "out" / "arm" / "scalars.json").read_text()) == {}


def test_content_errors_are_relative_to_the_prompts_phones(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener_columns: set[str]
) -> None:
    """One that always hears the first prompt's phones: no error there, and as many elsewhere as they differ by."""
    prompts = load_prompts(inputs["eval_prompts"])
    made_for = []

    def make(language: str) -> content.Hear:
        made_for.append(language)
        return lambda wave: prompts[0].phones

    monkeypatch.setattr(listeners, "RECOGNISERS", {"whisper": make})
    config = ContentConfig(recogniser="whisper", language="cmn", prompts=2)
    more_inputs = {"eval_prompts": inputs["eval_prompts"]}
    points, samples = run("whisper", config, inputs, tmp_path, "content", **more_inputs)
    assert made_for == ["cmn"] * 2
    assert samples[["step", "prompt"]].to_numpy().tolist() == [[0, 0], [0, 1], [9, 0], [9, 1]]
    a, b = (content.letters(prompt.phones) for prompt in prompts[:2])
    share = edit_distance(a, b) / len(b)
    assert samples["whisper_phone_errors"].tolist() == [0.0, share, 0.0, 1.0], "the last sample is empty"
    assert points["whisper_phone_errors"].tolist() == pytest.approx([share / 2, 0.5])
    assert set(points.columns) - {"step"} <= listener_columns


def test_letters_leave_out_marks_on_which_inventories_differ() -> None:
    assert content.letters(["ðə", "ɡˈɜːl", "z"]) == content.letters(["ð", "ə", "g", "ɜ", "l", "z"])
    assert content.phone_errors(lambda wave: "abc", np.ones(9), ("a", "b", "d", "c")) == 0.25


@pytest.mark.parametrize("name", content.RECOGNISERS)
def test_a_published_recogniser_understands_plain_english(name: str) -> None:
    """Where its weights are installed: under a third of the phones wrong; noise says nothing."""
    if not all(map(present, measurements.LISTENERS[name])):
        pytest.skip(f"{name} is not installed")
    text = "the girls buy milk and bread at the market"
    wave = resampled(espeak.synthesize(text, "en") / 2**15, espeak.SAMPLE_RATE, content.RATE)
    hear = content.RECOGNISERS[name]("en")
    assert content.phone_errors(hear, np.asarray(wave), espeak.phones([text], "en")[0]) < 1 / 3
    assert content.phone_errors(hear, np.zeros(content.RATE), espeak.phones([text], "en")[0]) > 0.8


def test_an_arm_that_stays_at_step_0_is_the_sft_policy(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The arm's own waves of step 0 are not counted twice."""
    (tmp_path / "predictor").mkdir()
    (tmp_path / "predictor" / "scalars.json").write_text(json.dumps({"naturalness": ""}))
    still = inputs | {"waves": inputs["sft_waves"]}
    _, samples = run(
        "naturalness", NaturalnessConfig(prompts=3), still, tmp_path / "out", predictor=tmp_path / "predictor"
    )
    assert samples["prompt"].tolist() == [0, 1, 2]


def test_voices_are_those_of_the_even_utterances_and_measured_on_the_odd_ones(tmp_path: Path) -> None:
    """Anna's voice is the mean of two utterances; one of hers sounds like Ben, and Carl has no even one."""
    names = ["ben", "anna", "anna", "ben", "anna", "carl"]
    vectors = np.array([[0.0, 1.0], [0.6, 0.8], [0.8, 0.6], [0.28, 0.96], [0.8, -0.6], [1.0, 0.0]])
    scalars = yardsticks._voices(names, vectors, tmp_path / yardsticks.VOICES)
    assert scalars["voice_same"] == pytest.approx((0.6 + 0.96) / 2)
    assert scalars["voice_other"] == pytest.approx((0.8 + 0.28) / 2)
    assert scalars["voice_nearest"] == 0.5
    with np.load(tmp_path / yardsticks.VOICES) as stored:
        assert stored["speakers"].tolist() == ["anna", "ben"]
        assert np.allclose(stored["voices"], np.eye(2))


@needs_predictors
def test_a_predictor_is_chosen_by_its_gap(
    stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap between clean and clicked is .2 for the first predictor, .4 for the second."""
    marks = iter([3.2, 3.0, 3.4, 3.0])
    monkeypatch.setattr(naturalness, "predicted", lambda *_: np.array([next(marks)]))
    yardsticks.predictor(
        PredictorConfig(planted=1), {"speech": stages["heldout"], "codec": stages["codec"]}, tmp_path, Context()
    )
    scalars = json.loads((tmp_path / "scalars.json").read_text())
    assert scalars["naturalness"] == naturalness.MEASURES[1]
    assert scalars["dnsmos_gap"] == pytest.approx(0.2)
    assert scalars["plcmos_gap"] == pytest.approx(0.4)
