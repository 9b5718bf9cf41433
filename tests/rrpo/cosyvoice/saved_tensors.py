"""What autograd keeps of a policy's layers."""

import torch

from rrpo.cosyvoice.paper import SPEECH, TEXT
from rrpo.cosyvoice.policy import CosyVoice2Policy


def saved_bytes(policy: CosyVoice2Policy) -> int:
    """Return the bytes of all storages that autograd keeps after the forward pass of two sequences, without weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    sizes: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    prefix, speech = torch.ones(2, TEXT, dtype=torch.long), torch.zeros(2, SPEECH, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), policy.computing():
        hidden = policy._hidden(prefix, speech, torch.full((2,), SPEECH + 1))
    assert hidden.requires_grad
    return sum(size for pointer, size in sizes.items() if pointer not in weights)
