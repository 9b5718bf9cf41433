"""Members of a stack against the same stages built alone, on toy models: three arms with different seeds."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rrpo.config import OptimizeConfig, RegularizerConfig
from rrpo.models.ensemble import RewardEnsemble
from rrpo.models.policy import Policy
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers import OPTIMIZERS
from rrpo.pipeline.errors import DivergedError, Interrupted
from rrpo.pipeline.executor import Executor
from rrpo.pipeline.stages import MARKER, Context, Stage, materialise
from rrpo.plugins import Choice
from rrpo.stacking.build import build
from rrpo.stacking.encoders import Encoders
from rrpo.stacking.optimizations import Optimizations
from rrpo.stacking.policies import StackedPolicy
from rrpo.testing.toy_models import optimize_inputs, toy_policy

DIFFRO, REINFORCE = OPTIMIZERS.choice("diffro"), OPTIMIZERS.choice("reinforce", samples=4)
GRPO = OPTIMIZERS.choice("grpo", samples=4, epochs=2)
OWN = {"reinforce": REINFORCE, "grpo": GRPO, "emo-dpo": OPTIMIZERS.choice("emo-dpo", pairs="samples", texts=8)}
"""Options by optimizer, if the defaults do not suit toy models."""
ALIKE = [OWN.get(name, OPTIMIZERS.choice(name)) for name in sorted(OPTIMIZERS)]


@dataclass(frozen=True)
class Copied:
    """Config of a stage that copies a folder."""

    folder: str


def build_copy(config: Copied, inputs: dict[str, Path], out: Path, context: Context) -> None:
    shutil.copytree(config.folder, out, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write toy models, including three policies and three reward models."""
    folder = tmp_path_factory.mktemp("toy")
    inputs = optimize_inputs(folder)
    for seed in range(3):
        torch.manual_seed(seed)
        policy, model = Policy.load(inputs["policy"]), RewardModel.load(inputs["reward_model"])
        model.regularizers = RegularizerConfig(epsilon=0.1 * seed, alpha=0.5 * seed, epsilon_adv=1.0)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            policy.pace.uniform_(0.5, 1.5)
            model.head.weight.mul_(torch.rand_like(model.head.weight))
        for name, network in (("policy", policy), ("reward_model", model)):
            inputs[f"{name} {seed}"] = folder / f"{name} {seed}"
            inputs[f"{name} {seed}"].mkdir()
            network.save(inputs[f"{name} {seed}"])
    return inputs


def stage(toy: dict[str, Path], seed: int, optimizer: Choice = DIFFRO, **changes: Any) -> Stage:
    """Return an optimization of three updates with policy, reward model and arm number ``seed``."""
    settings: dict[str, Any] = {"steps": 3, "batch": 8, "lr": 0.01, "warmup": 0, "checkpoints": (0, 2), "seed": seed}
    settings |= {"eval_prompts": 6, "final_prompts": 12, "optimizer": optimizer, "beta": 0.1 * seed}
    settings |= {"reward": ("hard_ce", "smoothed_ce", "full_l_ser")[seed], "content_weight": 0.5 * seed}
    settings |= {"tau": (1.0, 0.8) if seed == 1 else (1.0,), "schedule": "cosine" if seed == 2 else "constant"}
    inputs = dict(toy) | {name: toy[f"{name} {seed}"] for name in ("policy", "reward_model")}
    return Stage(
        "optimize",
        "rrpo.optimizers.loop:build",
        OptimizeConfig(**(settings | changes)),
        {
            name: Stage("codec", f"{__name__}:build_copy", Copied(str(path)))
            for name, path in inputs.items()
            if " " not in name
        },
        f"member {seed}",
    )


def results(folder: Path) -> dict[str, Any]:
    samples = np.load(folder / "samples.npz")
    return {
        "curves": pd.read_parquet(folder / "curves.parquet"),
        "points": pd.read_parquet(folder / "points.parquet"),
        "tokens": samples["tokens"],
        "scalars": json.loads((folder / "scalars.json").read_text()),
    }


