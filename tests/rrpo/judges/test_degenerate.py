"""Loops and odd lengths, by hand."""

import torch

from rrpo.judges.artefacts import LENGTH_FACTOR, looping, odd_length

PLAIN = list(range(40))


def flagged(row: list[int]) -> bool:
    return bool(looping(torch.tensor([row]), torch.tensor([len(row)]))[0])


def test_a_stretch_said_three_times_is_a_loop() -> None:
    assert not flagged(PLAIN)
    assert flagged(PLAIN[:20] + PLAIN[12:20] + PLAIN[12:20] + PLAIN[20:])


def test_a_held_token_is_no_loop() -> None:
    assert not flagged([*PLAIN[:20], *[7] * 30, *PLAIN[20:]])


def test_one_word_said_again_in_a_long_sample_is_no_loop() -> None:
    assert not flagged([*range(100), *range(50, 55), *range(200, 250)])


def test_rows_are_judged_apart_and_padding_is_not_read() -> None:
    loop = [1, 2, 3, 4, 5] * 4
    tokens = torch.tensor([loop, list(range(20)), loop])
    assert looping(tokens, torch.tensor([20, 20, 5])).tolist() == [True, False, False]


def test_length_is_odd_on_both_sides_and_when_empty() -> None:
    expected = torch.full((5,), 40.0)
    factors = torch.tensor([1.0, LENGTH_FACTOR + 0.1, 1 / (LENGTH_FACTOR + 0.1), LENGTH_FACTOR - 0.1, 0.0])
    assert odd_length(expected * factors, expected).tolist() == [False, True, True, False, True]
