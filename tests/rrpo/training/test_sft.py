"""How the policy's supervised training starts."""

import torch

from rrpo.training.sft import _by_coordinates


def test_codes_with_like_coordinates_start_alike() -> None:
    torch.manual_seed(0)
    levels = torch.linspace(-1, 1, 5)
    codebook = torch.cartesian_prod(levels, levels, levels)
    rows = _by_coordinates(codebook, 64)
    assert rows.shape == (125, 64)
    assert abs(rows.std().item() - 1) < 1e-3
    distance = torch.cdist(codebook, codebook)
    apart = torch.cdist(rows, rows)
    near, far = apart[(distance > 0) & (distance < 0.6)].mean(), apart[distance > 2].mean()
    assert near < 0.7 * far
    assert len(rows.unique(dim=0)) == 125
