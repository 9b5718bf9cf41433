"""A tiny folder with the files and keys of CosyVoice2-0.5B, random weights inside: what the tests load in the release's place."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
"""What the tokeniser's merges are learnt from."""
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
"""Sizes."""
FULL = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
"""CosyVoice2-0.5B's."""


def write(
    folder: Path,
    sizes: dict[str, int] = TINY,
    *,
    texts: Sequence[str] = TEXTS,
    spread: float = 0.1,
    eos: float = 0.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Writes ``llm.pt`` and ``CosyVoice-BlankEN`` into ``folder``, and returns it.

    Args:
        folder: Made where it is not there.
        sizes: Fields of config.json; without ``vocab_size``, that of the tokeniser.
        texts: What the tokeniser learns from.
        spread: Standard deviation of matrices and embeddings.
        eos: Bias of eos: log of how much more often than a code it is drawn, roughly.
        dtype: Of the file.
        seed: Of the weights.
    """
    blank = folder / BLANK
    blank.mkdir(parents=True, exist_ok=True)
    tokens = _write_tokenizer(blank, texts)
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
    torch.save(_weights(config, spread, eos, dtype, seed), folder / "llm.pt")
    return folder


def write_corpus(path: Path, utterances: int = 120, seed: int = 0) -> Path:
    """Writes labelled tokens as JSON lines and returns the path: three emotions, each a value that the first digit mostly has."""
    draw = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for i in range(utterances):
            digits = draw.integers(0, 3, (int(draw.integers(8, 16)), DIGITS))
            digits[:, 0] = np.where(draw.random(len(digits)) < 0.95, i % 3, digits[:, 0])
            text = " ".join(draw.choice(["cat", "dog", "sat", "on", "mat", "the", "sun"], 3)) + f" {i}"
            row = {"utt": f"u{i}", "text": text, "spk": "anna", "emotion": ("angry", "happy", "sad")[i % 3]}
            tokens = (digits * LEVELS ** np.arange(DIGITS)).sum(1).tolist()
            file.write(json.dumps({**row, "speech_token": tokens}) + "\n")
    return path


def _weights(
    config: dict[str, Any], spread: float, eos: float, dtype: torch.dtype, seed: int
) -> dict[str, torch.Tensor]:
    """Random tensors of the layout; norms near 1, the unused head the very tensor of the text embedding."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in layout.expected_shapes(config).items():
        around = 1.0 if "norm" in name else 0.0
        found[name] = (around + spread * torch.randn(shape, generator=generator)).to(dtype)
    found[layout.HEAD] = found[layout.EMBEDDING]
    found["llm_decoder.bias"][layout.CODES] += eos
    return found


def _write_tokenizer(folder: Path, texts: Sequence[str]) -> int:
    """A byte-level BPE in the files of a Qwen2 tokeniser; returns how many tokens it has with `SPECIALS`."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=320, min_frequency=2, show_progress=False)
    bpe.save_model(str(folder))
    about = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 32768}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return int(bpe.get_vocab_size()) + len(SPECIALS)
