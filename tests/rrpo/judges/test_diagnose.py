"""The stages ``yardsticks`` and ``diagnose`` from end to end on a tiny real world, and what is absent or degenerate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ablations.records import DIAGNOSIS_POINTS
from rrpo.codec import Codec
from rrpo.config import RewardModelConfig
from rrpo.corpus.config import EMOTIONS, AudioConfig
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.prompts import load_prompts
from rrpo.judges import diagnose, naturalness, phonetic_judge, phonetics, speaker, yardsticks
from rrpo.judges.config import DiagnoseConfig, PhoneticJudgeConfig, YardstickConfig
from rrpo.reward_model import RewardModel
from rrpo.stages import Context

STEPS = (0, 5, 9)
INSTALLED = phonetics.available() and speaker.available() and naturalness.available()


@pytest.fixture(scope="module")
def inputs(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real speech as tokens at the first checkpoint, shuffled tokens later: frames without a voice."""
    root = tmp_path_factory.mktemp("diagnose")
    folders = {name: root / name for name in ("samples", "common", "yardsticks", "third")}
    for folder in folders.values():
        folder.mkdir()
    torch.manual_seed(0)
    RewardModel(RewardModelConfig(dim=8, layers=1, heads=2), EMOTIONS, AudioConfig().n_mels, AudioConfig().floor).save(
        folders["common"]
    )
    config = YardstickConfig(utterances=40, planted=1)
    yardsticks.build(config, {"speech": stages["speech"], "codec": stages["codec"]}, folders["yardsticks"], Context())
    if phonetics.available():
        sources = {"speech": stages["speech"], "codec": stages["codec"]}
        phonetic_judge.build(PhoneticJudgeConfig(folds=2), sources, folders["third"], Context())
    codec, speech = Codec.load(stages["codec"]), SpeechSet.load(stages["heldout"])
    prompts = len(load_prompts(stages["prompts"]))
    real, sizes = codec.encode(*speech.batch(range(prompts)))
    lengths = np.stack(
        [sizes.numpy(), sizes.numpy(), np.where(np.arange(prompts) < 3, 2 * sizes.numpy(), sizes.numpy())]
    )
    tokens = np.full((3, prompts, int(lengths.max())), -1, np.int16)
    rng = np.random.default_rng(0)
    for k in range(3):
        for row, n in enumerate(lengths[k]):
            tokens[k, row, :n] = real[row, :n] if k == 0 else rng.integers(0, codec.vocabulary, n)
    tokens[1, 0] = -1
    tokens[1, 0, : lengths[1, 0]] = np.resize([1, 2, 3, 4, 5, 6], lengths[1, 0])  # a loop
    lengths[1, 1], tokens[1, 1] = 0, -1  # an empty sample
    arrays = {"steps": np.array(STEPS), "tokens": tokens, "lengths": lengths.astype(np.int16)}
    np.savez(folders["samples"] / "samples.npz", **arrays, proxy_argmax=np.zeros((3, prompts), np.int8))
    return folders | {"eval_prompts": stages["prompts"], "codec": stages["codec"]}


