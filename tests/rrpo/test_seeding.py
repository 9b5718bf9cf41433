"""Keyed draws: equal keys agree, prefixes agree, streams are independent."""

import numpy as np
import torch

from rrpo.seeding import BUCKET, bucketed, permutation_batches, uniform


def test_equal_keys_give_equal_draws_whatever_was_drawn_before() -> None:
    first = uniform((4, 3), 7, "a", 5)
    torch.rand(100)
    uniform((9,), 7, "b", 5)
    assert torch.equal(first, uniform((4, 3), 7, "a", 5))
    assert not torch.equal(first, uniform((4, 3), 8, "a", 5))
    assert not torch.equal(first, uniform((4, 3), 7, "b", 5))
    assert not torch.equal(first, uniform((4, 3), 7, "a", 6))


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    """Arms with roll-outs of different lengths share the noise of every common position."""
    for length in (1, 2, 17, 40):
        assert torch.equal(uniform((80, 32, 11), 0, "gumbel")[:length], uniform((length, 32, 11), 0, "gumbel"))


def test_uniforms_are_inside_the_open_interval() -> None:
    noise = uniform((200_000,), 0, "open")
    assert noise.min() > 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.01


def test_batches_are_permutations_epoch_by_epoch() -> None:
    batches = permutation_batches(10, 4, 5, 0, "order")
    assert batches.shape == (5, 4)
    flat = batches.ravel()
    assert sorted(flat[:10]) == list(range(10))
    assert sorted(flat[10:20]) == list(range(10))
    assert not np.array_equal(flat[:10], flat[10:20])
    assert np.array_equal(permutation_batches(10, 4, 3, 0, "order"), batches[:3])


def test_buckets_hold_the_same_samples_with_like_lengths_together_and_in_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 500)
    batches = permutation_batches(500, 16, 60, 0, "order")
    grouped = bucketed(batches, lengths, 0, "buckets")
    assert grouped.shape == batches.shape
    for first in range(0, 60, BUCKET):
        assert sorted(grouped[first : first + BUCKET].ravel()) == sorted(batches[first : first + BUCKET].ravel())
    padding = [lengths[rows].max(1).sum() for rows in (batches, grouped)]
    assert padding[1] < 0.8 * padding[0]
    longest = lengths[grouped[:BUCKET]].max(1)
    assert not np.array_equal(longest, np.sort(longest))
    assert np.array_equal(grouped, bucketed(batches, lengths, 0, "buckets"))
    assert bucketed(batches[:0], lengths, 0, "buckets").shape == (0, 16)
