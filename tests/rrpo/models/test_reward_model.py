"""The reward model's network: shapes, masks, storage, devices."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rrpo.config import RegularizerConfig, RewardModelConfig
from rrpo.masking import valid_mask
from rrpo.models.reward_model import RewardModel

FLOOR = 1e-5
SMALL = RewardModelConfig(dim=16, layers=2, heads=2, dropout=0.1)
EMOTIONS = ("angry", "happy", "sad")


def small_model(config: RewardModelConfig = SMALL, seed: int = 0) -> RewardModel:
    """Return an untrained model in evaluation mode with nontrivial statistics."""
    torch.manual_seed(seed)
    model = RewardModel(config, EMOTIONS, 6, FLOOR)
    model.set_statistics(torch.randn(100, 6) * 3 - 4)
    return model.eval()


def frames(lengths: list[int], padding: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random frames padded with the floor to the longest, plus ``padding`` more."""
    T = max(lengths) + padding
    rows = [torch.randn(length, 6, generator=torch.Generator().manual_seed(seed + length)) for length in lengths]
    F = torch.full((len(lengths), T, 6), math.log(FLOOR))
    for i, row in enumerate(rows):
        F[i, : len(row)] = row
    return F, torch.tensor(lengths)


@pytest.mark.parametrize("subsample", [1, 2, 4, 8])
def test_shapes(subsample: int) -> None:
    model = small_model(RewardModelConfig(dim=16, layers=1, heads=2, subsample=subsample))
    F, lengths = frames([1, 5, 8, 13])
    h, mask = model.encode(F, lengths)
    assert h.shape == (4, math.ceil(13 / subsample), 16)
    assert mask.sum(1).tolist() == [math.ceil(length / subsample) for length in (1, 5, 8, 13)]
    assert (h[~mask] == 0).all()
    assert model.classify(h, mask).shape == (4, 3)


@pytest.mark.parametrize("padding", [1, 2, 3, 17])
def test_nothing_depends_on_padding(padding: int) -> None:
    model = small_model()
    lengths = [3, 6, 9, 12, 13]
    results = []
    for F, n in (frames(lengths), frames(lengths, padding)):
        F = F.masked_fill(~valid_mask(n, F.shape[1])[..., None], math.log(FLOOR) if not results else 1e3)
        F.requires_grad_()
        h, mask = model.encode(F, n)
        logits = model.classify(h, mask)
        (gradient,) = torch.autograd.grad(logits.log_softmax(1)[:, 0].sum(), F)
        assert (gradient[~valid_mask(n, F.shape[1])] == 0).all()
        results.append((h[:, :4], logits, gradient[:, :13]))
    for narrow, wide in zip(*results, strict=True):
        torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    model = small_model()
    F, lengths = frames([3, 6, 9, 12, 13])
    together = model(F, lengths)
    alone = torch.cat([model(F[i : i + 1, :n], lengths[i : i + 1]) for i, n in enumerate(lengths.tolist())])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_every_valid_frame_counts_and_so_does_its_place() -> None:
    model = small_model()
    F, lengths = frames([9])
    F.requires_grad_()
    (gradient,) = torch.autograd.grad(model(F, lengths)[0, 0], F)
    assert (gradient.abs().sum(2) > 0).all()
    without_convolution = small_model(RewardModelConfig(dim=16, layers=1, heads=2, subsample=1))
    with torch.no_grad():
        assert not torch.allclose(without_convolution(F, lengths), without_convolution(F.flip(1), lengths), atol=1e-4)


def test_pooling_is_the_attention_weighted_mean_of_valid_frames() -> None:
    model = small_model()
    h, mask = model.encode(*frames([12, 5]))
    pooled = []
    for row, valid in zip(h, mask, strict=True):
        scores = model.attention(row[valid])[:, 0]
        pooled.append((scores.exp() / scores.exp().sum()) @ row[valid])
    torch.testing.assert_close(model.classify(h, mask), model.head(torch.stack(pooled)))


def test_an_empty_utterance_is_one_frame_of_padding() -> None:
    model = small_model()
    F, _ = frames([8, 8])
    F[0] = math.log(FLOOR)
    logits = model(F, torch.tensor([0, 8]))
    assert torch.equal(logits, model(F, torch.tensor([1, 8])))
    assert logits.isfinite().all()


def test_statistics_normalise_each_mel() -> None:
    model = small_model()
    table = torch.randn(50, 6) * torch.arange(6) - 2
    model.set_statistics(table)
    torch.testing.assert_close(model.mean, table.mean(0))
    assert (model.std > 0).all()  # the first mel is constant


def test_save_and_load_give_the_same_frozen_model(tmp_path: Path) -> None:
    model = small_model()
    model.regularizers = RegularizerConfig(epsilon=0.05)
    model.save(tmp_path)
    loaded = RewardModel.load(tmp_path)
    assert torch.equal(model(*frames([5, 9])), loaded(*frames([5, 9])))
    assert (loaded.emotions, loaded.floor, loaded.config) == (EMOTIONS, FLOOR, SMALL)
    assert loaded.regularizers == model.regularizers
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_folder_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"contains no reward_model\.json; give"):
        RewardModel.load(tmp_path)


def test_bfloat16_autocast_stays_near_float32() -> None:
    model = small_model()
    F, lengths = frames([3, 9, 12])
    expected = model(F, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(F, lengths)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CPU/CUDA agreement of the reward model")
def test_cuda_agrees_with_cpu() -> None:
    model = small_model()
    F, lengths = frames([3, 9, 12])
    expected = model(F, lengths)
    torch.testing.assert_close(model.cuda()(F.cuda(), lengths.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