def run(inputs: dict[str, Path], out: Path, config: DiagnoseConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    out.mkdir()
    diagnose.build(config, inputs, out, Context())
    return tuple(pd.read_parquet(out / f"diagnosis_{name}.parquet") for name in ("points", "samples"))  # type: ignore[return-value]


def test_points_hold_every_documented_column_and_are_made_of_the_samples(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    points, samples = run(inputs, tmp_path / "out", DiagnoseConfig(spoken=6, naturalness=1))
    assert set(points.columns) == set(DIAGNOSIS_POINTS)
    assert points["step"].tolist() == list(STEPS)
    by_step = samples.groupby("step")
    hits = by_step.apply(lambda rows: (rows["common"] == rows["target"]).mean())
    assert np.allclose(points.set_index("step")["common_accuracy"], hits)
    assert points["looping"].iloc[0] == 0
    assert points["looping"].iloc[1] > 0
    assert points["odd_length"].tolist() == pytest.approx([0.0, 1 / 10, 3 / 10])
    scalars = json.loads((tmp_path / "out" / "scalars.json").read_text())
    assert scalars["end_common_accuracy"] == points["common_accuracy"].iloc[-1]
    assert all(np.isfinite(value) for value in scalars.values())


@pytest.mark.skipif(not INSTALLED, reason="optional packages are not installed")
def test_listeners_hear_the_first_prompts_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    points, samples = run(inputs, tmp_path / "out", DiagnoseConfig(spoken=6, naturalness=1))
    for name in ("third", "voiced", "speaker_similarity"):
        assert samples.groupby("step")[name].count().tolist() == [6, 6, 6]
    heard = samples.dropna(subset="voiced")
    for name in ("f0_level", "f0_spread"):
        assert (heard[name].isna() == (heard["voiced"] == 0)).all(), "what has no voice has no F0"
    third = samples.dropna(subset="third").groupby("step").apply(lambda rows: (rows["third"] == rows["target"]).mean())
    assert np.allclose(points.set_index("step")["third_accuracy"], third)
    assert points["speaker_similarity"].iloc[0] > points["speaker_similarity"].iloc[2], "noise is not the speaker"
    assert points["voiced"].notna().all()


@pytest.mark.skipif(not INSTALLED, reason="optional packages are not installed")
def test_a_speaker_without_a_voice_is_not_judged(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "yardsticks").mkdir()
    stored = dict(np.load(inputs["yardsticks"] / yardsticks.VOICES))
    first = load_prompts(inputs["eval_prompts"])[0].speaker
    names = np.array(["somebody else" if name == first else name for name in stored["speakers"]])
    np.savez(tmp_path / "yardsticks" / yardsticks.VOICES, voices=stored["voices"], speakers=names)
    (tmp_path / "yardsticks" / "scalars.json").write_text(json.dumps({"naturalness": ""}))
    changed = {name: path for name, path in inputs.items() if name != "third"} | {"yardsticks": tmp_path / "yardsticks"}
    _, samples = run(changed, tmp_path / "out", DiagnoseConfig(spoken=6))
    heard = samples.groupby("step").head(6)
    assert heard["speaker_right"].isna().any()
    assert (heard["speaker_right"].isna() == heard["speaker_similarity"].isna()).all()


def test_what_is_not_installed_is_nan_and_nothing_fails(
    inputs: dict[str, Path], stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (speaker, naturalness):
        monkeypatch.setattr(module, "available", lambda: False)
    bare = tmp_path / "bare"
    bare.mkdir()
    yardsticks.build(
        YardstickConfig(utterances=4), {"speech": stages["heldout"], "codec": stages["codec"]}, bare, Context()
    )
    assert json.loads((bare / "scalars.json").read_text()) == {"naturalness": ""}
    without = {name: path for name, path in inputs.items() if name != "third"} | {"yardsticks": bare}
    points, _ = run(without, tmp_path / "out", DiagnoseConfig(spoken=4))
    absent = ["third_accuracy", "third_logprob", "voiced", "f0_spread", "f0_contrast"]
    absent += ["speaker_similarity", "speaker_right", "dnsmos", "plcmos"]
    assert points[absent].isna().all(axis=None)
    assert points.drop(columns=absent).notna().all(axis=None)


@pytest.mark.skipif(not naturalness.available(), reason="speechmos is not installed")
def test_a_predictor_that_is_valid_is_asked_at_three_checkpoints(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Whichever is valid here, PLCMOS is made so: first, middle and last of five checkpoints."""
    stored = dict(np.load(inputs["samples"] / "samples.npz"))
    five = {name: np.concatenate([array, array[1:]]) for name, array in stored.items()}
    for name in ("samples", "yardsticks"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "samples" / "samples.npz", **{**five, "steps": np.arange(5)})
    (tmp_path / "yardsticks" / "scalars.json").write_text(json.dumps({"naturalness": "plcmos"}))
    changed = {name: path for name, path in inputs.items() if name != "third"}
    changed |= {name: tmp_path / name for name in ("samples", "yardsticks")}
    points, samples = run(changed, tmp_path / "out", DiagnoseConfig(spoken=3, naturalness=2))
    assert points["plcmos"].notna().tolist() == [True, False, True, False, True]
    assert points["plcmos"].dropna().between(1, 5).all()
    assert points["dnsmos"].isna().all()
    assert samples["plcmos"].notna().sum() == 3 * 2


@pytest.mark.skipif(not speaker.available(), reason="resemblyzer's weights are not installed")
def test_yardsticks_keep_the_voices_apart(inputs: dict[str, Path]) -> None:
    scalars = json.loads((inputs["yardsticks"] / "scalars.json").read_text())
    assert scalars["voice_same"] > scalars["voice_other"]
    with np.load(inputs["yardsticks"] / yardsticks.VOICES) as stored:
        assert np.allclose(np.linalg.norm(stored["voices"], axis=1), 1)
        assert len(stored["speakers"]) == len(stored["voices"])
