"""SFT, pre-training and fine-tuning in a stack against the same stages built alone, on toy data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.grids import arms
from rrpo.config import (
    FinetuneConfig,
    PolicyConfig,
    PretrainConfig,
    RegularizerConfig,
    RewardModelConfig,
    SftConfig,
)
from rrpo.experiment import dataflow
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.errors import Interrupted
from rrpo.pipeline.executor import Executor
from rrpo.pipeline.stages import MARKER, Context, Stage, materialise
from rrpo.profiles import SMOKE
from rrpo.regularizers.registry import configured
from rrpo.stacking.build import STACKS, build
from rrpo.stacking.encoders import Encoders, dropout_masks
from rrpo.stacking.groups import SHARED, stack_group

RM = RewardModelConfig(dim=16, layers=2, heads=2, dropout=0.3)
POLICY = PolicyConfig(dim=16, layers=1, heads=2, max_tokens=8)
STEPS = 4


@dataclass(frozen=True)
class Copied:
    """Config of a stage that copies a folder."""

    folder: str


def build_copy(config: Copied, inputs: dict[str, Path], out: Path, context: Context) -> None:
    shutil.copytree(config.folder, out, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def inputs(toy_speech: Callable[..., Path], toy_codec: Path) -> dict[str, Stage]:
    folders = {"speech": toy_speech(60), "heldout": toy_speech(20, seed=5), "codec": toy_codec}
    return {name: Stage("codec", f"{__name__}:build_copy", Copied(str(path))) for name, path in folders.items()}


def trainings(kind: str, inputs: dict[str, Stage]) -> list[Stage]:
    """Return three stages of a kind with different seeds; the fine-tunings have different regularizers."""
    data = {name: inputs[name] for name in ("speech", "codec")}
    regularizers = [RegularizerConfig(), RegularizerConfig(alpha=0.0, epsilon=0.0), configured({"pgd": {}})]
    stages = []
    for seed, strengths in enumerate(regularizers):
        pretrain = PretrainConfig(steps=STEPS, batch=8, model=RM, seed=seed)
        if kind == "sft":
            base = SftConfig(steps=2, batch=8, model=POLICY)
            start = Stage("base", "rrpo.training.sft:build", base, inputs)
            config: Any = SftConfig(steps=STEPS, batch=8, model=POLICY, seed=seed, tag_dropout=0.5)
            stages.append(Stage("sft", "rrpo.training.sft:build", config, inputs | {"base": start}, "SFT"))
            continue
        stage = Stage("pretrain", "rrpo.training.pretrain:build", pretrain, data, "pre-training")
        if kind == "finetune":
            config = FinetuneConfig(steps=STEPS, batch=8, seed=seed, regularizers=strengths)
            stage = Stage("finetune", "rrpo.training.finetune:build", config, data | {"model": stage}, "fine-tuning")
        stages.append(stage)
    return stages


def built(results: Sequence[Path | BaseException]) -> list[Path]:
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Path)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights but for the keys' biases: softmax cancels them, so that their gradients are rounding alone."""
    (path,) = folder.glob("*.pt")
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return {
        name: value
        for name, value in state.items()
        if "queries_keys_values.bias" not in name and "k_proj.bias" not in name
    }


@pytest.mark.parametrize("kind", ["sft", "pretrain", "finetune"])
def test_a_member_equals_the_single_training(kind: str, inputs: dict[str, Stage], tmp_path: Path) -> None:
    """Weights, scalars and the size of the files after four steps; dropout, regularizers and curves are each member's own."""
    stages = trainings(kind, inputs)
    single, together = tmp_path / "single", tmp_path / "together"
    alone = [materialise(stage, single, Context()) for stage in stages]
    folders = built(build(stages, together, Context()))
    for one, other in zip(alone, folders, strict=True):
        expected, actual = weights(one), weights(other)
        assert expected.keys() == actual.keys()
        for name, value in expected.items():
            assert torch.allclose(actual[name], value, atol=2e-5, rtol=1e-3), name
        scalars = [json.loads((folder / "scalars.json").read_text()) for folder in (one, other)]
        assert scalars[1] == pytest.approx(scalars[0], rel=1e-3, abs=1e-5)
        sizes = [next(folder.glob("*.pt")).stat().st_size for folder in (one, other)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.1), "a member's file holds its own weights only"
        assert json.loads((other / MARKER).read_text())["executor"] == "stacked(3)"
    first, second, _ = (torch.cat([value.flatten() for value in weights(folder).values()]) for folder in folders)
    assert not torch.allclose(first, second, atol=1e-3), "the members differ"


