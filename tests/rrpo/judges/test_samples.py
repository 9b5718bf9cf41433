"""Stored samples: different sizes per checkpoint, unchanged after loading, rejected if they do not fit the prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import samples_of

from rrpo.corpus.prompts import load_prompts
from rrpo.judges.samples import FILE, Samples, decoded
from rrpo.models.codec import Codec


@pytest.fixture
def samples() -> Samples:
    return Samples.concatenate([samples_of(0, [[1, 2], [3]]), samples_of(7, [[1], [2, 3, 4], [5, 6], [7]])])


def test_checkpoints_have_their_own_number_of_prompts(samples: Samples) -> None:
    assert samples.steps == [0, 7]
    assert samples.tokens.tolist() == [[1, 2, -1], [3, -1, -1], [1, -1, -1], [2, 3, 4], [5, 6, -1], [7, -1, -1]]
    assert samples.prompt.tolist() == [0, 1, 0, 1, 2, 3]
    assert samples.at(0).lengths.tolist() == [2, 1]
    assert samples.at(7).prompt.tolist() == [0, 1, 2, 3]


def test_saved_samples_load_unchanged(samples: Samples, tmp_path: Path) -> None:
    samples.save(tmp_path)
    read = Samples.load(tmp_path, prompts=4)
    for name, values in samples.arrays().items():
        assert np.array_equal(getattr(read, name), values), name
        assert getattr(read, name).dtype == values.dtype, name


def test_samples_of_other_prompts_are_rejected(samples: Samples, tmp_path: Path) -> None:
    samples.save(tmp_path)
    with pytest.raises(ValueError, match="sample of prompt 3, but there are 3 evaluation prompts; give the samples"):
        Samples.load(tmp_path, prompts=3)


def test_arrays_of_another_form_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / FILE, steps=np.arange(2), tokens=np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"contains steps \(2,\), tokens \(2, 3, 4\); expected \['lengths'"):
        Samples.load(tmp_path, prompts=3)


def test_each_sample_is_decoded_from_its_own_tokens(stages: dict[str, Path]) -> None:
    prompts = load_prompts(stages["prompts"])
    codec = Codec.load(stages["codec"])
    rows = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
    samples = samples_of(0, rows).select(np.array([2, 0]))
    F, lengths = decoded(samples, codec, prompts)
    assert lengths.tolist() == [6, 10]
    for row, prompt in enumerate((2, 0)):
        speaker = codec.speaker_index([prompts[prompt].speaker])
        alone, _ = codec.decode(torch.tensor([rows[prompt]]), torch.tensor([len(rows[prompt])]), speaker)
        assert torch.allclose(F[row, : lengths[row]], alone[0], atol=1e-4)
