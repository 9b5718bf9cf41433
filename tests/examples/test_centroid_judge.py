"""The example's judge from its file to the report, on synthetic frames."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ablations.judges import LISTENER, judges, vetoing
from ablations.outcomes import clean_success, shown
from ablations.tracking.records import Record
from reports import evaluators
from rrpo import plugins
from rrpo.config import ArmConfig, CodecConfig
from rrpo.corpus.config import WorldConfig
from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.experiment import measurements
from rrpo.experiment.cell import Cell
from rrpo.judges import opinion
from rrpo.judges.protocol import JUDGES, JudgeTrainingConfig, OpinionConfig
from rrpo.judges.samples import Samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.plugins import PluginError
from rrpo.profiles import SMOKE
from rrpo.testing.judges import JudgeContract

EXAMPLE = Path(__file__).parents[2] / "examples" / "centroid_judge.py"
WORLD = WorldConfig()
PROMPTS = 10


@pytest.fixture
def registered(no_plugins: Callable[[], None]) -> None:
    """The example's judge is loaded for one test."""
    plugins.load(EXAMPLE)


class TestCentroidJudge(JudgeContract):
    @pytest.fixture(autouse=True)
    def _loaded(self, registered: None) -> None:
        type(self).judge = JUDGES["centroid"]


