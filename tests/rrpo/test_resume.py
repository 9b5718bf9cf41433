"""Every trainer: a build that is killed between any two steps and restarted writes the same bytes as an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rrpo import seeding
from rrpo.config import (
    OFF,
    CodecConfig,
    FinetuneConfig,
    OptimizeConfig,
    PolicyConfig,
    PretrainConfig,
    RewardModelConfig,
    SftConfig,
)
from rrpo.judges import emotion, recogniser
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.samples import Samples
from rrpo.optimizers import DiffRO, loop
from rrpo.pipeline.errors import DivergedError, Interrupted
from rrpo.pipeline.stages import Context
from rrpo.training import codec, finetune, pretrain, sft

RM = RewardModelConfig(dim=16, layers=1, heads=2)
CONFIGS: dict[str, tuple[Callable[..., None], Any, tuple[str, ...]]] = {
    "codec": (codec.build, CodecConfig(levels=(5, 5), dim=16, steps=6, batch=8, crop=8), ("speech",)),
    "recogniser": (recogniser.build, RecogniserConfig(dim=16, steps=6, batch=8), ("speech", "codec")),
    "judge": (emotion.build, JudgeConfig(dim=16, steps=6, batch=8), ("speech", "heldout", "codec")),
    "wave judge": (
        emotion.build,
        JudgeConfig(architecture="stats_tdnn", dim=16, steps=6, batch=8),
        ("speech", "heldout", "codec"),
    ),
    "pretrain": (pretrain.build, PretrainConfig(steps=6, batch=8, model=RM), ("speech", "codec")),
    "finetune": (finetune.build, FinetuneConfig(steps=6, batch=8), ("speech", "codec", "model")),
    "base": (
        sft.build,
        SftConfig(steps=6, batch=8, model=PolicyConfig(dim=16, layers=1, heads=2, max_tokens=8)),
        ("speech", "heldout", "codec"),
    ),
    "sft": (sft.build, SftConfig(steps=6, batch=8), ("speech", "heldout", "codec", "base")),
    "optimize": (
        loop.build,
        OptimizeConfig(steps=6, batch=8, checkpoints=(0, 3, 6), eval_prompts=5, final_prompts=12),
        ("policy", "reward_model", "recogniser", "codec", "val", "rl_prompts", "eval_prompts"),
    ),
}
BUILT_FIRST = {"model": "pretrain", "reward_model": "pretrain", "base": "base", "policy": "base", "val": "judge"}
"""The case whose result is this input; for ``recogniser`` the case of the same name."""


class Killed(BaseException):
    """Not an Exception, so that it cannot be handled, like a signal."""


@pytest.fixture(scope="session")
def toy(
    tmp_path_factory: pytest.TempPathFactory, toy_speech: Callable[..., Path], toy_codec: Path
) -> Callable[[str], tuple[Callable[..., None], Any, Mapping[str, Path], Path]]:
    """A case's build, config, inputs, and the folder of its uninterrupted result."""
    root = tmp_path_factory.mktemp("whole")
    prompts = root / "prompts"
    prompts.mkdir()
    rows = [
        {
            "id": str(i),
            "text": "t",
            "phones": ["t"] * (1 + i % 3),
            "speaker": ("anna", "ben")[i % 2],
            "emotion": emotion,
        }
        for i, emotion in enumerate(("angry", "happy", "sad") * 6)
    ]
    (prompts / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = {"speech": toy_speech(60), "heldout": toy_speech(20, seed=5), "codec": toy_codec}
    known |= {"rl_prompts": prompts, "eval_prompts": prompts}

    def case(name: str) -> tuple[Callable[..., None], Any, Mapping[str, Path], Path]:
        build, config, roles = CONFIGS[name]
        inputs = {role: known[role] if role in known else case(BUILT_FIRST.get(role, role))[3] for role in roles}
        out = root / name
        if not out.exists():
            out.mkdir()
            build(config, inputs, out, Context())
        return build, config, inputs, out

    return case


Toy = Callable[[str], tuple[Callable[..., None], Any, Mapping[str, Path], Path]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def killed_at(step: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return report


@pytest.mark.parametrize("name", CONFIGS)
def test_killed_and_resumed_is_undisturbed(name: str, toy: Toy, tmp_path: Path) -> None:
    """Kill after every step in turn, damage the newest checkpoint once, then let the build finish."""
    build, config, inputs, uninterrupted = toy(name)
    saves = Context(checkpoints=tmp_path / "checkpoints", checkpoint_seconds=0.0)
    out = tmp_path / "out"
    steps = [1, 2, 3, 4, 5]
    for step in steps:
        torch.manual_seed(step)  # what a new process's generator happens to hold
        out.mkdir()
        with pytest.raises(Killed):
            build(config, inputs, out, replace(saves, report=killed_at(step)))
        shutil.rmtree(out)
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    out.mkdir()
    reports: list[int] = []
    build(config, inputs, out, replace(saves, report=lambda done, total: reports.append(done)))
    assert reports == [5, 6]
    assert contents(out) == contents(uninterrupted)


@pytest.mark.parametrize("name", ["finetune", "optimize"])
def test_a_request_to_stop_saves_and_the_next_build_goes_on(name: str, toy: Toy, tmp_path: Path) -> None:
    build, config, inputs, uninterrupted = toy(name)
    reports: list[int] = []
    context = Context(checkpoints=tmp_path / "checkpoints", report=lambda done, total: reports.append(done))
    with pytest.raises(Interrupted, match="before step 4"):
        build(config, inputs, tmp_path, replace(context, stop=lambda: len(reports) == 2))
    out = tmp_path / "out"
    out.mkdir()
    build(config, inputs, out, context)
    assert reports == [1, 2, 4, 5, 6]
    assert contents(out) == contents(uninterrupted)


def test_the_last_checkpoint_asks_more_prompts_and_the_same_first_ones(toy: Toy, tmp_path: Path) -> None:
    """12 of 18 prompts are sampled at the end, 5 before; an SFT policy, which only has an end, gives the same samples for the
    first 5."""
    build, config, inputs, uninterrupted = toy("optimize")
    samples = Samples.load(uninterrupted, prompts=18)
    assert {step: samples.at(step).prompt.tolist() for step in samples.steps} == {
        0: [*range(5)],
        3: [*range(5)],
        6: [*range(12)],
    }
    build(replace(config, steps=0), inputs, tmp_path, Context())
    sft = Samples.load(tmp_path, prompts=18)
    assert (sft.steps, sft.prompt.tolist()) == ([0], [*range(12)])
    first, again = samples.at(0), sft.select(sft.prompt < 5)
    for name in ("lengths", "proxy_argmax", "proxy_logprob", "val_argmax", "val_logprob"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    size = min(first.tokens.shape[1], again.tokens.shape[1])
    assert np.array_equal(first.tokens[:, :size], again.tokens[:, :size])


def test_points_are_means_over_the_stored_samples(toy: Toy) -> None:
    folder = toy("optimize")[3]
    samples, points = Samples.load(folder, prompts=18), pd.read_parquet(folder / "points.parquet").set_index("step")
    target = [("angry", "happy", "sad")[prompt % 3] for prompt in samples.prompt]
    for name in ("proxy", "val"):
        predicted = np.array(("angry", "happy", "sad"))[getattr(samples, f"{name}_argmax")]
        logprob = getattr(samples, f"{name}_logprob")
        for step in samples.steps:
            rows = samples.step == step
            assert points.loc[step, f"{name}_accuracy"] == pytest.approx((predicted == target)[rows].mean())
            assert points.loc[step, f"{name}_logprob"] == pytest.approx(logprob[rows].mean(), rel=1e-5)
    assert points.loc[6, "length"] == pytest.approx(samples.at(6).lengths.mean())


def test_a_resumed_optimisation_is_watched_from_its_start(toy: Toy, tmp_path: Path) -> None:
    build, config, inputs, _ = toy("optimize")
    context = Context(checkpoints=tmp_path / "checkpoints", checkpoint_seconds=0.0)
    rows: dict[str, list[tuple[int, dict[str, float]]]] = {"whole": [], "resumed": []}
    build(config, inputs, tmp_path, Context(on_measures=lambda step, row: rows["whole"].append((step, dict(row)))))
    with pytest.raises(Killed):
        build(config, inputs, tmp_path, replace(context, report=killed_at(4)))
    build(
        config,
        inputs,
        tmp_path,
        replace(context, on_measures=lambda step, row: rows["resumed"].append((step, dict(row)))),
    )
    assert [step for step, _ in rows["resumed"]] == list(range(6))
    assert repr(rows["resumed"]) == repr(rows["whole"])


def test_nothing_is_kept_of_an_optimisation_that_its_watcher_ends(toy: Toy, tmp_path: Path) -> None:
    build, config, inputs, _ = toy("optimize")

    def on_measures(step: int, row: Mapping[str, float]) -> None:
        if step == 2:
            raise RuntimeError("pruned")

    context = Context(checkpoints=tmp_path / "checkpoints", checkpoint_seconds=0.0, on_measures=on_measures)
    with pytest.raises(RuntimeError, match="pruned"):
        build(config, inputs, tmp_path, context)
    assert not (tmp_path / "checkpoints").exists()


def test_fewer_samples_a_forward_are_the_same_run_up_to_rounding(toy: Toy, tmp_path: Path) -> None:
    """Also from a checkpoint written with a larger micro-batch, as after running out of memory."""
    build, config, inputs, uninterrupted = toy("optimize")
    context = Context(micro=3, checkpoints=tmp_path / "checkpoints", checkpoint_seconds=0.0)
    build(config, inputs, tmp_path, replace(context, checkpoints=None))
    fresh, usual = (pd.read_parquet(folder / "curves.parquet") for folder in (tmp_path, uninterrupted))
    assert not fresh.equals(usual), "the batch was not cut differently"
    pd.testing.assert_frame_equal(fresh, usual, rtol=1e-3, atol=1e-4)
    with pytest.raises(Killed):
        build(config, inputs, tmp_path, replace(context, micro=None, report=killed_at(3)))
    build(config, inputs, tmp_path, context)
    resumed = pd.read_parquet(tmp_path / "curves.parquet")
    pd.testing.assert_frame_equal(resumed[:3], usual[:3], check_exact=True)
    pd.testing.assert_frame_equal(resumed, usual, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_reward_that_is_not_finite_stops_before_the_update(
    value: float, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted into one sample of the third step's batch, and hidden from loss and gradient by its weight of zero."""
    build, config, inputs, _ = toy("optimize")
    before: list[torch.Tensor] = []
    held: list[Any] = []
    take, updates = loop.take_step, DiffRO.updates

    def watched(models: Any, *rest: Any) -> Any:
        before[:] = [parameter.detach().clone() for parameter in models.policy.parameters()]
        held.append(models)
        return take(models, *rest)

    def spoilt(self: DiffRO, models: Any, batch: Any, *rest: Any) -> Any:
        for losses in updates(self, models, batch, *rest):
            yield (_spoil(loss, value) if batch.step == 2 else loss for loss in losses)

    def _spoil(loss: Any, value: float) -> Any:
        loss.values["reward_loss"][0] = value
        return loss

    monkeypatch.setattr(loop, "take_step", watched)
    monkeypatch.setattr(DiffRO, "updates", spoilt)
    with pytest.raises(DivergedError, match=r"policy step 3 of 6: .* 1 of 8 rewards not finite"):
        build(config, inputs, tmp_path, Context())
    for now, then in zip(held[-1].policy.parameters(), before, strict=True):
        assert torch.equal(now, then)


def test_the_first_updates_move_the_policy_by_their_warmed_rate(toy: Toy, tmp_path: Path) -> None:
    """Adam's first step has the length of its rate in every weight with a gradient: a longer warm-up stays closer."""
    build, config, inputs, _ = toy("optimize")
    moved = {}
    for warmup in (0, 10):
        out = tmp_path / str(warmup)
        out.mkdir()
        build(replace(config, lr=4e-3, steps=1, checkpoints=(), warmup=warmup), inputs, out, Context())
        moved[warmup] = float(pd.read_parquet(out / "points.parquet")["kl_token"].iloc[-1])
    assert 0 < moved[10] < 0.1 * moved[0]


def test_a_matched_gradient_is_a_scaled_one_to_the_last_bit(toy: Toy, tmp_path: Path) -> None:
    """Half as large as the target, so scaled by 2; the record contains the factor."""
    build, config, inputs, _ = toy("optimize")
    sizes = {"own_fidelity": 1.5, "rrpo_fidelity": 3.0, "matched": None, "scaled": None}
    for name, predicted in sizes.items():
        (tmp_path / name).mkdir()
        if predicted:
            swaps = pd.DataFrame({"kind": ["many"], "predicted": [predicted]})
            swaps.to_parquet(tmp_path / name / "fidelity_swaps.parquet")
    fidelity_inputs = {name: tmp_path / name for name in ("own_fidelity", "rrpo_fidelity")}
    build(config, {**inputs, **fidelity_inputs}, tmp_path / "matched", Context())
    build(replace(config, gradient_scale=2.0), inputs, tmp_path / "scaled", Context())
    matched, scaled = (contents(tmp_path / name) for name in ("matched", "scaled"))
    scalars, plain = (json.loads(files.pop("scalars.json")) for files in (matched, scaled))
    assert matched == scaled
    assert scalars == plain | {"gradient_match": 2.0}


def test_frames_that_are_not_numbers_stop_the_step_that_reads_them(toy: Toy, tmp_path: Path) -> None:
    """In the annotated set's utterances of the third batch; half of them the codec gives back as numbers."""
    build, config, inputs, _ = toy("finetune")
    speech = tmp_path / "speech"
    shutil.copytree(inputs["speech"], speech)
    third = seeding.permutation_batches(60, 8, 6, config.seed, "finetune.order")[2]  # no utterance comes twice
    mel = np.load(speech / "mel.npy")
    mel[np.load(speech / "offsets.npy")[third], 3] = np.nan
    np.save(speech / "mel.npy", mel)
    reports: list[int] = []
    with pytest.raises(DivergedError, match="step 3 of 6"):
        build(
            replace(config, regularizers=OFF),
            {**inputs, "speech": speech},
            tmp_path,
            Context(report=lambda done, total: reports.append(done)),
        )
    assert reports == [1, 2]
