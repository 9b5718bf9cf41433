"""CosyVoice2's language model as a policy: loaded from its release, trained by every optimiser, saved back as ``llm.pt``.

One sequence is ``[sos][text ...][task_id][speech ...] -> eos``, the text being ``Your emotion is X<|endofprompt|>text``. ``sos``
and ``task_id`` are the rows 0 and 1 of ``llm_embedding``; the ``task_id`` position predicts the first speech token. There is no
speaker in it: CosyVoice2's voice comes from the flow decoder. The language model's interleaved (streaming) sequences are not
used, so that the two last rows of ``llm_decoder`` (unused, and the fill token) have no part in any distribution here.

Sampling and scoring are `rrpo.models.policy.Policy`'s: temperature 1 over the V codes and eos, eos never first. What CosyVoice2
itself decodes with is `rrpo.cosyvoice.sampling`.

Weights are kept in float32; ``precision="bf16"`` computes in bfloat16 by autocast, the residual stream and the norms staying in
float32. A file in another type is saved back in its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice import layout
from rrpo.cosyvoice.config import MAX_TOKENS
from rrpo.cosyvoice.text import FILES, WORDS, TextTokenizer, prompt_text
from rrpo.errors import InputError
from rrpo.masking import valid_mask
from rrpo.models.policy import Policy, Rollout

BLANK = "CosyVoice-BlankEN"
"""Folder of the Qwen2 config and tokeniser in a release."""
SETTINGS = "rrpo.json"
"""What a saved policy keeps beside upstream's files."""
PRECISIONS = ("fp32", "bf16")


