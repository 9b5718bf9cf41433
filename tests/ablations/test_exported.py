"""Exported arms: reading returns the arm that was written, and invalid names and files are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ablations.exported import read_arms, write_arm
from ablations.grids import arms
from rrpo.errors import InputError
from rrpo.identity import content_hash

TUNED = replace(arms()["rrpo"], tau=(2.0, 1.0), lr=1e-3, regularizers=replace(arms()["rrpo"].regularizers, epsilon=0.2))


def test_every_arm_survives_its_file(tmp_path: Path):
    exported = {f"my_{name}": arm for name, arm in arms().items()} | {"tuned": TUNED}
    for name, arm in exported.items():
        write_arm(tmp_path, name, arm, {})
    again = read_arms(tmp_path)
    assert again == exported
    assert {name: content_hash(arm) for name, arm in again.items()} == {n: content_hash(a) for n, a in exported.items()}


@pytest.mark.parametrize(("name", "words"), [("a b", "plain name"), ("../a", "plain name"), ("rrpo", "of the grids")])
def test_a_name_that_an_arm_cannot_have_is_refused(tmp_path: Path, name: str, words: str):
    with pytest.raises(InputError, match=words):
        write_arm(tmp_path, name, TUNED, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{}", '{"arm": 3}', '{"arm": {"nosuch": 1}}', '{"arm": {"regularizers": {"x": 1}}}']
)
def test_a_file_that_is_no_arm_is_refused(tmp_path: Path, text: str):
    path = write_arm(tmp_path, "tuned", TUNED, {})
    path.write_text(text)
    with pytest.raises(InputError, match="an exported arm cannot be read"):
        read_arms(tmp_path)