def assert_alike(one: Path, other: Path) -> None:
    """Assert that numbers are equal up to rounding before the first update, and close after it.

    Updates enlarge rounding differences, so that on some processors a later token is drawn differently.
    """
    one_, other_ = results(one), results(other)
    assert one_["tokens"].shape == other_["tokens"].shape
    assert (one_["tokens"] == other_["tokens"]).mean() > 0.9
    for name in ("curves", "points"):
        pairs = [
            tables[name].drop(columns="preferred", errors="ignore") for tables in (one_, other_)
        ]  # ties at the start
        pd.testing.assert_frame_equal(*(table[:1] for table in pairs), rtol=1e-3, atol=1e-5)
        pd.testing.assert_frame_equal(*pairs, rtol=0.2, atol=0.05)
    assert one_["scalars"] == pytest.approx(other_["scalars"], rel=0.2, abs=0.05)


def saved_parameters(store: Path, member: Stage) -> dict[int, torch.Tensor]:
    """Return number of an update -> the parameters after it, concatenated, of the checkpoints that are left."""
    paths = (store / "checkpoints" / member.folder).glob("*.ckpt")
    contents = [torch.load(path, weights_only=True) for path in paths]
    return {each["step"]: torch.cat([p.flatten() for p in each["parameters"]]) for each in contents}


def built(result: Path | BaseException) -> Path:
    if isinstance(result, BaseException):
        raise result
    return result


