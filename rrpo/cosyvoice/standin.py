"""Tiny stand-in for CosyVoice2-0.5B with the same files and keys and random weights, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrpo.cosyvoice import layout
from rrpo.cosyvoice.fsq import DIGITS, LEVELS
from rrpo.cosyvoice.policy import BLANK
from rrpo.cosyvoice.text import SPECIALS

TEXTS = (
    "Your emotion is angry, happy, sad, surprised, fearful or neutral",
    "今天天气很好 我们一起去公园",
    "the cat sat on the mat",
)
"""Training texts of the tokenizer."""
FULL = dict(zip(layout.NEEDED, (896, 4864, 24, 14, 2, 151936), strict=True))
"""Sizes of CosyVoice2-0.5B."""
TINY = dict(zip(layout.NEEDED[:-1], (32, 48, 2, 2, 1), strict=True))
"""Sizes of the stand-in, without those of the vocabulary."""


def write(
    folder: Path,
    sizes: dict[str, int] = TINY,
    *,
    spread: float = 0.1,
    eos: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write ``llm.pt`` and ``CosyVoice-BlankEN`` to ``folder`` and return it.

    Args:
        folder: Folder to write; created if it does not exist.
        sizes: Fields of config.json; the default of ``vocab_size`` is that of the tokenizer.
        spread: Standard deviation of matrices and embeddings.
        eos: Bias of eos: roughly the log of the ratio between the frequencies of eos and a code.
        dtype: Type of the tensors in the file.
    """
    blank = folder / BLANK
    blank.mkdir(parents=True, exist_ok=True)
    tokens = _write_tokenizer(blank)
    config: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "vocab_size": 8 * (1 + tokens // 8),
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "attention_dropout": 0.0,
        **sizes,
    }
    (blank / "config.json").write_text(json.dumps(config, indent=1))
    torch.save(_weights(config, spread, eos, dtype), folder / "llm.pt")
    return folder


def write_corpus(path: Path, utterances: int = 120) -> Path:
    """Write labelled tokens as JSON lines and return the path. There are three emotions, each with a typical value of the first
    digit."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(utterances):
            digits = rng.integers(0, 3, (int(rng.integers(8, 16)), DIGITS))
            digits[:, 0] = np.where(rng.random(len(digits)) < 0.95, i % 3, digits[:, 0])
            text = " ".join(rng.choice(["cat", "dog", "sat", "on", "mat", "the", "sun"], 3)) + f" {i}"
            row = {"utt": f"u{i}", "text": text, "spk": "anna", "emotion": ("angry", "happy", "sad")[i % 3]}
            tokens = (digits * LEVELS ** np.arange(DIGITS)).sum(1).tolist()
            file.write(json.dumps({**row, "speech_token": tokens}) + "\n")
    return path


def _weights(config: dict[str, Any], spread: float, eos: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return random tensors of the layout, with norms near 1; the unused head is the same tensor as the text embedding."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in layout.expected_shapes(config).items():
        mean = 1.0 if "norm" in name else 0.0
        weights[name] = (mean + spread * torch.randn(shape, generator=generator)).to(dtype)
    weights[layout.HEAD] = weights[layout.EMBEDDING]
    weights["llm_decoder.bias"][layout.CODES] += eos
    return weights


def _write_tokenizer(folder: Path) -> int:
    """Write a byte-level BPE in the format of a Qwen2 tokenizer; return its number of tokens including `SPECIALS`."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=320, min_frequency=2, show_progress=False)
    bpe.save_model(str(folder))
    description = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 32768}
    (folder / "tokenizer_config.json").write_text(json.dumps(description))
    return int(bpe.get_vocab_size()) + len(SPECIALS)
