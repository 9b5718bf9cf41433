"""The speaker table."""

from dataclasses import replace

import pytest

from rrpo.corpus.config import WorldConfig
from rrpo.corpus.speakers import group_speakers, speaker_table

WORLD = WorldConfig()


def test_speakers_are_distinct_counted_and_apart_by_group():
    table = speaker_table(WORLD)
    assert len(table) == 4 + 32 + 32 + 2 * 16
    assert len({speaker.id for speaker in table}) == len(table)
    assert len({(s.variant, s.pitch, s.formant, s.rate) for s in table}) == len(table)
    variants = {
        name: {speaker.variant for speaker in group_speakers(WORLD, name)} for name in ("policy", "rm", "judge")
    }
    assert len(variants["policy"]) == 4
    assert not variants["policy"] & {speaker.variant for speaker in table if speaker.group != "policy"}
    assert not variants["rm"] & variants["judge"]
    assert min(len(variants["rm"]), len(variants["judge"])) >= 9


def test_a_larger_group_begins_with_the_smaller_one_and_a_seed_redraws_all():
    larger = replace(WORLD, judge_speakers=40)
    assert group_speakers(larger, "judge")[:32] == group_speakers(WORLD, "judge")
    assert not set(speaker_table(replace(WORLD, seed=1))) & set(speaker_table(WORLD))


def test_groups_by_name():
    assert group_speakers(WORLD, "judge+policy") == group_speakers(WORLD, "judge") + group_speakers(WORLD, "policy")
    assert {speaker.language for speaker in group_speakers(WORLD, "foreign:de")} == {"de"}
    assert len(group_speakers(WORLD, "foreign")) == 32
    assert set(group_speakers(WORLD, "all")) == set(speaker_table(WORLD))
    for name in ("actor", "foreign:fr", "policy:de"):
        with pytest.raises(ValueError, match="is empty"):
            group_speakers(WORLD, name)