def speech(folder: Path, seed: int, size: int = 40) -> Path:
    """A ``speech`` stage of frames in which each emotion has its own loud part of the spectrum."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    utterances, mels = [], []
    for i in range(size):
        k = i % len(WORLD.emotions)
        mel = rng.normal(-4.0, 1.0, (int(rng.integers(20, 40)), WORLD.audio.n_mels))
        mel[:, 16 * k : 16 * (k + 1)] += 3.0
        mels.append(mel.astype(np.float16))
        emotion = WORLD.emotions[k]
        utterances.append(
            Utterance(
                id=str(i),
                text="t",
                phones=("t",),
                speaker="anna",
                language="en",
                emotion=emotion,
                true_emotion=emotion,
                split="toy",
                audio="none.wav",
            )
        )
    write_speech(folder, WORLD.audio, WORLD.emotions, utterances, mels)
    return folder


def samples(steps: list[int]) -> Samples:
    """Drawn tokens; those of a prompt are the same at the first step of every arm."""
    rows = [(step, prompt) for step in steps for prompt in range(PROMPTS)]
    tokens = np.stack([np.random.default_rng(row).integers(0, 25, 12) for row in rows]).astype(np.int16)
    lengths = np.full(len(rows), 12, np.int16)
    if len(steps) > 1:
        lengths[-1], tokens[-1] = 0, -1
    zero, none = np.zeros(len(rows), np.int8), np.zeros(len(rows), np.float32)
    step, prompt = np.array(rows).T
    return Samples(step, prompt, tokens, lengths, zero, none, zero, none)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the two stages read."""
    root = tmp_path_factory.mktemp("inputs")
    folders = {name: root / name for name in ("codec", "eval_prompts", "samples", "sft_samples")}
    for folder in folders.values():
        folder.mkdir()
    torch.manual_seed(0)
    Codec(CodecConfig(levels=(5, 5), dim=16), WORLD.audio, ("anna",)).save(folders["codec"])
    lines = (
        {"id": str(i), "text": "t", "phones": ["t"], "speaker": "anna", "emotion": WORLD.emotions[i % 5]}
        for i in range(PROMPTS)
    )
    (folders["eval_prompts"] / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples([0]).save(folders["sft_samples"])
    samples([0, 5, 9]).save(folders["samples"])
    return folders | {"speech": speech(root / "speech", 0), "heldout": speech(root / "heldout", 1)}


@pytest.fixture
def heard(registered: None, inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the trained ``judge``, and of its opinions on ``sft`` and an ``arm``."""
    root = tmp_path_factory.mktemp("heard")
    folders = {name: root / name for name in ("judge", "sft", "arm")}
    for folder in folders.values():
        folder.mkdir()
    choice = JUDGES.choice("centroid")
    opinion.train(JudgeTrainingConfig(judge=choice), inputs, folders["judge"], Context())
    reads = inputs | {"judge": folders["judge"]}
    sft = {name: folder for name, folder in reads.items() if name != "sft_samples"}
    opinion.build(OpinionConfig(judge=choice), sft | {"samples": inputs["sft_samples"]}, folders["sft"], Context())
    opinion.build(OpinionConfig(judge=choice), reads | {"sft": folders["sft"]}, folders["arm"], Context())
    return folders


def test_it_hears_every_stored_sample(heard: dict[str, Path]) -> None:
    arm = heard["arm"]
    table = pd.read_parquet(arm / "centroid_samples.parquet")
    assert table.columns.tolist() == ["step", "prompt", "centroid", "centroid_logprob"]
    assert table[["step", "prompt"]].to_numpy().tolist() == [[s, p] for s in (0, 5, 9) for p in range(PROMPTS)]
    assert set(table["centroid"]) <= set(WORLD.emotions)
    hits = table["centroid"] == [WORLD.emotions[p % 5] for p in table["prompt"]]
    points = pd.read_parquet(arm / "centroid_points.parquet")
    assert points["centroid_accuracy"].tolist() == pytest.approx(hits.groupby(table["step"]).mean().tolist())
    scalars = json.loads((arm / "scalars.json").read_text())
    assert scalars["end_centroid_logprob"] == pytest.approx(table[table["step"] == 9]["centroid_logprob"].mean())
    assert scalars["centroid_heldout_accuracy_original"] == 1.0, "the toy emotions are easy to classify"


def test_what_equals_the_sft_policys_sample_is_not_heard_again(
    registered: None, inputs: dict[str, Path], heard: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("sft", "again"):
        (tmp_path / name).mkdir()
    sft = pd.read_parquet(heard["sft"] / "centroid_samples.parquet")
    sft.assign(centroid="marked").to_parquet(tmp_path / "sft" / "centroid_samples.parquet")
    reads = inputs | {"judge": heard["judge"], "sft": tmp_path / "sft"}
    opinion.build(OpinionConfig(judge=JUDGES.choice("centroid")), reads, tmp_path / "again", Context())
    table = pd.read_parquet(tmp_path / "again" / "centroid_samples.parquet")
    assert (table["centroid"] == "marked").tolist() == (table["step"] == 0).tolist()


def test_a_record_and_its_outcomes_have_its_columns(registered: None, heard: dict[str, Path], tmp_path: Path) -> None:
    arm = shutil.copytree(heard["arm"], tmp_path / "arm")
    rows = pd.read_parquet(arm / "centroid_samples.parquet")[["step", "prompt"]]
    target = [WORLD.emotions[p % 5] for p in rows["prompt"]]
    ours = rows.assign(target=target, test=target, phone_errors=0, phones=5, artefact_click=False)
    ours.to_parquet(arm / "samples.parquet")
    for name, column in (("points", "val_accuracy"), ("test_points", "test_accuracy")):
        pd.DataFrame({"step": [0, 5, 9], column: 1.0}).to_parquet(arm / f"{name}.parquet")
    record = Record(label="rrpo", seed=1, find=lambda: arm)
    assert {"test", "centroid", "centroid_logprob"} <= set(record.samples.columns)
    accuracy = record.points["centroid_accuracy"].iloc[-1]
    centroid = next(judge for judge in judges() if judge.name == "centroid")
    assert (centroid.label, centroid.role) == ("centroid judge", LISTENER)
    assert centroid not in vetoing()
    assert "by the centroid judge" in [gain.label for gain in evaluators.gains([])]
    outcome = next(outcome for outcome in shown([record]) if outcome.name == "centroid_accuracy")
    assert outcome.heading == "accuracy by the centroid judge, %"
    assert outcome.read(record) == accuracy
    assert clean_success(centroid).read(record) == pytest.approx(accuracy), "no artefact, and every phone is right"


def test_it_is_a_stage_of_its_own_and_no_other_key_knows_it(registered: None) -> None:
    profile = replace(SMOKE)
    cell = Cell(label="rrpo", arm=ArmConfig(), seed=1, profile=profile)
    (role,) = measurements.opinions(profile, ArmConfig(), 1)
    assert role in cell.optional
    stage = cell.optional[role]
    assert stage.inputs["sft"].inputs["judge"].key == stage.inputs["judge"].key
    assert stage.inputs["judge"].inputs["speech"].config.split.name == "judge_centroid"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JUDGES, "_items", {})
        bare = Cell(label="rrpo", arm=ArmConfig(), seed=1, profile=profile)
        assert bare.hash == cell.hash
        assert bare.optional.keys() == cell.optional.keys() - {role}


def test_an_edited_judge_is_another_stage_and_is_never_built_under_the_old_key(
    registered: None, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measurements.opinions(SMOKE, ArmConfig(), 1)
    planned = JUDGES.choice("centroid")
    monkeypatch.setattr(JUDGES, "_sources", {"centroid": "edited"})
    after = measurements.opinions(SMOKE, ArmConfig(), 1)
    assert before.keys().isdisjoint(after), "so that its results are added to records that are complete"
    assert {s.key for s in before.values()}.isdisjoint(s.key for s in after.values())
    with pytest.raises(PluginError, match="has changed since the run was planned"):
        opinion.train(JudgeTrainingConfig(judge=planned), inputs, tmp_path, Context())


def test_an_emotion_that_it_does_not_know_is_named(
    registered: None, inputs: dict[str, Path], heard: dict[str, Path], tmp_path: Path
) -> None:
    prompts = (inputs["eval_prompts"] / "prompts.jsonl").read_text()
    (tmp_path / "prompts.jsonl").write_text(prompts.replace('"angry"', '"bored"'))
    reads = inputs | {"judge": heard["judge"], "sft": heard["sft"], "eval_prompts": tmp_path}
    with pytest.raises(
        ValueError, match="centroid judge does not know the emotion 'bored', which is the target of a prompt; it knows"
    ):
        opinion.build(OpinionConfig(judge=JUDGES.choice("centroid")), reads, tmp_path, Context())


def test_a_judge_with_parameters_is_evaluated_without_gradient(
    registered: None, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = JUDGES["centroid"].train.__func__  # type: ignore[attr-defined]

    def trained(cls: type, *arguments: Any) -> Any:
        judge = train(cls, *arguments)
        judge.centroids.requires_grad_()
        return judge

    monkeypatch.setattr(JUDGES["centroid"], "train", classmethod(trained))
    monkeypatch.setattr(JUDGES["centroid"], "save", lambda judge, folder: None)
    opinion.train(JudgeTrainingConfig(judge=JUDGES.choice("centroid")), inputs, tmp_path, Context())
    assert json.loads((tmp_path / "scalars.json").read_text())["accuracy_original"] == 1.0


@pytest.mark.parametrize(
    ("broken", "words"),
    [(lambda p: p[:, :2], r"have shape \(30, 2\), not \(30, 5\)"), (lambda p: p * np.nan, "not a number")],
)
def test_output_that_is_no_log_probability_is_refused(
    registered: None,
    inputs: dict[str, Path],
    heard: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[torch.Tensor], torch.Tensor],
    words: str,
) -> None:
    right = JUDGES["centroid"].log_probs
    monkeypatch.setattr(JUDGES["centroid"], "log_probs", lambda judge, F, lengths: broken(right(judge, F, lengths)))
    reads = inputs | {"judge": heard["judge"]}
    del reads["sft_samples"]
    with pytest.raises(ValueError, match=words):
        opinion.build(OpinionConfig(judge=JUDGES.choice("centroid")), reads, tmp_path, Context())


@pytest.mark.parametrize("name", ["test", "prompt", "voice"])
def test_a_name_that_a_column_has_is_refused(registered: None, name: str) -> None:
    with pytest.raises(PluginError, match=f"already means something else in the records\n  got: {name}"):
        JUDGES.register(name, JUDGES["centroid"])
