"""The stage ``guided`` writes the files of an optimization; without guidance they equal those of the SFT policy's stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rrpo.config import ArmConfig, GuidedConfig, OptimizeConfig, PrefixClassifierConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.corpus.tags import NO_EMOTION, NO_SPEAKER
from rrpo.errors import InputError
from rrpo.experiment import dataflow, measurements
from rrpo.judges.samples import Samples
from rrpo.models.guidance import GUIDANCE
from rrpo.models.policy import Policy
from rrpo.models.prefix_classifier import PrefixClassifier, code_levels
from rrpo.optimizers import guided, loop
from rrpo.pipeline.stages import Context
from rrpo.plugins import Choice
from rrpo.profiles import PROFILES
from rrpo.testing.toy_models import EMOTIONS, PROMPTS, SPEAKERS, optimize_inputs, toy_codec

QUICK = PROFILES["quick"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the inputs of the stage: the toy models, the policy with null tags, an untrained classifier."""
    root = tmp_path_factory.mktemp("guided")
    folders = optimize_inputs(root)
    folders |= {name: root / name for name in ("guided", "classifier")}
    for name in ("guided", "classifier"):
        folders[name].mkdir()
    groups = {f"<{NO_EMOTION}>": EMOTIONS, f"<{NO_SPEAKER}>": SPEAKERS}
    policy = Policy.load(folders["policy"])
    policy.extended({tag: [f"<{name}>" for name in names] for tag, names in groups.items()}).save(folders["guided"])
    torch.manual_seed(4)
    features = code_levels(toy_codec().codebook)
    PrefixClassifier(PrefixClassifierConfig(dim=8), (*EMOTIONS, "neutral"), features).save(folders["classifier"])
    return folders


def run(guidance: Choice, inputs: dict[str, Path], out: Path) -> Path:
    out.mkdir()
    guided.build(GuidedConfig(guidance=guidance, prompts=PROMPTS, batch=8, seed=3), inputs, out, Context())
    return out


def test_without_guidance_the_files_equal_the_sft_arms(inputs: dict[str, Path], tmp_path: Path) -> None:
    guided = run(GUIDANCE.choice("classifier-free", gamma=0.0), inputs, tmp_path / "guided")
    sft = tmp_path / "sft"
    sft.mkdir()
    loop.build(OptimizeConfig(steps=0, final_prompts=PROMPTS, eval_prompts=8, seed=3), inputs, sft, Context())
    samples, sft_samples = (Samples.load(folder, PROMPTS).arrays() for folder in (guided, sft))
    for name, values in sft_samples.items():
        np.testing.assert_array_equal(samples[name], values, err_msg=name)
    points, sft_points = (pd.read_parquet(folder / "points.parquet") for folder in (guided, sft))
    pd.testing.assert_frame_equal(points, sft_points)
    assert {path.name for path in guided.iterdir()} == {path.name for path in sft.iterdir()}


@pytest.mark.parametrize(
    ("name", "options"),
    [("classifier-free", {"gamma": 4.0}), ("soft-label", {"gamma": 40.0}), ("mixture", {"second": "sad"})],
)
def test_every_system_is_sampled(name: str, options: dict[str, float], inputs: dict[str, Path], tmp_path: Path) -> None:
    out = run(GUIDANCE.choice(name, **options), inputs, tmp_path / name)
    samples = Samples.load(out, PROMPTS)
    assert samples.steps == [0]
    assert samples.prompt.tolist() == list(range(PROMPTS))
    (row,) = pd.read_parquet(out / "points.parquet").to_dict("records")
    assert row["kl_token"] > 0, "the KL is that to the SFT policy"


