"""Artefacts in the annotated set: the requested rate, independent of the emotion, without effect on the raters."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rrpo.config import ArmConfig
from rrpo.corpus.config import ARTEFACTS, SpeechConfig, SplitConfig
from rrpo.corpus.draws import generator
from rrpo.corpus.features import SpeechSet, build
from rrpo.corpus.splits import draw_split
from rrpo.experiment import dataflow
from rrpo.pipeline.stages import Context, Stage
from rrpo.profiles import EMBEDDED

SEED = 1000


def annotated(rate: float, size: int = 1000) -> SplitConfig:
    """Return the split that a reward model is fine-tuned on."""
    config = stage(ArmConfig(annotated_artefacts=rate)).config.split
    assert config.name == "annotated"
    assert config.raters == EMBEDDED.raters
    return replace(config, size=size)


def stage(arm: ArmConfig, **changes: object) -> Stage:
    profile = replace(EMBEDDED, **changes) if changes else EMBEDDED
    return dataflow.reward_model(profile, arm, SEED).inputs["speech"]


def test_the_arm_overrides_the_profile_and_none_leaves_no_trace() -> None:
    plain = stage(ArmConfig(), annotated_artefact_rate=0.0)
    assert plain.config.split.artefact_rate == 0
    assert stage(ArmConfig()).config.split.artefact_rate == EMBEDDED.annotated_artefact_rate > 0
    assert stage(ArmConfig(annotated_artefacts=0.0)).key == plain.key
    shared = stage(ArmConfig(), annotated_artefact_rate=0.3)
    assert shared.config.split.artefact_rate == 0.3
    assert shared.key == stage(ArmConfig(annotated_artefacts=0.3)).key != plain.key
    assert stage(ArmConfig(annotated_artefacts=0.0), annotated_artefact_rate=0.3).key == plain.key


def test_the_profiles_speakers_apply_to_the_biased_and_the_annotated_set_and_not_to_the_oracle() -> None:
    few = replace(EMBEDDED, rm_speakers=8)
    fine_tuned = dataflow.reward_model(few, ArmConfig(), SEED)
    learnt = [fine_tuned.inputs["speech"], fine_tuned.inputs["model"].inputs["speech"]]
    assert [stage.config.split.voices for stage in learnt] == [8, 8]
    assert fine_tuned.key == dataflow.reward_model(EMBEDDED, ArmConfig(rm_speakers=8), SEED).key
    assert dataflow.pretrained(few, ArmConfig(rm_speakers=3), SEED).inputs["speech"].config.split.voices == 3
    oracle = ArmConfig(rm_data="oracle")
    assert dataflow.pretrained(few, oracle, SEED).key == dataflow.pretrained(EMBEDDED, oracle, SEED).key


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_the_share_is_that_of_uniforms_below_the_rate(rate: float) -> None:
    uniforms = generator(EMBEDDED.world.seed, "artefact", "annotated", SEED).random((1000, 2))[:, 1]
    planted = [u.artefact is not None for u in draw_split(EMBEDDED.world, annotated(rate))]
    assert planted == (uniforms < rate).tolist()
    assert np.mean(planted) == pytest.approx(rate, abs=0.03)  # 2 standard errors


def test_kinds_do_not_tell_label_emotion_or_votes() -> None:
    """Counts of each kind with each label, and with agreed and disputed labels, are within 4 standard errors of independence."""
    utterances = draw_split(EMBEDDED.world, annotated(0.5, 2000))
    kinds = (None, *ARTEFACTS)
    p = dict.fromkeys(ARTEFACTS, 0.1) | {None: 0.5}
    traits = {
        "label": [u.emotion for u in utterances],
        "emotion": [u.true_emotion for u in utterances],
        "agreed": [len(set(u.votes or ())) for u in utterances],
    }
    for name, values in traits.items():
        counts = Counter(zip(values, (u.artefact for u in utterances), strict=True))
        for value, n in Counter(values).items():
            for kind in kinds:
                spread = (n * p[kind] * (1 - p[kind])) ** 0.5
                assert counts[value, kind] == pytest.approx(n * p[kind], abs=4 * spread), (name, value, kind)


def test_raters_vote_as_they_do_without_artefacts() -> None:
    clean, planted = (draw_split(EMBEDDED.world, annotated(rate)) for rate in (0.0, 1.0))
    assert {u.artefact for u in clean} == {None}
    assert {u.artefact for u in planted} == set(ARTEFACTS)
    without = [replace(u, artefact=None, spec=replace(u.spec, artefact=None)) for u in planted if u.spec is not None]
    assert without == clean


def test_an_utterance_without_artefact_is_the_same_to_the_last_bit(tmp_path) -> None:
    sets = []
    for rate in (0.0, 0.5):
        out = tmp_path / str(rate)
        out.mkdir()
        build(SpeechConfig(world=EMBEDDED.world, split=annotated(rate, 8)), {}, out, Context())
        sets.append(SpeechSet.load(out))
    clean, planted = sets
    touched = [u.artefact is not None for u in planted.utterances]
    assert 0 < sum(touched) < 8
    assert clean.frames.tolist() == planted.frames.tolist()
    equal = [bool((clean.mel(i) == planted.mel(i)).all()) for i in range(8)]
    assert equal == [not spoilt for spoilt in touched]
