"""Short sentences in Mandarin, English and German from small word inventories, in disjoint pools.

The hash of (world seed, sentence) assigns each sentence to exactly one pool, so pools are disjoint in every language, however
many sentences a split draws. Texts carry no emotion. `random` texts are sequences of random words, not sentences.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from rrpo.corpus.draws import generator, key

POOLS = {
    "sft": 30,
    "sft_heldout": 5,
    "rm": 15,
    "rl": 10,
    "eval": 7,
    "codec": 5,
    "judge_val": 8,
    "judge_test": 10,
    "judge_third": 5,
    "judge_heldout": 5,
}
"""Share of all sentences per pool, in percent."""
RANDOM = "random"
"""Name of the pool of random-word texts, for recognizers."""
RANDOM_WORDS = (3, 4)
"""Minimum and maximum number of words of a random text."""

_SUBJECTS = {
    "cmn": ["我", "你", "他", "我们", "妈妈", "爸爸", "老师", "朋友", "哥哥", "弟弟"],
    "en": ["I", "You", "We", "They", "My friends", "The girls", "The boys", "Our teachers"],
    "de": ["Er", "Sie", "Anna", "Peter", "Mein Vater", "Meine Mutter", "Der Lehrer", "Das Kind"],
}
_TIMES = {
    "cmn": ["今天", "昨天", "明天", "现在", "早上", "晚上"],
    "en": ["today", "tonight", "at home", "at noon", "on Monday", "again"],
    "de": ["heute", "morgen", "jetzt", "bald", "oft", "wieder"],
}
_MODALS = {
    "cmn": ["不", "想", "要", "也", "还"],
    "en": ["can", "must", "may", "should", "will"],
    "de": ["gerne", "nicht mehr", "immer", "auch", "schnell"],
}
_OBJECTS = {
    "cmn": {
        "买": "苹果|书|衣服|茶|花|鱼",
        "吃": "苹果|米饭|面包|鱼",
        "喝": "茶|水|牛奶|咖啡",
        "看": "书|电影|电视|花",
        "找": "书|衣服|手机|水",
        "去": "学校|北京|公园|商店",
    },
    "en": {
        "buy": "the book|the coat|the bread|the flowers|the fish|milk",
        "eat": "an apple|the bread|the fish|the rice",
        "drink": "tea|milk|coffee|the water",
        "see": "the film|the book|the park|the school",
        "find": "the coat|the phone|the book|the shop",
        "like": "the park|the school|the flowers|tea",
    },
    "de": {
        "kauft": "das Buch|den Mantel|das Brot|die Blumen|den Fisch|Milch",
        "isst": "einen Apfel|das Brot|den Fisch|den Reis",
        "trinkt": "Tee|Milch|Kaffee|das Wasser",
        "sieht": "den Film|das Buch|den Park|die Schule",
        "sucht": "den Mantel|das Telefon|das Buch|den Laden",
        "mag": "den Park|die Schule|die Blumen|Tee",
    },
}
_ORDERS = {
    "cmn": ("{s}{t}{v}{o}", "{t}{s}{v}{o}", "{s}{m}{v}{o}", "{s}{t}{m}{v}{o}"),
    "en": ("{s} {v} {o} {t}", "{s} {m} {v} {o}", "{s} {m} {v} {o} {t}"),
    "de": ("{s} {v} {t} {o}", "{s} {v} {m} {o}", "{s} {v} {t} {m} {o}"),
}


@lru_cache
def words(language: str) -> tuple[str, ...]:
    """Return the words of ``language`` (articles stay with their nouns). Raises `ValueError` if the language is unknown."""
    _check(language)
    verbs = _OBJECTS[language]
    objects = (noun for nouns in verbs.values() for noun in nouns.split("|"))
    return tuple(dict.fromkeys((*_SUBJECTS[language], *_TIMES[language], *_MODALS[language], *verbs, *objects)))


@lru_cache
def sentences(language: str) -> tuple[str, ...]:
    """Return all sentences of the templates of ``language``, in a fixed order."""
    _check(language)
    pairs = [(verb, noun) for verb, nouns in _OBJECTS[language].items() for noun in nouns.split("|")]
    parts = product(_ORDERS[language], _SUBJECTS[language], _TIMES[language], _MODALS[language], pairs)
    return tuple(dict.fromkeys(order.format(s=s, t=t, m=m, v=v, o=o) for order, s, t, m, (v, o) in parts))


def pool_of(text: str, world_seed: int) -> str:
    """Return the pool that ``text`` belongs to in the world with this seed."""
    point = key(world_seed, "pool", text) % sum(POOLS.values())
    for name, share in POOLS.items():
        if point < share:
            return name
        point -= share
    raise AssertionError("shares sum to the modulus")


@lru_cache
def pool(name: str, language: str, world_seed: int) -> tuple[str, ...]:
    """Return all sentences of the pool ``name``. Raises `ValueError` if the pool is unknown."""
    if name not in POOLS:
        raise ValueError(f"unknown text pool {name!r}; use one of {[*POOLS, RANDOM]}")
    return tuple(text for text in sentences(language) if pool_of(text, world_seed) == name)


def draw_texts(n: int, name: str, language: str, world_seed: int, *parts: str | int) -> list[str]:
    """Draw ``n`` texts of the pool ``name``, keyed by ``parts``; no text repeats before the whole pool has been used."""
    rng = generator(world_seed, "texts", name, language, *parts)
    if name == RANDOM:
        return [_random_text(language, rng) for _ in range(n)]
    texts = pool(name, language, world_seed)
    rounds = -(-n // len(texts))
    order = np.concatenate([rng.permutation(len(texts)) for _ in range(rounds)]) if rounds else np.zeros(0, int)
    return [texts[index] for index in order[:n]]


def _random_text(language: str, rng: np.random.Generator) -> str:
    known = frozenset(sentences(language))
    while True:
        selection = rng.choice(words(language), size=rng.integers(RANDOM_WORDS[0], RANDOM_WORDS[1] + 1), replace=False)
        text = ("" if language == "cmn" else " ").join(selection)
        if text not in known:
            return text


def _check(language: str) -> None:
    if language not in _SUBJECTS:
        raise ValueError(f"no texts for language {language!r}; use one of {sorted(_SUBJECTS)}, or give a manifest")
