"""The section on other synthesisers: available sets, utterances as the units of its intervals, and missing packages."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rrpo.config import CodecConfig
from rrpo.corpus import second
from rrpo.corpus.config import VoicesConfig, WorldConfig
from rrpo.experiment import world
from rrpo.judges import words
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context
from rrpo.profiles import SMOKE
from rrpo.validation import voices
from rrpo.validation.config import CardConfig, SectionConfig
from rrpo.validation.lines import NOT_INSTALLED
from rrpo.validation.sections import sections

WORLD = WorldConfig(cue_spread=0.01)
CONFIG = SectionConfig(section="voices", world=WORLD, card=CardConfig(transcribed=2, resamples=20), shortcut=0.9)
ENGINES = world.other_synthesisers()[:1]


@pytest.mark.skipif(not ENGINES, reason="no other synthesiser is installed")
def test_a_set_knows_its_cues_and_its_readings(tmp_path: Path) -> None:
    (tmp_path / "voices").mkdir()
    second.build(VoicesConfig(world=WORLD, readings=2, engine=ENGINES[0]), {}, tmp_path / "voices", Context())
    domains = voices.domains(CONFIG, {f"voices_{ENGINES[0]}": tmp_path / "voices"})
    assert list(domains) == [ENGINES[0]]
    domain = domains[ENGINES[0]]
    assert domain.ideal.all(), "cues without spread leave no doubt"
    assert domain.groups.tolist() == [0] * 5 + [1] * 5
    if words.available():
        codec = Codec(CodecConfig(levels=(5,), dim=8), WORLD.audio, ("a",))
        (line,) = voices.transcription(CONFIG, domains, codec)
        assert line.value < 0.5


def test_hits_are_summed_by_reading() -> None:
    hits, ideal = voices._by_group(np.array([0, 0, 1]), np.array([True, False, True]), np.array([True, True, True]))
    assert hits.tolist() == [1, 1]
    assert ideal.tolist() == [2, 1]


def test_without_packages_it_says_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "available", lambda: False)
    codec = Codec(CodecConfig(levels=(5,), dim=8), WORLD.audio, ("a",))
    (line,) = voices.transcription(CONFIG, {}, codec)
    assert line.note == NOT_INSTALLED
    assert math.isnan(line.value)
    assert line.passed is None
    monkeypatch.setattr(world, "other_synthesisers", lambda: ())
    assert not [role for role in sections(SMOKE, 1000)["voices"].inputs if role.startswith("voices")]
