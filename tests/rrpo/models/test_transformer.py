"""The fast forward against the library's."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from rrpo.models.transformer import parallel, rms_norm


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_outputs_and_gradients_are_the_librarys(kv_heads: int) -> None:
    """Unequal rows against the transformers' own forward, row by row; the norms' weights and biases differ from 1 and 0."""
    config = Qwen2Config(
        vocab_size=5,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    llm = Qwen2Model(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in llm.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(2, 7, 32, generator=generator, requires_grad=True)
    positions = torch.rand(2, 7, generator=generator).cumsum(1)
    weight = torch.randn(2, 7, 32, generator=generator)
    sizes = (7, 4)
    used = [(0, t) for t in (2, 3, 4, 5, 6)] + [(1, 0), (1, 1), (1, 3)]
    flat = torch.tensor([sum(sizes[:row]) + t for row, t in used])
    packed, packed_positions = (torch.cat([v[row, :size] for row, size in enumerate(sizes)]) for v in (x, positions))
    ours = parallel(llm, packed, packed_positions, sizes, flat)
    parts = [
        llm(inputs_embeds=x[row : row + 1, :size], position_ids=positions[row : row + 1, :size]).last_hidden_state[0]
        for row, size in enumerate(sizes)
    ]
    theirs = torch.stack([parts[row][t] for row, t in used])
    assert torch.allclose(ours, theirs, atol=1e-5)
    chosen = torch.stack([weight[row, t] for row, t in used])
    trained = [x, *(p for name, p in llm.named_parameters() if "embed" not in name)]
    for a, b in zip(
        torch.autograd.grad((ours * chosen).sum(), trained),
        torch.autograd.grad((theirs * chosen).sum(), trained),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)


def test_the_norm_by_hand() -> None:
    """(3, 4) has the mean square 12.5; the gradient of the sum is (w - u mean(u w)) / rms with u = x / rms."""
    x, weight = torch.tensor([[3.0, 4.0]], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    rms = 12.5**0.5
    y = rms_norm(x, weight, 0.0)
    assert y[0].tolist() == pytest.approx([3 / rms, 8 / rms])
    y.sum().backward()
    along = (3 / rms + 2 * 4 / rms) / 2
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad[0].tolist() == pytest.approx([(1 - 3 / rms * along) / rms, (2 - 4 / rms * along) / rms])
    assert weight.grad.tolist() == pytest.approx([3 / rms, 4 / rms])
    with torch.no_grad():
        assert torch.allclose(rms_norm(x, weight, 0.0), y)
