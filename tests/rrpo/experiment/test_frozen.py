"""The frozen world: its stages, their comparison with the installed ones, and their update."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rrpo.config import ArmConfig
from rrpo.experiment import dataflow, frozen, measurements, world
from rrpo.pipeline import stages
from rrpo.pipeline.stages import Context, Stage, materialise, walk
from rrpo.profiles import EMBEDDED, QUICK, Profile, in_world


@dataclass(frozen=True, kw_only=True)
class Text:
    text: str


def build_text(config: Text, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    (out / "text").write_text(config.text)


Make = Callable[..., Stage]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[build_text.__module__])
    return lambda name, text="a", **inputs: Stage(name, f"{__name__}:build_text", Text(text=text), inputs)


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stages, "LAYER", tmp_path / "layer")
    return stages.LAYER


def names(layer: Path) -> list[str]:
    return sorted(path.name for path in layer.iterdir())


def test_freezing_copies_what_is_missing_and_removes_what_is_outdated(
    tmp_path: Path, layer: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs"
    expected = [make("codec"), make("judge"), make("sft", codec=make("codec"))]
    for stage in expected:
        materialise(stage, store, Context())
    empty = frozen.review(expected)
    assert empty.missing == tuple(expected)
    assert frozen.freeze(expected, store) == empty
    assert frozen.review(expected).current
    assert names(layer) == sorted(stage.folder for stage in expected)

    monkeypatch.setitem(stages.VERSIONS, "codec", stages.VERSIONS["codec"] + 1)
    now = [make("codec"), make("judge"), make("sft", codec=make("codec"))]
    (layer / ".codec-half").mkdir()
    (layer / "README.md").write_text("Not a stage.")
    review = frozen.review(now)
    codec, _, sft = expected
    assert review.missing == (now[0], now[2])
    version = stages.VERSIONS["codec"]
    assert review.outdated == {
        codec.folder: f"version {version - 1}, now {version}",
        sft.folder: "its config or one of its inputs changed, or it is not frozen",
        ".codec-half": "not a finished stage",
    }
    assert not review.current
    for stage in now:
        materialise(stage, store, Context())
    frozen.freeze(now, store)
    assert frozen.review(now).current
    assert names(layer) == sorted(["README.md", *(stage.folder for stage in now)])


def test_a_current_stage_keeps_its_bits(tmp_path: Path, layer: Path, make: Make) -> None:
    (judge,) = expected = [make("judge")]
    shutil.copytree(materialise(judge, tmp_path / "one", Context()), layer / judge.folder)
    (layer / judge.folder / "text").write_text("bits that results go by")
    rebuilt = tmp_path / "two" / "stages" / judge.folder
    shutil.copytree(tmp_path / "one" / "stages" / judge.folder, rebuilt)
    frozen.freeze(expected, tmp_path / "two")
    assert (layer / judge.folder / "text").read_text() == "bits that results go by"


def test_a_copy_that_was_cut_short_is_made_again(tmp_path: Path, layer: Path, make: Make) -> None:
    (judge,) = expected = [make("judge")]
    materialise(judge, tmp_path, Context())
    for name in (judge.folder, f".{judge.folder}"):
        (layer / name).mkdir(parents=True)
        (layer / name / "text").write_text("torn")
    assert frozen.review(expected).missing == (judge,)
    assert set(frozen.review(expected).outdated) == {judge.folder, f".{judge.folder}"}
    frozen.freeze(expected, tmp_path)
    assert frozen.review(expected).current
    assert (layer / judge.folder / "text").read_text() == "a"
    assert frozen.size(judge.folder) == 1 + len((layer / judge.folder / "stage.json").read_text())


def test_what_is_installed_is_current() -> None:
    """To change a frozen stage, run `make world`."""
    review = frozen.review(frozen.frozen())
    assert review.current, review


def test_the_frozen_stages_are_all_that_a_cell_of_the_world_reads_but_speech_and_seeds() -> None:
    """With the frozen stages installed, a grid's missing stages on the two seeds train only the arms' own models."""
    installed = {stage.key for stage in frozen.frozen()}
    assert len(installed) == 14
    needed: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in installed:
            needed[stage.key] = stage
            for child in stage.inputs.values():
                visit(child)

    for arm in (ArmConfig(), dataflow.SFT):
        for seed in frozen.SEEDS:
            for stage in measurements.core(QUICK, arm, seed, policy=True).values():
                visit(stage)
            for name in measurements.LISTENERS:
                visit(measurements.listener_results(QUICK, arm, seed, name))
    kinds = {stage.name for stage in needed.values()}
    arms = {
        "finetune",
        "optimize",
        "score",
        "examine",
        "fidelity",
        "vocode",
        "phonetics",
        "voice",
        "naturalness",
        "content",
    }
    assert kinds == arms | {"speech", "prompts"}
    splits = {stage.config.split.name for stage in needed.values() if stage.name == "speech"}
    assert splits == {name for name in world.splits(EMBEDDED) if name.startswith("rm_test")} | {"rm_valid", "annotated"}


def test_quick_is_the_embedded_world_stage_by_stage() -> None:
    def keys(stages: tuple[Stage, ...]) -> list[str]:
        return [stage.key for stage in walk(*stages)]

    def models(profile: Profile) -> tuple[Stage, ...]:
        tests = {stage.key for stage in world.rm_tests(profile).values()}
        return tuple(stage for stage in world.shared(profile) if stage.key not in tests)

    assert keys(models(QUICK)) == keys(models(EMBEDDED))
    for make in (world.third_judge, world.speakers, world.predictor):
        assert keys((make(QUICK),)) == keys((make(EMBEDDED),))
    for seed in frozen.SEEDS:
        assert dataflow.sft(QUICK, seed).key == dataflow.sft(EMBEDDED, seed).key
        for arm in (ArmConfig(), dataflow.SFT):
            assert dataflow.pretrained(QUICK, arm, seed).key == dataflow.pretrained(EMBEDDED, ArmConfig(), seed).key


def test_no_more_prompts_are_sampled_than_the_world_has() -> None:
    with pytest.raises(ValueError, match=r"eval_prompts must be at least .*, 60, got eval_prompts=50"):
        replace(QUICK, eval_prompts=50)


def test_another_world_has_the_same_sizes_and_shares_nothing() -> None:
    assert in_world(EMBEDDED, 0) is EMBEDDED
    other = in_world(EMBEDDED, 2)
    first, second = ({stage.key: stage for stage in walk(*world.shared(p))} for p in (EMBEDDED, other))
    assert not first.keys() & second.keys()
    assert sorted(stage.name for stage in first.values()) == sorted(stage.name for stage in second.values())
    assert other.sizes == EMBEDDED.sizes
