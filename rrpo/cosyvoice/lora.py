"""Low-rank adaptation (LoRA, arXiv 2106.09685) of the policy's linear layers: ``W + (alpha / r) B A``, B = 0 at the start.

Each weight is parametrized, so that everything that reads it includes the update: the fused forward pass, the key-value cache
and `CosyVoice2Policy.tensors`, which therefore saves merged weights. `save_adapter` writes only the update, in the format of
the package `peft`, which can load it on the same Qwen2 model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rrpo.cosyvoice.config import LoraConfig

if TYPE_CHECKING:
    from rrpo.cosyvoice.policy import CosyVoice2Policy


class LowRank(nn.Module):
    """Parametrization ``W -> W + scale B A``."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        """Initialize A like torch's linear layers, and B = 0 (as peft does)."""
        super().__init__()
        bound = 1 / math.sqrt(weight.shape[1])
        initial = (2 * torch.rand(rank, weight.shape[1], generator=generator) - 1) * bound
        self.A = nn.Parameter(initial.to(weight.device))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight ``[out, in]`` in the precision of ``weight``.

        In bfloat16, an update below half a step of the weight would be lost; the sum is rounded where it is used.
        """
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight, self.B, self.A, alpha=self.scale)


def adapt(policy: CosyVoice2Policy, config: LoraConfig) -> None:
    """Add low-rank updates to the policy and freeze all other weights."""
    policy.requires_grad_(False)
    generator = torch.Generator().manual_seed(config.seed)
    for name, module in list(policy.llm.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.targets:
            update = LowRank(module.weight, config.rank, config.alpha / config.rank, generator)
            parametrize.register_parametrization(module, "weight", update)


def updates(policy: CosyVoice2Policy) -> Iterator[tuple[str, LowRank]]:
    """Yield the low-rank updates with the names of their layers in the Qwen2 model."""
    for name, module in policy.llm.named_modules():
        if isinstance(module, LowRank):
            yield name.partition(".parametrizations.")[0], module


def save_adapter(policy: CosyVoice2Policy, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` in the format that `peft` reads for a ``Qwen2Model``."""
    adapters = dict(updates(policy))
    from safetensors.torch import save_file

    tensors = {
        f"base_model.model.{name}.lora_{side}.weight": getattr(update, side).detach().cpu().contiguous()
        for name, update in adapters.items()
        for side in "AB"
    }
    rank = next(iter(adapters.values())).A.shape[0]
    description = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": rank,
        "lora_alpha": next(iter(adapters.values())).scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in adapters}),
        "base_model_name_or_path": "",
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps(description, indent=1))