class CosyVoice2Policy(Policy):
    """A `TokenPolicy` over CosyVoice2's 6561 codes; made by `load`."""

    def __init__(
        self,
        folder: Path,
        *,
        max_tokens: int = MAX_TOKENS,
        words: Mapping[str, str] = WORDS,
        precision: str = "fp32",
        recompute: bool = False,
    ) -> None:
        """The network of ``folder/CosyVoice-BlankEN``, its weights still without values.

        Args:
            folder: Of a release; it is read again by `save`.
            max_tokens: Longest roll-out in tokens (25 a second).
            words: Emotion -> its word in the prompt.
            precision: One of `PRECISIONS`.
            recompute: See `Policy.recompute`.

        Raises:
            ValueError: An unknown precision; files are missing or do not belong together.
        """
        nn.Module.__init__(self)
        if precision not in PRECISIONS:
            raise InputError("unknown precision", got=repr(precision), fix=f"use one of {', '.join(PRECISIONS)}")
        self.folder, self.words, self.precision = Path(folder), dict(words), precision
        self._max_tokens, self.codes, self.recompute = max_tokens, layout.CODES, recompute
        self.description = _described(self.folder)
        dim, words_in_all = self.description["hidden_size"], self.description["vocab_size"]
        self.tokenizer = TextTokenizer(self.folder / BLANK, words_in_all)
        qwen = Qwen2Config.from_pretrained(self.folder / BLANK)
        with torch.device("meta"):
            self.llm = Qwen2Model(qwen)
            self.llm_embedding = nn.Embedding(2, dim)
            self.speech_embedding = nn.Embedding(layout.ROWS, dim)
            self.llm_decoder = nn.Linear(dim, layout.ROWS)
        self.llm.rotary_emb = type(self.llm.rotary_emb)(qwen)
        self.types: dict[str, torch.dtype] = {}
        """Of each tensor in the file."""
        self.unused: Tensor | None = None
        """The file's ``lm_head`` where it is not the text embedding."""

    @property
    def max_tokens(self) -> int:
        """Longest roll-out in tokens."""
        return self._max_tokens

    def prompt_ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """Text ids plus one, ``[B, L]``, padded on the left with 0 (which Qwen's tokeniser uses for ``!``).

        Raises:
            ValueError: There is no word for an emotion.
        """
        rows = self.tokenizer.ids([prompt_text(p.emotion, p.text, self.words) for p in prompts])
        longest = max(map(len, rows))
        ids = [[0] * (longest - len(row)) + [index + 1 for index in row] for row in rows]
        return torch.tensor(ids, device=self.llm_decoder.weight.device)

    def text_lengths(self, prefix: Tensor) -> Tensor:
        """Text tokens ``[B]`` after the instruction, of what `prompt_ids` returned."""
        after = (prefix == self.tokenizer.end_of_prompt + 1).cumsum(1) > 0
        return after.sum(1) - 1

    def _prefix(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[sos][text][task_id]``: embeddings ``[B, L + 2, D]``, mask and positions ``[B, L + 2]``."""
        sizes = (ids > 0).sum(1)
        sos, task = self.llm_embedding.weight
        text = self.llm.embed_tokens((ids - 1).clamp(min=0))
        x = torch.cat([torch.zeros_like(text[:, :1]), text, task.expand(len(ids), 1, -1)], 1)
        x[torch.arange(len(ids), device=ids.device), ids.shape[1] - sizes] = sos
        mask = valid_mask(sizes + 2, ids.shape[1] + 2).flip(1)
        return x, mask, (mask.cumsum(1) - 1).clamp(min=0).float()

    def computing(self) -> AbstractContextManager[Any]:
        """The precision of what is computed inside."""
        device = self.llm_decoder.weight.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")

    def packed_logits(self, prefix: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """As `Policy.packed_logits`, in this policy's precision; the logits are float32."""
        with self.computing():
            return super().packed_logits(prefix, tokens, counts)

    def sample(self, prefix: Tensor, noise: Tensor) -> Rollout:
        """As `Policy.sample`, in this policy's precision."""
        with self.computing():
            return super().sample(prefix, noise)

    def tensors(self) -> dict[str, Tensor]:
        """The weights under upstream's names, in its order and in the file's types; low-rank updates are merged."""
        found: dict[str, Tensor] = {}
        for name in layout.expected_shapes(self.description):
            if name == layout.HEAD:
                found[name] = found[layout.EMBEDDING] if self.unused is None else self.unused
            else:
                path, _, leaf = name.replace(layout.BACKBONE, "llm.").rpartition(".")
                weight: Tensor = getattr(self.get_submodule(path), leaf)
                found[name] = weight.detach().to("cpu", self.types[name])
        return found

    def save(self, folder: Path) -> None:
        """Writes a folder that `load` and upstream read: ``llm.pt``, ``CosyVoice-BlankEN`` without its own weights, `SETTINGS`.

        To hear it, put ``llm.pt`` in the place of the release's own.
        """
        blank = folder / BLANK
        blank.mkdir(parents=True, exist_ok=True)
        torch.save(self.tensors(), folder / "llm.pt")
        for name in ("config.json", *FILES):
            if (self.folder / BLANK / name).is_file():
                (blank / name).write_bytes((self.folder / BLANK / name).read_bytes())
        settings = {"max_tokens": self.max_tokens, "words": self.words, "precision": self.precision}
        (folder / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path, device: str = "cpu", **settings: Any) -> CosyVoice2Policy:
        """The policy of a release or of what `save` wrote, in evaluation mode.

        Args:
            folder: Holds ``llm.pt`` and ``CosyVoice-BlankEN``.
            device: Where to.
            settings: Those of the constructor; by default what the folder's `SETTINGS` say, if there are any.

        Raises:
            LayoutError: ``llm.pt`` is not CosyVoice2's: all that is wrong with it is listed.
            ValueError: Files are missing or do not belong together.
        """
        folder = Path(folder)
        kept = json.loads((folder / SETTINGS).read_text("utf-8")) if (folder / SETTINGS).is_file() else {}
        policy = CosyVoice2Policy(folder, **{**kept, **settings})
        policy.read(folder / "llm.pt", device)
        return policy.eval()

    def read(self, path: Path, device: str) -> None:
        """Takes the weights of an ``llm.pt``."""
        stored = _tensors_of(path)
        layout.check({name: tensor.shape for name, tensor in stored.items()}, self.description, str(path))
        head = stored.pop(layout.HEAD)
        if not torch.equal(head, stored[layout.EMBEDDING]):
            if self.description.get("tie_word_embeddings"):
                raise layout.LayoutError(
                    f"{path} holds two text embeddings, and upstream would use the one named lm_head",
                    got=f"{layout.HEAD} differs from {layout.EMBEDDING} while config.json ties them",
                    fix="store the one that was trained under both names",
                )
            self.unused = head.clone()
        self.types = {name: tensor.dtype for name, tensor in stored.items()}
        self.load_state_dict(
            {
                name.replace(layout.BACKBONE, "llm."): nn.Parameter(tensor.to(device, torch.float32, copy=True))
                for name, tensor in stored.items()
            },
            assign=True,
        )
        self.to(device)


def _described(folder: Path) -> dict[str, Any]:
    """``config.json`` of a release.

    Raises:
        ValueError: A file is missing, or it is CosyVoice3's release.
    """
    if (folder / "llm.rl.pt").is_file() and not (folder / "llm.pt").is_file():
        raise layout.cosyvoice3(str(folder), "llm.rl.pt and no llm.pt")
    lacking = [name for name in ("llm.pt", f"{BLANK}/config.json") if not (folder / name).is_file()]
    if lacking:
        there = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise InputError(
            f"{folder} is no folder of CosyVoice2-0.5B",
            got=f"{there}; there is no {' and no '.join(lacking)}",
            fix="give the folder of the release, with llm.pt and CosyVoice-BlankEN in it",
        )
    found: dict[str, Any] = json.loads((folder / BLANK / "config.json").read_text("utf-8"))
    layout.expected_shapes(found)
    return found


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of an ``llm.pt``, mapped; without the counters of upstream's trainer.

    Raises:
        LayoutError: The file is no dictionary of tensors.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise layout.LayoutError(
            f"{path} cannot be read as weights",
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            fix="copy the file again; a pointer of Git LFS is a small text file in its place",
        ) from error
    if not isinstance(stored, dict):
        raise layout.LayoutError(
            f"{path} holds no tensors by name",
            got=f"a {type(stored).__name__}",
            fix="give a state dict, as upstream stores it",
        )
    found = {name: value for name, value in stored.items() if name not in layout.BOOKKEEPING}
    strange = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if strange:
        raise layout.LayoutError(
            f"{path} holds more than tensors",
            got=", ".join(map(str, strange)),
            fix="store the model's state dict alone",
        )
    return found
