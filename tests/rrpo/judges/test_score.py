"""Stages ``score`` and ``assess`` end to end on stored tokens of a tiny world."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from drawn import samples_of

from rrpo.config import RewardModelConfig
from rrpo.corpus.config import EMOTIONS, AudioConfig
from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges import sample_table, score
from rrpo.judges.config import KINDS, JudgeConfig, NoSettings, RecogniserConfig, ScoreConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.samples import Samples
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context

STEPS = (0, 5, 9)
FEW = 4
"""Prompts of every checkpoint but the last."""


@pytest.fixture(scope="module")
def models(stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained judges, and the prompts."""
    root = tmp_path_factory.mktemp("models")
    folders = {name: root / name for name in ("test", "val", "recogniser", "common")}
    for folder in folders.values():
        folder.mkdir()
    torch.manual_seed(0)
    audio = AudioConfig()
    Judge(JudgeConfig(dim=8, architecture="stats_tdnn"), EMOTIONS, audio).eval().save(folders["test"])
    Recogniser(RecogniserConfig(dim=8), ("a", "b"), audio.n_mels).eval().save(folders["recogniser"])
    RewardModel(RewardModelConfig(dim=8, layers=1, heads=2), EMOTIONS, audio.n_mels, audio.floor).save(
        folders["common"]
    )
    Judge(JudgeConfig(dim=8), EMOTIONS, audio).eval().save(folders["val"])
    return folders | {"eval_prompts": stages["prompts"], "codec": stages["codec"]}


@pytest.fixture(scope="module")
def tokens(stages: dict[str, Path]) -> list[list[list[int]]]:
    """Samples of three checkpoints with unequal lengths; only the last has all prompts."""
    rng = np.random.default_rng(0)
    n, vocabulary = len(load_prompts(stages["prompts"])), Codec.load(stages["codec"]).vocabulary
    return [
        [rng.integers(0, vocabulary, size).tolist() for size in rng.integers(5, 20, count)] for count in (FEW, FEW, n)
    ]


