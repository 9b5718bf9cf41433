"""Sentence templates and text pools."""

import pytest

from rrpo.corpus import texts
from rrpo.corpus.texts import POOLS, draw_texts, pool, pool_of, sentences, words


@pytest.mark.parametrize("language", ["cmn", "en", "de"])
def test_pools_partition_the_sentences_in_their_shares(language):
    pools = {name: set(pool(name, language, 0)) for name in POOLS}
    assert sum(map(len, pools.values())) == len(sentences(language)) == len(set().union(*pools.values()))
    for name, share in POOLS.items():
        assert len(pools[name]) / len(sentences(language)) == pytest.approx(share / 100, abs=0.015)


def test_the_world_seed_redraws_the_pools():
    changed = sum(pool_of(text, 0) != pool_of(text, 1) for text in sentences("en"))
    assert changed > len(sentences("en")) / 2


def test_the_mandarin_inventory_is_small_and_texts_are_made_of_it():
    assert 40 <= len(words("cmn")) <= 80
    for text in draw_texts(50, "sft", "cmn", 0):
        rest = text
        for word in sorted(words("cmn"), key=len, reverse=True):
            rest = rest.replace(word, "")
        assert rest == ""


def test_random_texts_are_no_sentences(monkeypatch):
    sampled = draw_texts(20, "random", "cmn", 0)
    monkeypatch.setattr(texts, "sentences", lambda language: (sampled[0], sampled[7]))  # as if they were sentences
    repeated = draw_texts(20, "random", "cmn", 0)
    assert repeated[:6] == sampled[1:7]
    assert repeated[6] == sampled[8]


def test_draws_are_keyed_and_use_the_pool_up_before_they_repeat():
    small = pool("eval", "en", 0)
    texts = draw_texts(len(small) + 5, "eval", "en", 0, "a")
    assert set(texts[: len(small)]) == set(small)
    assert texts == draw_texts(len(small) + 5, "eval", "en", 0, "a")
    assert texts != draw_texts(len(small) + 5, "eval", "en", 0, "b")
    assert draw_texts(0, "eval", "en", 0) == []


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown text pool"):
        draw_texts(1, "evaluation", "en", 0)
    with pytest.raises(ValueError, match="no texts for language"):
        draw_texts(1, "eval", "fr", 0)