def test_only_policies_are_optimized_in_reduced_precision(
    inputs: dict[str, Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is process-wide, and markers of trainings do not name a precision."""
    used: list[str] = []
    monkeypatch.setattr(
        "rrpo.stacking.build.lockstep.run",
        lambda programs, answer: used.append(torch.get_float32_matmul_precision()) or [],
    )
    for kind in ("sft", "pretrain"):
        build(trainings(kind, inputs), tmp_path, Context(executor=Executor(3, "tf32")))
    assert used == ["highest", "highest"]


def test_a_stopped_stack_resumes(inputs: dict[str, Stage], tmp_path: Path) -> None:
    """Each member from its own checkpoint, one of them alone; a checkpoint holds its member's weights only."""
    stages = trainings("finetune", inputs)
    store, done = tmp_path / "together", []
    for stage in stages:
        for child in stage.inputs.values():
            materialise(child, store, Context())
    stopping = Context(checkpoint_seconds=0.0, stop=lambda: len(done) >= 3, report=lambda *now: done.append(now))
    assert all(isinstance(result, Interrupted) for result in build(stages, store, stopping))
    saved = [max((store / "checkpoints" / stage.folder).glob("*.ckpt")).stat().st_size for stage in stages]
    size = sum(value.nbytes for value in weights(stages[0].inputs["model"].path(store)).values())
    assert max(saved) < 5 * size  # weights and Adam's two moments
    folders = [materialise(stages[1], store, Context()), *built(build([stages[0], stages[2]], store, Context()))]
    for stage, folder in zip((stages[1], stages[0], stages[2]), folders, strict=True):
        expected = weights(materialise(stage, tmp_path / "single", Context()))
        for name, value in weights(folder).items():
            assert torch.allclose(value, expected[name], atol=2e-5, rtol=1e-3), name


def test_masks_are_the_dropout_that_the_model_draws(toy_codec: Path) -> None:
    torch.manual_seed(0)
    model = RewardModel(RM, ("angry", "happy"), 8, 1e-5)
    F, lengths = torch.randn(3, 13, 8), torch.tensor([13, 7, 4])
    torch.manual_seed(1)
    expected, valid = model.encode(F, lengths)
    torch.manual_seed(1)
    masks = dropout_masks(model, F)
    assert {round(float(value), 4) for value in masks.unique()} == {0.0, round(1 / 0.7, 4)}
    ((h, mask),) = Encoders([model]).encode([0], [F], [lengths], [masks])
    assert torch.equal(mask, valid)
    assert torch.allclose(h, expected, atol=1e-5)
    assert not torch.allclose(h, Encoders([model.eval()]).encode([0], [F], [lengths])[0][0], atol=1e-2)


def test_what_can_be_stacked() -> None:
    """Trainings of one network; not what differentiates through the encoder, nor what depends on a stage of its own group."""
    known = arms()

    def model(arm: str, seed: int = 1) -> Stage:
        return dataflow.reward_model(SMOKE, known[arm], seed)

    assert stack_group(model("rrpo")) == stack_group(model("ls", 2)) == stack_group(model("pgd"))
    assert stack_group(model("fgm-input")) is None, "it differentiates through the encoder"
    pretrained = model("pretrained")
    assert (pretrained.name, pretrained.key) == ("pretrain", model("rrpo").inputs["model"].key)
    assert stack_group(pretrained) == stack_group(model("oracle", 2)) != stack_group(model("rrpo"))
    assert stack_group(dataflow.sft(SMOKE, 1)) == stack_group(dataflow.sft(SMOKE, 2))
    assert stack_group(dataflow.sft(SMOKE, 1, tag_dropout=0.1)) != stack_group(dataflow.sft(SMOKE, 1))
    assert stack_group(model("rrpo").inputs["speech"]) is None
    policies = [dataflow.optimized(SMOKE, replace(known["rrpo"], tag_dropout=share), 1) for share in (0.0, 0.1)]
    assert stack_group(policies[0]) != stack_group(policies[1]), "null tags are symbols of the policy"
    iterated = model("rm_iterated")
    assert iterated.name == "finetune"
    assert stack_group(iterated) not in (None, stack_group(model("rrpo"))), "it needs an earlier fine-tuning"
    other = replace(SMOKE, pretrain=replace(SMOKE.pretrain, model=RM))
    assert stack_group(dataflow.reward_model(other, known["rrpo"], 1)) != stack_group(model("rrpo"))


def test_stages_of_several_groups_are_refused(inputs: dict[str, Stage], tmp_path: Path) -> None:
    stages = [*trainings("pretrain", inputs), *trainings("sft", inputs)]
    with pytest.raises(ValueError, match="of one kind"):
        build(stages, tmp_path, Context())
    with pytest.raises(ValueError, match="of one kind"):
        build([inputs["codec"]], tmp_path, Context())


def test_every_kind_that_can_be_stacked_has_a_stack() -> None:
    assert STACKS.keys() == SHARED.keys()
