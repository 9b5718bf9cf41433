"""The speakers of a world: an espeak-ng voice variant, a pitch, a vocal-tract length, a habitual rate and level.

Deterministic in ``world.seed``. No voice variant serves two of the groups policy, rm and judge, as long as there are enough.
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
"""Natural-sounding voice variants of espeak-ng whose phones are understood (Alicia, Lee and adam: more than 10 % errors of a
recogniser) and whose F0 moves within a sentence by 1.5 to 3.6 semitones: less leaves no room for emotion (Alex, aunty, belinda,
linda), more drowns it (Annie, grandma, marcelo, m8)."""
PITCH_SPREAD = 2.0
"""Semitones either side of the variant's own pitch."""
FORMANT_SPREAD = 0.08
"""Fraction either side of the variant's own formant frequencies."""
RATE_SPREAD = 0.06
"""Fraction either side of the common speaking rate."""
LEVEL_SPREAD = 1.5
"""dB either side of the common level."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One voice in one language."""

    id: str
    """Unique in its world, e.g. ``rm-007-cmn``."""
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
    """Every speaker of ``world``: policy, rm, judge, then the foreign ones language by language."""
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
    """The speakers that ``SplitConfig.speakers`` names: groups joined by ``+``, ``foreign:LANG``, or ``all``.

    Raises `ValueError` on a name that selects nobody.
    """
    chosen: list[Speaker] = []
    for name in group.split("+"):
        wanted, _, language = name.partition(":")
        found = [s for s in speaker_table(world) if wanted in ("all", s.group) and language in ("", s.language)]
        if not found:
            languages = [language for language in world.languages if language != world.language]
            raise ValueError(
                f"speaker group {name!r} is empty; use policy, rm, judge, all or foreign:LANG with LANG in {languages}"
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _variants(seed: int, women: tuple[str, ...], men: tuple[str, ...]) -> Iterator[str]:
    """A female and a male variant in turn, each list in a new keyed order every time it is used up."""
    place = 0
    while True:
        for sex, names in (("women", women), ("men", men)):
            turn, index = divmod(place, len(names))
            yield names[generator(seed, "variants", sex, turn).permutation(len(names))[index]]
        place += 1


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