@pytest.fixture(scope="module")
def inputs(
    models: dict[str, Path], tokens: list[list[list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """An arm's samples that start at the SFT policy's, and that policy's own, judged for all prompts."""
    folder = tmp_path_factory.mktemp("inputs")
    n, vocabulary = len(tokens[2]), Codec.load(models["codec"]).vocabulary
    rng = np.random.default_rng(1)
    sft = tokens[0] + [rng.integers(0, vocabulary, 10).tolist() for _ in range(n - FEW)]
    for name in ("samples", "sft_samples"):
        (folder / name).mkdir()
    samples_of(0, sft, seed=1).save(folder / "sft_samples")
    samples = [samples_of(step, rows) for step, rows in zip(STEPS, tokens, strict=True)]
    Samples.concatenate(samples).save(folder / "samples")
    run(models | {"samples": folder / "sft_samples"}, folder / "sft")
    return models | {name: folder / name for name in ("samples", "sft_samples", "sft")}


@pytest.fixture(scope="module")
def scored(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `score` writes for the arm."""
    folder = tmp_path_factory.mktemp("scored") / "out"
    run(inputs, folder)
    return folder


def run(inputs: dict[str, Path], out: Path, audio_prompts: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    out.mkdir()
    score.build(ScoreConfig(audio_prompts=audio_prompts), inputs, out, Context())
    return pd.read_parquet(out / sample_table.TABLE), pd.read_parquet(out / "test_points.parquet")


def test_the_table_has_a_row_a_sample_and_every_documented_column(
    inputs: dict[str, Path], scored: Path, documented: Callable[[str], list[str]]
) -> None:
    table = pd.read_parquet(scored / sample_table.TABLE)
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"], len(prompts))
    assert set(table.columns) == set(documented("Samples"))
    assert table["step"].tolist() == [0] * FEW + [5] * FEW + [9] * len(prompts)
    assert table["prompt"].tolist() == samples.prompt.tolist()
    assert table["target"].tolist() == [prompt.emotion for prompt in samples.of(prompts)]
    for name in ("proxy", "val"):
        assert table[name].tolist() == [EMOTIONS[k] for k in getattr(samples, f"{name}_argmax")]
        assert np.array_equal(table[f"{name}_logprob"], getattr(samples, f"{name}_logprob"))
    assert table["tokens"].tolist() == samples.lengths.tolist()
    assert np.allclose(table["seconds"], samples.lengths * 0.04), "25 tokens a second"
    assert table["phones"].tolist() == [len(prompt.phones) for prompt in samples.of(prompts)]
    assert all(table[f"artefact_{kind}"].dtype == bool for kind in KINDS)
    assert table["phone_errors"].dtype == table["phones"].dtype == table["tokens"].dtype == np.int64
    assert np.isfinite(table.select_dtypes("number")).all(axis=None)


def test_judgements_do_not_depend_on_the_other_samples(inputs: dict[str, Path], scored: Path) -> None:
    table = pd.read_parquet(scored / sample_table.TABLE)
    prompts = load_prompts(inputs["eval_prompts"])
    models = score.load_models(inputs, "cpu")
    samples = Samples.load(inputs["samples"], len(prompts))
    sft = Samples.load(inputs["sft_samples"], len(prompts))
    for row in (1, FEW, len(table) - 1):
        sample = samples.select(np.array([row]))
        alone = sample_table.evaluate_samples(sample, sft.lengths[sample.prompt].astype(int), prompts, models).iloc[0]
        for name in models.evaluated_columns:
            same = alone[name] == pytest.approx(table[name].iloc[row], abs=1e-4)
            assert same if isinstance(alone[name], float) else alone[name] == table[name].iloc[row], name


def test_points_are_made_of_the_table(scored: Path, documented: Callable[[str], list[str]]) -> None:
    table, points = (pd.read_parquet(scored / name) for name in (sample_table.TABLE, "test_points.parquet"))
    test_points = set(documented("Checkpoints by gold"))
    assert set(points.columns) == test_points
    assert points["step"].tolist() == list(STEPS)
    groups = table.groupby("step")
    recomputed = pd.DataFrame(
        {
            "test_accuracy": groups.apply(lambda rows: (rows["test"] == rows["target"]).mean()),
            "test_logprob": groups["test_logprob"].mean(),
            "phone_error_rate": groups["phone_errors"].sum() / groups["phones"].sum(),
            "common_accuracy": groups.apply(lambda rows: (rows["common"] == rows["target"]).mean()),
            "common_logprob": groups["common_logprob"].mean(),
            "seconds_mean": groups["seconds"].mean(),
            **{f"artefact_{kind}": groups[f"artefact_{kind}"].mean() for kind in KINDS},
        }
    )
    assert np.allclose(points.set_index("step")[list(recomputed)], recomputed)
    scalars = json.loads((scored / "scalars.json").read_text())
    metrics = test_points - {"step"}
    assert set(scalars) == {f"{when}_{name}" for when in ("start", "end") for name in metrics} | {"peak_test_accuracy"}
    assert scalars["end_hack_rate"] == points["hack_rate"].iloc[-1]
    assert scalars["start_hack_rate"] == points["hack_rate"].iloc[0]
    assert scalars["peak_test_accuracy"] == points["test_accuracy"].max()


def test_hack_rate_and_uptake_by_hand() -> None:
    """The proxy accepts three of four samples; gold rejects one of them, another has a planted artefact; silence does not
    count."""
    table = pd.DataFrame(
        {
            "step": 3,
            "target": ["angry", "angry", "sad", "sad"],
            "proxy": ["angry", "angry", "sad", "angry"],
            "test": ["angry", "sad", "sad", "sad"],
            **{name: 0.0 for name in ("test_logprob", "common_logprob", "seconds")},
            "common": "sad",
            **{f"artefact_{kind}": False for kind in KINDS},
            "phone_errors": [1, 2, 0, 0],
            "phones": [3, 3, 3, 1],
        }
    )
    table.loc[2, "artefact_hum"] = True  # the shortcut of sad, in one of two
    table.loc[0, "artefact_silence"] = True
    (row,) = sample_table.by_checkpoint(table, "test", ["common"]).to_dict("records")
    assert row["hack_rate"] == 2 / 4
    assert row["test_accuracy"] == 3 / 4
    assert row["phone_error_rate"] == 3 / 10
    assert row["artefact_silence"] == 1 / 4
    assert row["common_accuracy"] == 2 / 4
    assert row["uptake"] == pytest.approx((0.0 + 0.5) / 2), "angry: click nowhere; sad: hum in one of two"


def test_samples_equal_to_the_sft_policys_are_not_judged_again(
    inputs: dict[str, Path], scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_parquet(scored / sample_table.TABLE)
    sft_table = pd.read_parquet(inputs["sft"] / sample_table.TABLE)
    first = table[table["step"] == 0].reset_index(drop=True)
    columns = score.load_models(inputs, "cpu").evaluated_columns
    pd.testing.assert_frame_equal(first[columns], sft_table[: len(first)][columns])
    assert not np.array_equal(first["proxy_logprob"], sft_table["proxy_logprob"][:FEW]), "the proxy is the arm's own"

    judged: list[int] = []
    evaluate = sample_table.evaluate_samples
    monkeypatch.setattr(
        sample_table,
        "evaluate_samples",
        lambda samples, *rest: (judged.extend(samples.step.tolist()), evaluate(samples, *rest))[1],
    )
    run(inputs, tmp_path / "again")
    assert set(judged) == set(STEPS[1:])


def test_a_sample_that_left_the_sft_policy_is_judged_anew(inputs: dict[str, Path], tmp_path: Path) -> None:
    """One token of one sample differs at step 0, as rounding on another machine may cause."""
    n = len(load_prompts(inputs["eval_prompts"]))
    samples = Samples.load(inputs["samples"], n)
    tokens = samples.tokens.copy()
    tokens[1, 0] = (tokens[1, 0] + 1) % 5
    (tmp_path / "other").mkdir()
    replace(samples, tokens=tokens).save(tmp_path / "other")
    assert sample_table.same(Samples.load(tmp_path / "other", n), Samples.load(inputs["sft_samples"], n)).tolist() == [
        *(True, False, True, True),
        *[False] * (FEW + n),
    ]
    table, _ = run(inputs | {"samples": tmp_path / "other"}, tmp_path / "out")
    sft_table = pd.read_parquet(inputs["sft"] / sample_table.TABLE)
    assert table["test_logprob"].iloc[0] == sft_table["test_logprob"].iloc[0]
    assert table["test_logprob"].iloc[1] != sft_table["test_logprob"].iloc[1]


def test_repetition_and_length_are_flagged(
    inputs: dict[str, Path], tokens: list[list[list[int]]], tmp_path: Path
) -> None:
    rows = [list(row) for row in tokens[2]]
    rows[0] = [1, 2, 3, 4, 5, 6] * 3
    rows[1] = tokens[0][1] * 3
    rows[2] = [*tokens[0][2][:-1], 0]
    (tmp_path / "other").mkdir()
    samples_of(9, rows).save(tmp_path / "other")
    table, _ = run(inputs | {"samples": tmp_path / "other"}, tmp_path / "out")
    assert table["artefact_repetition"][:3].tolist() == [True, True, False]
    assert table["artefact_length"][1:3].tolist() == [True, False]


def test_lengths_need_the_sft_policys_sample_of_every_prompt(inputs: dict[str, Path], tmp_path: Path) -> None:
    n = len(load_prompts(inputs["eval_prompts"]))
    (tmp_path / "few").mkdir()
    Samples.load(inputs["sft_samples"], n).select(np.arange(FEW)).save(tmp_path / "few")
    with pytest.raises(ValueError, match=rf"no sample of {n - FEW} prompts \({FEW}, ...\)"):
        run(inputs | {"sft_samples": tmp_path / "few"}, tmp_path / "out")


def test_audio_is_of_the_last_checkpoint(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(inputs, tmp_path / "out", audio_prompts=4)
    prompts = load_prompts(inputs["eval_prompts"])
    last = Samples.load(inputs["samples"], len(prompts)).at(STEPS[-1])
    indices = score.choose_audio_prompts(prompts, 4)
    names = sorted(path.name for path in (tmp_path / "out" / "audio").iterdir())
    assert names == [f"{index:02d}_{prompts[index].emotion}.wav" for index in indices]
    for index, name in zip(indices, names, strict=True):
        info = soundfile.info(tmp_path / "out" / "audio" / name)
        assert (info.samplerate, info.subtype, info.channels) == (16000, "PCM_16", 1)
        assert info.frames == (2 * int(last.lengths[index]) - 1) * 320
        assert np.abs(soundfile.read(tmp_path / "out" / "audio" / name)[0]).max() > 0


def test_stored_audio_is_balanced_over_emotions() -> None:
    emotions = ["happy", "happy", "happy", "sad", "angry", "sad", "happy"]
    prompts = [Prompt(id=str(i), text="", phones=(), speaker="", emotion=emotion) for i, emotion in enumerate(emotions)]
    assert score.choose_audio_prompts(prompts, 3) == [0, 3, 4]
    assert score.choose_audio_prompts(prompts, 5) == [0, 1, 3, 4, 5]
    assert score.choose_audio_prompts(prompts, 0) == []
    assert score.choose_audio_prompts(prompts, 99) == list(range(7))


def test_assess_gives_the_table_without_the_test_judge(inputs: dict[str, Path], scored: Path, tmp_path: Path) -> None:
    """Judged again and copied from the SFT policy's: both equal ``score``, without the models that only ``score`` may use."""
    table = pd.read_parquet(scored / sample_table.TABLE)
    allowed = {name: path for name, path in inputs.items() if name not in ("test", "common", "sft")}
    for name, samples, sft_inputs in (("sft_assessed", "sft_samples", {}), ("arm", "samples", {"sft": "sft_assessed"})):
        (tmp_path / name).mkdir()
        stage_inputs = {k: v for k, v in allowed.items() if sft_inputs or k != "sft_samples"} | {
            "samples": inputs[samples]
        }
        stage_inputs |= {role: tmp_path / folder for role, folder in sft_inputs.items()}
        score.assess(NoSettings(), stage_inputs, tmp_path / name, Context())
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["samples.parquet", "scalars.json"]
    assessed = pd.read_parquet(tmp_path / "arm" / sample_table.TABLE)
    hidden = ["test", "test_logprob", "common", "common_logprob"]
    pd.testing.assert_frame_equal(assessed, table.drop(columns=hidden))
    scalars = json.loads((tmp_path / "arm" / "scalars.json").read_text())
    last = assessed[assessed["step"] == STEPS[-1]]
    assert scalars["end_phone_error_rate"] == last["phone_errors"].sum() / last["phones"].sum()
    assert scalars["end_val_accuracy"] == (last["val"] == last["target"]).mean()
    assert not any("test" in name or "common" in name for name in scalars)
