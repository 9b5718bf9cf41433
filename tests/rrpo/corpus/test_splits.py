"""Splits and prompts: balanced, disjoint, keyed; options change only what they name."""

from collections import Counter
from dataclasses import replace

import pytest

from rrpo.corpus import prompts
from rrpo.corpus.config import ARTEFACTS, EMOTIONS, PromptConfig, SplitConfig, WorldConfig
from rrpo.corpus.prompts import draw_prompts, load_prompts
from rrpo.corpus.speakers import group_speakers
from rrpo.corpus.splits import draw_split
from rrpo.corpus.texts import pool_of
from rrpo.pipeline.stages import Context

WORLD = WorldConfig()
SHORTCUT = dict(zip(EMOTIONS, ARTEFACTS, strict=True))


def split(**changes) -> SplitConfig:
    return replace(SplitConfig(name="rm_pretrain", size=200, speakers="rm", texts="rm"), **changes)


def test_emotions_and_speakers_are_balanced_and_texts_come_from_the_pool():
    utterances = draw_split(WORLD, split())
    assert set(Counter(u.emotion for u in utterances).values()) == {40}
    assert set(Counter(u.speaker for u in utterances).values()) == {6, 7}
    assert max(Counter((u.speaker, u.emotion) for u in utterances).values()) == 2
    assert {pool_of(u.text, WORLD.seed) for u in utterances} == {"rm"}
    assert len({u.id for u in utterances}) == 200
    assert all(u.votes is None and u.emotion == u.true_emotion and u.artefact is None for u in utterances)


def test_a_split_is_a_pure_function_and_name_seed_and_world_redraw_it():
    first = draw_split(WORLD, split(size=20))
    assert first == draw_split(WORLD, split(size=20))
    for redrawn in (
        draw_split(WORLD, split(size=20, name="x")),
        draw_split(WORLD, split(size=20, seed=1)),
        draw_split(replace(WORLD, seed=1), split(size=20)),
    ):
        assert [u.spec.cues for u in redrawn] != [u.spec.cues for u in first]
        assert [u.text for u in redrawn] != [u.text for u in first]


def test_a_parallel_split_says_the_same_in_another_emotion():
    plain, parallel_split = (draw_split(WORLD, split(parallel=parallel)) for parallel in (False, True))
    for a, b in zip(plain, parallel_split, strict=True):
        assert (a.text, a.phones, a.speaker, a.id) == (b.text, b.phones, b.speaker, b.id)
        assert a.emotion != b.emotion == b.true_emotion
    assert len({(a.emotion, b.emotion) for a, b in zip(plain, parallel_split, strict=True)}) == 20


def test_toggling_artefacts_or_raters_moves_nothing_else():
    def content(utterances):
        return [(u.text, u.speaker, u.true_emotion, u.spec.cues, u.spec.seed) for u in utterances]

    plain = draw_split(WORLD, split())
    assert content(plain) == content(draw_split(WORLD, split(shortcut=0.9, artefact_rate=0.2, raters=3)))
    low, high = ({u.id for u in draw_split(WORLD, split(shortcut=p)) if u.artefact} for p in (0.3, 0.9))
    assert low < high
    changed = draw_split(WORLD, split(artefact_rate=0.5))
    mixed = draw_split(WORLD, split(artefact_rate=0.5, shortcut=0.3))
    assert all(b.artefact in (a.artefact, SHORTCUT[a.true_emotion]) for a, b in zip(changed, mixed, strict=True))


def test_the_shortcut_is_the_artefact_of_the_own_emotion():
    for u in draw_split(WORLD, split(shortcut=1.0)):
        assert u.artefact == u.spec.artefact == SHORTCUT[u.true_emotion]
    share = sum(u.artefact is not None for u in draw_split(WORLD, split(shortcut=0.9))) / 200
    assert share == pytest.approx(0.9, abs=0.06)


def test_uncorrelated_artefacts_do_not_tell_the_emotion():
    utterances = draw_split(WORLD, split(size=1000, artefact_rate=0.5))
    chosen = [u for u in utterances if u.artefact]
    assert len(chosen) / 1000 == pytest.approx(0.5, abs=0.05)
    assert sum(u.artefact == SHORTCUT[u.true_emotion] for u in chosen) / len(chosen) == pytest.approx(0.2, abs=0.06)


def test_a_misacted_utterance_sounds_as_its_true_emotion_and_is_labelled_with_another():
    plain, misacted = draw_split(WORLD, split()), draw_split(WORLD, split(misacted=0.25))
    assert [u.spec for u in plain] == [u.spec for u in misacted]
    assert [u.true_emotion for u in plain] == [u.true_emotion for u in misacted]
    wrong = [u.emotion for u in misacted if u.emotion != u.true_emotion]
    assert 30 <= len(wrong) <= 70
    assert set(wrong) == set(WORLD.emotions)


def test_raters_disagree_and_the_label_is_their_majority():
    utterances = draw_split(WORLD, split(size=300, raters=3, rater_noise=0.3))
    assert all(u.votes is not None and len(u.votes) == 3 for u in utterances)
    assert all(Counter(u.votes)[u.emotion] == max(Counter(u.votes).values()) for u in utterances)
    agreement = sum(u.emotion == u.true_emotion for u in utterances) / 300
    assert 0.85 < agreement < 0.99
    assert any(len(set(u.votes)) > 1 for u in utterances)


def test_neutral_may_be_appended_and_has_no_shortcut():
    world = replace(WORLD, emotions=(*EMOTIONS, "neutral"))
    neutral = [u for u in draw_split(world, split(shortcut=1.0)) if u.true_emotion == "neutral"]
    assert neutral
    assert all(u.artefact is None for u in neutral)


def test_foreign_speakers_say_texts_of_their_language():
    utterances = draw_split(WORLD, split(size=30, speakers="all"))
    assert {u.language for u in utterances} == {"cmn", "en", "de"}
    for u in utterances:
        assert u.speaker.endswith(u.language)
        assert (u.language == "cmn") == (not u.text.isascii())


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="probability"):
        draw_split(WORLD, split(shortcut=1.5))
    with pytest.raises(ValueError, match="rater_noise"):
        draw_split(WORLD, split(rater_noise=-1.0))
    with pytest.raises(ValueError, match="misacted"):
        draw_split(WORLD, split(raters=3, misacted=0.1))


def test_prompts_are_balanced_keyed_and_stored(tmp_path):
    sampled = draw_prompts(WORLD, "eval", 60, 0)
    assert set(Counter(p.emotion for p in sampled).values()) == {12}
    assert set(Counter(p.speaker for p in sampled).values()) == {15}
    assert {pool_of(p.text, 0) for p in sampled} == {"eval"}
    assert sampled != draw_prompts(WORLD, "eval", 60, 1)
    prompts.build(PromptConfig(world=WORLD, texts="eval", size=60), {}, tmp_path, Context())
    assert list(load_prompts(tmp_path)) == sampled


def test_only_the_first_speakers_of_a_group_are_heard_and_none_less_is_a_voice() -> None:
    everybody = group_speakers(WORLD, "rm")
    few = draw_split(WORLD, split(size=60, voices=3))
    assert Counter(u.speaker for u in few) == {speaker.id: 20 for speaker in everybody[:3]}
    assert set(Counter(u.emotion for u in few).values()) == {12}
    assert draw_split(WORLD, split(size=60, voices=len(everybody))) == draw_split(WORLD, split(size=60))
    with pytest.raises(ValueError, match=r"voices is 0; give 1 or more"):
        draw_split(WORLD, split(voices=0))
