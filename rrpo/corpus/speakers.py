"""Speakers of a world: an espeak-ng voice variant, a pitch, a vocal-tract length, a rate and a level.

Deterministic in ``world.seed``. The groups policy, rm and judge share no voice variant as long as there are enough variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rrpo.corpus.config import WorldConfig
from rrpo.corpus.draws import generator

FEMALE = ("f1", "f2", "f3", "f4", "f5")
MALE = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "Denis", "Diogo", "Gene2", "Hugo"),
    *("Michael", "boris", "max", "michel", "miguel", "pablo", "victor"),
)
"""Natural-sounding voice variants of espeak-ng with intelligible phones and an F0 that varies within a sentence by 1.5 to 3.6
semitones. Excluded: Alicia, Lee and adam (more than 10 % phone errors of a recognizer); Alex, aunty, belinda and linda (F0 too
flat to express emotion); Annie, grandma, marcelo and m8 (F0 variation masks emotion)."""
PITCH_SPREAD = 2.0
"""Maximum deviation from the variant's pitch, semitones."""
FORMANT_SPREAD = 0.08
"""Maximum relative deviation from the variant's formant frequencies."""
RATE_SPREAD = 0.06
"""Maximum relative deviation from the common speaking rate."""
LEVEL_SPREAD = 1.5
"""Maximum deviation from the common level, dB."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One voice in one language."""

    id: str
    """Unique within its world, e.g. ``rm-007-cmn``."""
    group: str
    """``policy``, ``rm``, ``judge`` or ``foreign``."""
    language: str
    """Language code."""
    variant: str
    """espeak-ng voice variant."""
    pitch: float
    """Semitones above the variant's pitch."""
    formant: float
    """Factor on every formant frequency."""
    rate: float
    """Factor on the speaking rate."""
    level: float
    """dB above the common level."""


@lru_cache(maxsize=32)
def speaker_table(world: WorldConfig) -> tuple[Speaker, ...]:
    """Return all speakers of ``world``: policy, rm, judge, then the foreign ones by language."""
    foreign = [language for language in world.languages if language != world.language]
    policy = _variants(world.seed, FEMALE, MALE)
    taken: list[str] = []
    table = []
    for index in range(world.policy_speakers):
        taken.append(next(policy))
        table.append(_speaker(world.seed, "policy", index, world.language, taken[-1]))
    women, men = (tuple(v for v in group if v not in taken) for group in (FEMALE, MALE))
    groups = [("rm", world.language, world.rm_speakers, 0, 2), ("judge", world.language, world.judge_speakers, 1, 2)]
    groups += [("foreign", language, world.foreign_speakers, 0, 1) for language in foreign]
    for group, language, count, first, step in groups:
        variants = _variants(world.seed, women[first::step] or FEMALE, men[first::step] or MALE)
        table += [_speaker(world.seed, group, index, language, next(variants)) for index in range(count)]
    return tuple(table)


def group_speakers(world: WorldConfig, group: str) -> list[Speaker]:
    """Return the speakers that ``SplitConfig.speakers`` names: groups joined by ``+``, ``foreign:LANG``, or ``all``.

    Raises `ValueError` if a name selects no speaker.
    """
    speakers: list[Speaker] = []
    for name in group.split("+"):
        group_name, _, language = name.partition(":")
        members = [s for s in speaker_table(world) if group_name in ("all", s.group) and language in ("", s.language)]
        if not members:
            languages = [language for language in world.languages if language != world.language]
            raise ValueError(
                f"speaker group {name!r} is empty; use policy, rm, judge, all or foreign:LANG with LANG in {languages}"
            )
        speakers += members
    return list(dict.fromkeys(speakers))


def _variants(seed: int, women: tuple[str, ...], men: tuple[str, ...]) -> Iterator[str]:
    """Yield female and male variants alternately; each list is reshuffled with a new key whenever it is used up."""
    count = 0
    while True:
        for sex, names in (("women", women), ("men", men)):
            cycle, index = divmod(count, len(names))
            yield names[generator(seed, "variants", sex, cycle).permutation(len(names))[index]]
        count += 1


def _speaker(seed: int, group: str, index: int, language: str, variant: str) -> Speaker:
    pitch, formant, rate, level = (
        float(u) for u in generator(seed, "speaker", group, language, index).uniform(-1, 1, 4)
    )
    return Speaker(
        id=f"{group}-{index:03d}-{language}",
        group=group,
        language=language,
        variant=variant,
        pitch=round(PITCH_SPREAD * pitch, 3),
        formant=round(1 + FORMANT_SPREAD * formant, 4),
        rate=round(1 + RATE_SPREAD * rate, 4),
        level=round(LEVEL_SPREAD * level, 3),
    )