def test_arms_have_stages_of_their_own_and_leave_others_as_they_are() -> None:
    sft, optimized = dataflow.SFT, dataflow.optimized
    plain = dataflow.sft(QUICK, 1000)
    free = ArmConfig(guidance=GUIDANCE.choice("classifier-free"), tag_dropout=0.15)
    soft = ArmConfig(guidance=GUIDANCE.choice("soft-label"), tag_dropout=0.15)
    mixed = ArmConfig(guidance=GUIDANCE.choice("mixture", second="sad"))
    assert dataflow.sft(QUICK, 1000, tag_dropout=0.0).key == plain.key
    for arm in (free, soft, mixed):
        stage = optimized(QUICK, arm, 1000)
        assert stage.name == "guided"
        assert stage.inputs["policy"].key == plain.key, "KL is to the ordinary SFT policy"
        assert measurements.scored(QUICK, arm, 1000).inputs["sft_samples"].key == optimized(QUICK, sft, 1000).key
    assert optimized(QUICK, free, 1000).inputs["guided"].key == optimized(QUICK, soft, 1000).inputs["guided"].key
    assert optimized(QUICK, free, 1000).inputs["guided"].key != plain.key
    assert optimized(QUICK, mixed, 1000).inputs["guided"].key == plain.key
    assert "classifier" not in optimized(QUICK, free, 1000).inputs
    speech = optimized(QUICK, soft, 1000).inputs["classifier"].inputs["speech"].config
    assert speech.world.emotions == (*QUICK.world.emotions, "neutral")


def test_null_tags_need_tag_dropout() -> None:
    with pytest.raises(ValueError, match="learns only by tag dropout"):
        dataflow.optimized(QUICK, ArmConfig(guidance=GUIDANCE.choice("classifier-free")), 1000)


def test_unseen_speakers_have_their_own_policy_codec_and_prompts() -> None:
    """Stages of other arms do not change; KL and cached judgments refer to the same policy without guidance."""
    arm = replace(dataflow.SFT, guidance=GUIDANCE.choice("classifier-free"), tag_dropout=0.15, reversal=1.0)
    stage, start = dataflow.optimized(QUICK, arm, 1000), dataflow.sft_arm_of(arm)
    policy = stage.inputs["guided"]
    assert policy.name == "zero_shot"
    assert policy.config.reversal == 1.0
    assert policy.config.tag_dropout == 0.15
    assert policy.inputs["speech"].config.split.speakers == "policy+rm"
    assert stage.inputs["policy"].key == stage.inputs["codec"].key == policy.key
    assert (start.guidance, start.reversal, start.tag_dropout) == (None, 1.0, 0.15)
    scored = measurements.scored(QUICK, arm, 1000)
    assert scored.inputs["sft_samples"].key == dataflow.optimized(QUICK, start, 1000).key
    assert scored.inputs["codec"].key == policy.key
    assert scored.inputs["eval_prompts"].config.speakers == "judge"
    plain = dataflow.optimized(QUICK, replace(arm, reversal=None), 1000)
    assert plain.inputs["codec"].name == "codec"
    assert plain.inputs["eval_prompts"].config.speakers == "policy"
    assert dataflow.optimized(QUICK, replace(arm, reversal=0.0), 1000).inputs["guided"].key != policy.key
    keys = {role: seed_stage.key for role, seed_stage in measurements.core(QUICK, arm, 1000, policy=True).items()}
    assert set(keys) == {"examined", "fidelity", "optimized", "scored", "reference_probe"}
    assert keys["fidelity"] == measurements.core(QUICK, dataflow.SFT, 1000, policy=True)["fidelity"].key


def test_unseen_speakers_are_of_the_rendered_world_and_not_optimised() -> None:
    with pytest.raises(ValueError, match="without best_of and style_weight"):
        ArmConfig(reversal=1.0)
    with pytest.raises(ValueError, match=r"reversal must be in \[0, inf\)"):
        replace(dataflow.SFT, reversal=-1.0)
    profile = replace(QUICK, manifests={"sft": ManifestConfig(digest="", path="")})
    with pytest.raises(InputError, match="speakers of the simulated world"):
        dataflow.optimized(profile, replace(dataflow.SFT, reversal=1.0), 1000)
