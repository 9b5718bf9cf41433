"""Names and shapes of the tensors in CosyVoice2's ``llm.pt``, derived from ``CosyVoice-BlankEN/config.json``.

At full size there are 295 tensors, twelve per layer and seven more, with 2,023,316,821 bytes in float32 (hidden size 896, 24
layers, 14 heads with 2 key-value heads, vocabulary 151936). The order is upstream's, which is that of its modules. Importing
this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrpo.errors import InputError

LONGEST = 30.0
"""Maximum duration of a recording for CosyVoice2's speech tokenizer, in seconds."""
CODES = 6561
"""V = 3^8, speech codes of CosyVoice2's tokenizer at 25 Hz."""
ROWS = CODES + 3
"""Rows of ``speech_embedding`` and ``llm_decoder``: the codes, eos (6561), one unused row, and the fill token of streaming
(6563)."""
BACKBONE = "llm.model.model."
"""Prefix of the names of the Qwen2 model."""
EMBEDDING, HEAD = f"{BACKBONE}embed_tokens.weight", "llm.model.lm_head.weight"
"""The text embedding, and the language-model head, which CosyVoice2 does not use."""
NEEDED = (
    *("hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "vocab_size"),
)
"""Fields of config.json that determine the layout."""
BOOKKEEPING = ("epoch", "step")
"""Counters that upstream's trainer stores among the tensors of its checkpoints; upstream's inference rejects files with them."""


@contextmanager
def reading(path: Path, kind: str, fix: str) -> Iterator[None]:
    """Turn any error of reading a user's file, which libraries raise without a common base class, into an InputError.

    Args:
        path: The file or folder.
        kind: What it should be.
        fix: What to do.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise InputError(f"{path} cannot be read as {kind}", got=got, fix=fix) from error


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all tensors, in upstream's order, for a Qwen2 ``config.json``.

    Raises:
        InputError: The config lacks a field, or its value is not a positive integer.
    """
    missing = [name for name in NEEDED if not (isinstance(config.get(name), int) and config[name] > 0)]
    if missing:
        raise InputError(
            "config.json does not describe a Qwen2 model",
            got=", ".join(f"{name} {config[name]!r}" if name in config else f"no {name}" for name in missing),
            fix="use the file in CosyVoice-BlankEN from the same release as llm.pt",
        )
    dim, intermediate, layers, heads, kv_heads, vocabulary = (int(config[name]) for name in NEEDED)
    size = int(config.get("head_dim") or dim // heads)
    layer = {
        "self_attn.q_proj.weight": (heads * size, dim),
        "self_attn.q_proj.bias": (heads * size,),
        "self_attn.k_proj.weight": (kv_heads * size, dim),
        "self_attn.k_proj.bias": (kv_heads * size,),
        "self_attn.v_proj.weight": (kv_heads * size, dim),
        "self_attn.v_proj.bias": (kv_heads * size,),
        "self_attn.o_proj.weight": (dim, heads * size),
        "mlp.gate_proj.weight": (intermediate, dim),
        "mlp.up_proj.weight": (intermediate, dim),
        "mlp.down_proj.weight": (dim, intermediate),
        "input_layernorm.weight": (dim,),
        "post_attention_layernorm.weight": (dim,),
    }
    return {
        "llm_embedding.weight": (2, dim),
        EMBEDDING: (vocabulary, dim),
        **{f"{BACKBONE}layers.{i}.{name}": shape for i in range(layers) for name, shape in layer.items()},
        f"{BACKBONE}norm.weight": (dim,),
        HEAD: (vocabulary, dim),
        "llm_decoder.weight": (ROWS, dim),
        "llm_decoder.bias": (ROWS,),
        "speech_embedding.weight": (ROWS, dim),
    }


def check(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], source: str) -> None:
    """Compare the shapes of the tensors in a file with `expected_shapes`.

    Raises:
        InputError: The file is CosyVoice3's, or tensors are missing, unknown or of another shape; all of them are listed.
    """
    if "speech_embedding.weight" in shapes and {"llm_embedding.weight", "llm_decoder.bias"}.isdisjoint(shapes):
        raise cosyvoice3(
            source,
            f"{shapes['speech_embedding.weight'][0]} rows in speech_embedding, no llm_embedding, a head without bias",
        )
    expected = expected_shapes(config)
    differences = [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in shapes]
    differences += [f"unknown: {name} {list(shape)}" for name, shape in shapes.items() if name not in expected]
    differences += [
        f"shape of {name}: {list(shapes[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    if differences:
        raise InputError(
            f"{source} is not CosyVoice2's language model for this config.json ({len(expected)} tensors)",
            got="\n    ".join([f"{len(shapes)} tensors", *differences]),
            fix="take llm.pt and CosyVoice-BlankEN/config.json of one release of CosyVoice2-0.5B; for a checkpoint of a wrapped "
            "model, remove the prefix (module.) from the names",
        )


def cosyvoice3(source: str, got: str) -> InputError:
    """Return the error for CosyVoice3's files."""
    return InputError(
        f"{source} is a CosyVoice3 language model, which has its special tokens in the speech embedding",
        got=got,
        fix="give a folder of CosyVoice2-0.5B, the only supported layout",
    )
