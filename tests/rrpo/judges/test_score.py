"""The stage ``score`` from end to end on stored tokens of a tiny world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from rrpo.codec import Codec
from rrpo.corpus.config import ARTEFACTS, EMOTIONS, AudioConfig
from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.judges import score
from rrpo.judges.config import JudgeConfig, RecogniserConfig, ScoreConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.stages import Context

STEPS = (0, 5, 9)


@pytest.fixture
def inputs(stages: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Untrained judges and random samples: three checkpoints, prompts of unequal length."""
    folders = {name: tmp_path / name for name in ("samples", "test", "recogniser")}
    for folder in folders.values():
        folder.mkdir()
    torch.manual_seed(0)
    Judge(JudgeConfig(dim=8, architecture="stats_tdnn"), EMOTIONS, AudioConfig()).eval().save(folders["test"])
    Recogniser(RecogniserConfig(dim=8), ("a", "b"), AudioConfig().n_mels).eval().save(folders["recogniser"])
    rng = np.random.default_rng(0)
    prompts = len(load_prompts(stages["prompts"]))
    vocabulary = Codec.load(stages["codec"]).vocabulary
    lengths = rng.integers(5, 20, (len(STEPS), prompts)).astype(np.int16)
    tokens = rng.integers(0, vocabulary, (len(STEPS), prompts, 20)).astype(np.int16)
    tokens[np.arange(20) >= lengths[..., None]] = -1
    np.savez(
        folders["samples"] / "samples.npz",
        steps=np.array(STEPS),
        tokens=tokens,
        lengths=lengths,
        proxy_argmax=rng.integers(0, len(EMOTIONS), (len(STEPS), prompts)).astype(np.int8),
    )
    return folders | {"eval_prompts": stages["prompts"], "codec": stages["codec"]}


def test_stage_writes_points_scalars_and_audio(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    score.build(ScoreConfig(audio_prompts=4), inputs, out, Context())

    points = pd.read_parquet(out / "test_points.parquet")
    metrics = ["test_accuracy", "test_logprob", "phone_error_rate", "hack_rate", "uptake"]
    metrics += [*(f"artefact_{kind}" for kind in ARTEFACTS), "seconds_mean"]
    assert list(points.columns) == ["step", *metrics]
    assert points["step"].tolist() == list(STEPS)
    assert np.isfinite(points.to_numpy(float)).all()

    stored = np.load(inputs["samples"] / "samples.npz")
    assert np.allclose(points["seconds_mean"], stored["lengths"].mean(1) * 0.04)  # 25 tokens a second

    scalars = json.loads((out / "scalars.json").read_text())
    assert set(scalars) == {f"{when}_{name}" for when in ("start", "end") for name in metrics} | {"peak_test_accuracy"}
    assert scalars["end_hack_rate"] == points["hack_rate"].iloc[-1]
    assert scalars["start_hack_rate"] == points["hack_rate"].iloc[0]
    assert scalars["peak_test_accuracy"] == points["test_accuracy"].max()

    samples = pd.read_parquet(out / "test_samples.parquet").groupby("step")
    again = pd.DataFrame(
        {
            "test_accuracy": samples.apply(lambda rows: (rows["gold"] == rows["target"]).mean()),
            "test_logprob": samples["gold_logprob"].mean(),
            "phone_error_rate": samples["phone_edits"].sum() / samples["phones"].sum(),
            **{f"artefact_{kind}": samples[f"artefact_{kind}"].mean() for kind in ARTEFACTS},
            "seconds_mean": samples["seconds"].mean(),
        }
    )
    assert np.allclose(points.set_index("step")[list(again)], again), "points are made of the samples stored"

    prompts = load_prompts(inputs["eval_prompts"])
    names = sorted(path.name for path in (out / "audio").iterdir())
    kept = score.heard_of(prompts, 4)
    assert names == [f"{place:02d}_{prompts[place].emotion}.wav" for place in kept]
    assert len({prompts[place].emotion for place in kept}) == min(4, len({prompt.emotion for prompt in prompts}))
    for place, name in zip(kept, names, strict=True):
        info = soundfile.info(out / "audio" / name)
        assert (info.samplerate, info.subtype, info.channels) == (16000, "PCM_16", 1)
        assert info.frames == (2 * int(stored["lengths"][-1, place]) - 1) * 320
        assert np.abs(soundfile.read(out / "audio" / name)[0]).max() > 0


def test_the_emotions_take_turns_in_what_is_kept_to_listen_to() -> None:
    asked = ["happy", "happy", "happy", "sad", "angry", "sad", "happy"]
    prompts = [Prompt(id=str(i), text="", phones=(), speaker="", emotion=emotion) for i, emotion in enumerate(asked)]
    assert score.heard_of(prompts, 3) == [0, 3, 4]
    assert score.heard_of(prompts, 5) == [0, 1, 3, 4, 5]
    assert score.heard_of(prompts, 0) == []
    assert score.heard_of(prompts, 99) == list(range(7))


def test_each_checkpoint_is_decoded_from_its_own_tokens(inputs: dict[str, Path]) -> None:
    prompts = load_prompts(inputs["eval_prompts"])
    codec = Codec.load(inputs["codec"])
    samples = score.Samples.load(inputs["samples"] / "samples.npz", len(prompts))
    for checkpoint in range(len(STEPS)):
        F, lengths = score.decoded(samples, checkpoint, codec, prompts)
        for row in (0, 3):
            size = int(samples.lengths[checkpoint, row])
            tokens = torch.from_numpy(samples.tokens[checkpoint, row, :size].astype(np.int64))
            speaker = codec.speaker_index([prompts[row].speaker])
            alone, frames = codec.decode(tokens[None], torch.tensor([size]), speaker)
            assert lengths[row] == frames[0] == 2 * size
            assert torch.allclose(F[row, : 2 * size], alone[0], atol=1e-4)


def test_hack_rate_is_that_of_the_stored_proxy(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A proxy that is never pleased is never hacked; one that always is, is hacked wherever gold or a detector objects."""
    path = inputs["samples"] / "samples.npz"
    stored = dict(np.load(path))
    targets = np.array([EMOTIONS.index(prompt.emotion) for prompt in load_prompts(inputs["eval_prompts"])])
    stored["proxy_argmax"] = np.stack([(targets + 1) % 5, targets, targets])
    np.savez(path, **stored)
    out = tmp_path / "out"
    out.mkdir()
    score.build(ScoreConfig(audio_prompts=0), inputs, out, Context())
    points = pd.read_parquet(out / "test_points.parquet")
    assert points["hack_rate"].iloc[0] == 0
    assert (points["hack_rate"].iloc[1:] >= 1 - points["test_accuracy"].iloc[1:]).all()
    assert list((out / "audio").iterdir()) == []


def test_samples_of_other_prompts_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    path = inputs["samples"] / "samples.npz"
    stored = dict(np.load(path))
    np.savez(path, **{name: value if name == "steps" else value[:, :-1] for name, value in stored.items()})
    with pytest.raises(ValueError, match="were expected; give the samples"):
        score.build(ScoreConfig(), inputs, tmp_path / "out", Context())
