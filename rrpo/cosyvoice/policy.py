"""CosyVoice2's language model as a policy, loaded from a release, trained by any optimizer, and saved as ``llm.pt``.

A sequence is ``[sos][text ...][task_id][speech ...] -> eos`` with the text ``Your emotion is X<|endofprompt|>text``. ``sos``
and ``task_id`` are rows 0 and 1 of ``llm_embedding``; the ``task_id`` position predicts the first speech token. The sequence
has no speaker: CosyVoice2's voice comes from the flow decoder. Interleaved (streaming) sequences are not supported, so the last
two rows of ``llm_decoder`` (unused, and the fill token) are excluded from all distributions.

Sampling and scoring are those of `rrpo.models.policy.Policy`: temperature 1 over the V codes and eos, and eos never first.
`rrpo.cosyvoice.sampling` implements CosyVoice2's own decoding.

Weights are float32. ``precision="bf16"`` computes in bfloat16 by autocast, except the residual stream and the norms, which stay
in float32. Tensors are saved in the types of the loaded file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice import layout
from rrpo.cosyvoice.config import MAX_TOKENS, PRECISIONS
from rrpo.cosyvoice.text import WORDS, TextTokenizer, prompt_text
from rrpo.errors import InputError
from rrpo.masking import valid_mask
from rrpo.models.policy import Policy

BLANK = "CosyVoice-BlankEN"
"""Folder of the Qwen2 config and tokenizer in a release."""
SETTINGS = "rrpo.json"
"""File of a saved policy's settings, in addition to upstream's files."""


class CosyVoice2Policy(Policy):
    """A `TokenPolicy` over CosyVoice2's 6561 codes; create it with `load`."""

    def __init__(
        self,
        folder: Path,
        *,
        max_tokens: int = MAX_TOKENS,
        words: Mapping[str, str] = WORDS,
        precision: str = "fp32",
        recompute: bool = False,
    ) -> None:
        """Create the network of ``folder/CosyVoice-BlankEN`` with uninitialized weights.

        Args:
            folder: Folder of a release; `save` reads it again.
            max_tokens: Maximum roll-out length in tokens (25 per second).
            words: Emotion -> word in the prompt.
            precision: One of `PRECISIONS`.
            recompute: See `Policy.recompute`.

        Raises:
            InputError: The precision is unknown, or files are missing or do not match.
        """
        nn.Module.__init__(self)
        if precision not in PRECISIONS:
            raise InputError("unknown precision", got=repr(precision), fix=f"use one of {', '.join(PRECISIONS)}")
        self.folder, self.words, self.precision = Path(folder), dict(words), precision
        self._max_tokens, self.codes, self.recompute = max_tokens, layout.CODES, recompute
        self.description = _read_config(self.folder)
        dim, vocabulary = self.description["hidden_size"], self.description["vocab_size"]
        self.tokenizer = TextTokenizer(self.folder / BLANK, vocabulary)
        qwen = Qwen2Config.from_pretrained(self.folder / BLANK)
        with torch.device("meta"):
            self.llm = Qwen2Model(qwen)
            self.llm_embedding = nn.Embedding(2, dim)
            self.speech_embedding = nn.Embedding(layout.ROWS, dim)
            self.llm_decoder = nn.Linear(dim, layout.ROWS)
        self.llm.rotary_emb = type(self.llm.rotary_emb)(qwen)
        self.types: dict[str, torch.dtype] = {}
        """Type of each tensor in the file."""
        self.unused: Tensor | None = None
        """``lm_head`` of the file, if it differs from the text embedding."""

    @property
    def max_tokens(self) -> int:
        """Maximum roll-out length in tokens."""
        return self._max_tokens

    def prompt_ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return text ids plus one ``[B, L]``, left-padded with 0 (plus one, because 0 is ``!`` in Qwen's tokenizer).

        Raises:
            InputError: There is no word for an emotion.
        """
        rows = self.tokenizer.ids([prompt_text(p.emotion, p.text, self.words) for p in prompts])
        longest = max(map(len, rows))
        ids = [[0] * (longest - len(row)) + [index + 1 for index in row] for row in rows]
        return torch.tensor(ids, device=self.llm_decoder.weight.device)

    def text_lengths(self, prefix: Tensor) -> Tensor:
        """Return the number of text tokens ``[B]`` after the instruction, in the output of `prompt_ids`."""
        after = (prefix == self.tokenizer.end_of_prompt + 1).cumsum(1) > 0
        return after.sum(1) - 1

    def _prefix(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings ``[B, L + 2, D]``, mask and positions ``[B, L + 2]`` of ``[sos][text][task_id]``."""
        sizes = (ids > 0).sum(1)
        sos, task = self.llm_embedding.weight
        text = self.llm.embed_tokens((ids - 1).clamp(min=0))
        x = torch.cat([torch.zeros_like(text[:, :1]), text, task.expand(len(ids), 1, -1)], 1)
        x[torch.arange(len(ids), device=ids.device), ids.shape[1] - sizes] = sos
        mask = valid_mask(sizes + 2, ids.shape[1] + 2).flip(1)
        return x, mask, (mask.cumsum(1) - 1).clamp(min=0).float()

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights with upstream's names and order, in the types of the file; low-rank updates are merged."""
        tensors: dict[str, Tensor] = {}
        for name in layout.expected_shapes(self.description):
            if name == layout.HEAD:
                tensors[name] = tensors[layout.EMBEDDING] if self.unused is None else self.unused
            else:
                path, _, leaf = name.replace(layout.BACKBONE, "llm.").rpartition(".")
                weight: Tensor = getattr(self.get_submodule(path), leaf)
                tensors[name] = weight.detach().to("cpu", self.types[name])
        return tensors

    def save(self, folder: Path) -> None:
        """Write a folder for `load` and upstream: ``llm.pt``, ``CosyVoice-BlankEN`` without its weights, and `SETTINGS`.

        To synthesize speech, replace the ``llm.pt`` of the release with this one.
        """
        blank = folder / BLANK
        blank.mkdir(parents=True, exist_ok=True)
        torch.save(self.tensors(), folder / "llm.pt")
        for file in (self.folder / BLANK).iterdir():
            if file.suffix in (".json", ".txt") and file.parent.resolve() != blank.resolve():
                shutil.copyfile(file, blank / file.name)
        settings = {"max_tokens": self.max_tokens, "words": self.words, "precision": self.precision}
        (folder / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path, device: str = "cpu", **settings: Any) -> CosyVoice2Policy:
        """Load a policy from a release or from the output of `save`, in evaluation mode.

        Args:
            folder: Folder with ``llm.pt`` and ``CosyVoice-BlankEN``.
            device: Device of the policy.
            settings: Arguments of the constructor; they override the folder's `SETTINGS`, if there are any.

        Raises:
            InputError: ``llm.pt`` is not CosyVoice2's; all differences are listed.
            InputError: Files are missing or do not match.
        """
        folder = Path(folder)
        saved = _read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
        policy = CosyVoice2Policy(folder, **{**saved, **settings})
        path = folder / "llm.pt"
        tensors = _read_tensors(path)
        layout.check({name: tensor.shape for name, tensor in tensors.items()}, policy.description, str(path))
        head = tensors.pop(layout.HEAD)
        if not torch.equal(head, tensors[layout.EMBEDDING]):
            if policy.description.get("tie_word_embeddings"):
                raise InputError(
                    f"{path} has two different text embeddings, and upstream would use the one named lm_head",
                    got=f"{layout.HEAD} differs from {layout.EMBEDDING} while config.json ties them",
                    fix="store the trained one under both names",
                )
            policy.unused = head.clone()
        policy.types = {name: tensor.dtype for name, tensor in tensors.items()}
        weights = {
            name.replace(layout.BACKBONE, "llm."): nn.Parameter(tensor.to(device, torch.float32, copy=True))
            for name, tensor in tensors.items()
        }
        policy.load_state_dict(weights, assign=True)
        return policy.to(device).eval()


def _read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a release.

    Raises:
        InputError: A file is missing, or the release is CosyVoice3's.
    """
    if (folder / "llm.rl.pt").is_file() and not (folder / "llm.pt").is_file():
        raise layout.cosyvoice3(str(folder), "llm.rl.pt and no llm.pt")
    missing = [name for name in ("llm.pt", f"{BLANK}/config.json") if not (folder / name).is_file()]
    if missing:
        files = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise InputError(
            f"{folder} is not a folder of CosyVoice2-0.5B",
            got=f"{files}; there is no {' and no '.join(missing)}",
            fix="give the folder of the release, which contains llm.pt and CosyVoice-BlankEN",
        )
    config = _read_object(folder / BLANK / "config.json")
    layout.expected_shapes(config)
    return config


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError if it does not contain one."""
    with layout.reading(path, "a JSON object", "copy the file again"):
        value: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict):
            raise TypeError(f"a {type(value).__name__}")
        return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an ``llm.pt``, memory-mapped, without the counters of upstream's trainer.

    Raises:
        InputError: The file is not a dictionary of tensors.
    """
    fix = "copy the file again; if it is a small text file, it is a Git LFS pointer; it must be a state dict"
    with layout.reading(path, "weights", fix):
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tensors = {name: entry for name, entry in stored.items() if name not in layout.BOOKKEEPING}
        if invalid := [str(name) for name, entry in tensors.items() if not isinstance(entry, Tensor)]:
            raise TypeError(f"not tensors: {', '.join(invalid)}")
        return tensors