@pytest.mark.parametrize(
    "optimizers",
    [*((choice,) * 3 for choice in ALIKE), (REINFORCE, DIFFRO, GRPO)],
    ids=[*(choice.name for choice in ALIKE), "mixed"],
)
def test_a_member_equals_the_single_cell(
    optimizers: tuple[Choice, ...], toy: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over three updates: samples, curves, evaluation points, and the parameters at the end."""
    members = [stage(toy, seed, optimizer) for seed, optimizer in enumerate(optimizers)]
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # checkpoints stay
    context = Context(checkpoint_seconds=0.0)
    single, together = tmp_path / "single", tmp_path / "together"
    for member in members:
        materialise(member, single, context)
    folders = build(members, together, context)
    for seed, (member, folder) in enumerate(zip(members, map(built, folders), strict=True)):
        assert folder == member.path(together)
        assert_alike(member.path(single), folder)
        start = torch.cat([parameter.flatten() for parameter in Policy.load(toy[f"policy {seed}"]).parameters()])
        alone, stacked_ = saved_parameters(single, member), saved_parameters(together, member)
        for step, share in ((2, 0.05), (3, 0.2)):
            movement = float((alone[step] - start.detach()).norm())
            assert float((stacked_[step] - alone[step]).norm()) < share * movement
        assert json.loads((folder / MARKER).read_text())["executor"] == "stacked(3)"
        assert "executor" not in json.loads((member.path(single) / MARKER).read_text())


def test_bf16_is_the_policies_and_a_member_equals_the_single_cell(toy: dict[str, Path], tmp_path: Path) -> None:
    """Within bfloat16's rounding; the deterministic switch changes no bit on the CPU."""
    member = stage(toy, 0, steps=1)
    bf16 = Context(executor=Executor(precision="bf16"))
    exact, fixed, single = (
        results(materialise(member, tmp_path / str(i), context))
        for i, context in enumerate((Context(), Context(executor=Executor(deterministic=True)), bf16))
    )
    assert fixed["scalars"] == exact["scalars"]
    (folder,) = build([member], tmp_path / "together", bf16)
    together = results(built(folder))
    assert json.loads((built(folder) / MARKER).read_text())["executor"] == "stacked(1) bf16"
    start, coarse = (tables["curves"]["entropy"][0] for tables in (exact, single))
    assert coarse != start, "nothing was rounded"
    assert coarse == pytest.approx(start, rel=1e-2)
    for name in ("reward_loss", "entropy", "grad_norm"):
        assert together["curves"][name][0] == pytest.approx(single["curves"][name][0], rel=0.05), name


def test_a_diverging_member_does_not_affect_the_others(toy: dict[str, Path], tmp_path: Path) -> None:
    model = RewardModel.load(toy["reward_model 1"])
    with torch.no_grad():
        model.inlet.bias.fill_(torch.nan)
    (tmp_path / "nan").mkdir()
    model.save(tmp_path / "nan")
    members = [stage(toy | {"reward_model 1": tmp_path / "nan"}, seed) for seed in range(3)]
    first, second, third = build(members, tmp_path / "together", Context(checkpoint_seconds=0.0))
    assert isinstance(second, DivergedError)
    assert not members[1].done(tmp_path / "together")
    assert not (tmp_path / "together" / "checkpoints" / members[1].folder).exists()
    for member, folder in ((members[0], first), (members[2], third)):
        assert_alike(materialise(member, tmp_path / "single", Context()), built(folder))


def test_members_of_a_stopped_stack_resume_alone_or_in_another_stack(toy: dict[str, Path], tmp_path: Path) -> None:
    """All are stopped after one update; one member resumes alone, then all are built together again."""
    members = [stage(toy, seed) for seed in range(3)]
    steps = []
    stopped = Context(
        checkpoint_seconds=0.0, stop=lambda: len(steps) >= 3, report=lambda done, total: steps.append(done)
    )
    store = tmp_path / "together"
    results = build(members, store, stopped)
    assert all(isinstance(error, Interrupted) for error in results)
    assert all(list((store / "checkpoints" / member.folder).glob("00000002-*.ckpt")) for member in members)
    materialise(members[1], store, Context())
    again: list[tuple[int, int]] = []
    folders = build(members, store, Context(report=lambda done, total: again.append((done, total))))
    assert len(again) == 2, "two members had an update left"
    assert json.loads((members[1].path(store) / MARKER).read_text()).get("executor") is None
    for member, folder in zip(members, folders, strict=True):
        assert_alike(materialise(member, tmp_path / "single", Context()), built(folder))


def _die_after(updates: int, toy: dict[str, Path], store: Path) -> None:
    reports: list[int] = []

    def report(done: int, total: int) -> None:
        reports.append(done)
        if len(reports) == updates:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    build([stage(toy, seed) for seed in range(3)], store, Context(checkpoint_seconds=0.0, report=report))


def test_a_killed_stack_resumes(toy: dict[str, Path], tmp_path: Path) -> None:
    """SIGKILL ends a process after the fifth of nine updates; another process finishes the stages."""
    process = multiprocessing.get_context("fork").Process(target=_die_after, args=(5, toy, tmp_path / "together"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again: list[int] = []
    members = [stage(toy, seed) for seed in range(3)]
    folders = build(members, tmp_path / "together", Context(report=lambda done, total: again.append(done)))
    assert len(again) == 4
    for member, folder in zip(members, folders, strict=True):
        assert_alike(materialise(member, tmp_path / "single", Context()), built(folder))


def test_members_read_one_codec(toy: dict[str, Path], tmp_path: Path) -> None:
    members = [stage(toy, 0), stage(toy | {"codec": tmp_path}, 1)]
    with pytest.raises(ValueError, match="the same inputs in common"):
        build(members, tmp_path / "store", Context())


def test_different_architectures_are_rejected() -> None:
    with pytest.raises(ValueError, match="one architecture"):
        StackedPolicy([toy_policy(8), toy_policy(9)])


def policies() -> list[Policy]:
    """Return three policies that differ."""
    members = []
    for seed in range(3):
        policy = toy_policy(12)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        members.append(policy)
    return members


PREFIXES = [torch.tensor(rows) for rows in ([[0, 3, 6, 2, 7], [3, 5, 2, 8, 7]], [[4, 6, 2], [2, 5, 2]])]
"""Prompts of two members; one has longer prompts."""


def test_some_of_the_members_can_be_asked() -> None:
    """Samples and gradients of the first and the last of three; the other gets no gradient."""
    alone, together = policies(), policies()
    stack = StackedPolicy(together)
    noises = [torch.rand((12, 2), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    samples = stack.sample([0, 2], PREFIXES, noises)
    for policy, prefix, noise, rollout in zip((alone[0], alone[2]), PREFIXES, noises, samples, strict=True):
        expected = policy.sample(prefix, noise)
        assert torch.equal(rollout.tokens, expected.tokens)
        assert torch.equal(rollout.lengths, expected.lengths)
        assert torch.equal(rollout.ended, expected.ended)
        policy.packed_logits(prefix, expected.tokens, expected.counts).square().sum().backward()
    counts = [rollout.counts for rollout in samples]
    logits = stack.packed_logits([0, 2], PREFIXES, [rollout.tokens for rollout in samples], counts)
    first, last = (own.square().sum() for own in logits)
    stack.parameters.backward([0], [first], keep=True)  # the last member's loss shares the graph and comes later
    stack.parameters.backward([2], [last], keep=False)
    assert all(parameter.grad is None for parameter in together[1].parameters())
    for one, other in ((alone[0], together[0]), (alone[2], together[2])):
        for name, parameter in one.named_parameters():
            if parameter.grad is not None:
                gradient = other.get_parameter(name).grad
                assert gradient is not None
                assert float((gradient - parameter.grad).norm()) <= 1e-4 * float(parameter.grad.norm()) + 1e-3, name


def test_encoders_of_several_architectures(toy: dict[str, Path]) -> None:
    """A reward model, an ensemble of two, another reward model; frames of different lengths."""
    first, second, third = (RewardModel.load(toy[f"reward_model {seed}"]) for seed in range(3))
    models = [first, RewardEnsemble([second, third], "mean"), third]
    frames = [torch.randn(2, T, first.n_mels) for T in (13, 8, 9)]
    lengths = [torch.tensor([len(F[0]), 5]) for F in frames]
    encoded = Encoders(models).encode([0, 1, 2], frames, lengths)
    for model, F, n, (h, mask) in zip(models, frames, lengths, encoded, strict=True):
        expected, valid = model.encode(F, n)
        assert torch.equal(mask, valid)
        assert torch.allclose(h, expected, atol=1e-5)


@pytest.mark.parametrize("others", [True, False])
def test_a_graph_is_kept_while_others_have_no_loss_yet(others: bool) -> None:
    retained: list[bool] = []
    stack = Optimizations()
    stack.index = {5: 0}
    stack.trained = SimpleNamespace(backward=lambda members, losses, keep: retained.append(keep))  # type: ignore[assignment]
    stack.answer("backward", [5], [(torch.zeros(()),)], others=others)
    assert retained == [others]


def test_a_step_over_the_whole_cache_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph requires: one step with static shapes, with all state in buffers."""
    from rrpo.stacking.policies import _TokenSteps

    stack = StackedPolicy(policies())
    prefixes = [PREFIXES[0], PREFIXES[1], PREFIXES[0]]
    noises = [torch.rand((12, 2), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    expected = stack.sample([0, 1, 2], prefixes, noises)
    growing = _TokenSteps.step
    monkeypatch.setattr(_TokenSteps, "step", lambda self, end: growing(self, self.longest))
    monkeypatch.setattr("rrpo.stacking.policies.LEAVE", 0.0)
    for one, other in zip(expected, stack.sample([0, 1, 2], prefixes, noises), strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.lengths, other.lengths)


def test_an_optimiser_that_differentiates_by_itself_is_rejected() -> None:
    """It frees the graph that another member's loss shares."""
    stack = Optimizations()
    stack.index = {0: 0, 1: 1}
    stack.policy = StackedPolicy(policies()[:2])
    stack.trained = stack.policy.parameters
    tokens = [torch.tensor([[1, 2], [3, 4]])] * 2
    first, second = (
        own.square().sum() for own in stack.policy.packed_logits([0, 1], PREFIXES, tokens, [torch.tensor([3, 3])] * 2)
    )
    torch.autograd.grad(first, list(stack.policy.parameters.weights.values()), allow_unused=True)
    with pytest.raises(RuntimeError, match="with --stack 1, or have its optimizer yield"):
        stack.answer("backward", [1], [(second,)], others=False)
