"""Text input of the policy: the instruction with the emotion, the text, and CosyVoice2's text tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrpo.cosyvoice.layout import reading
from rrpo.errors import InputError

END_OF_PROMPT = "<|endofprompt|>"
"""Separator between instruction and text."""
SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", END_OF_PROMPT, "[breath]", "<strong>", "</strong>", "[noise]", "[laughter]",
    "[cough]", "[clucking]", "[accent]", "[quick_breath]", "<laughter>", "</laughter>", "[hissing]", "[sigh]",
    "[vocalized-noise]", "[lipsmack]", "[mn]",
)  # fmt: skip
"""Special tokens that CosyVoice2 adds to Qwen's tokenizer; their order determines their ids."""
WORDS = {name: name for name in ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")}
"""Emotion -> word in the instruction."""


def prompt_text(emotion: str, text: str, words: Mapping[str, str] = WORDS) -> str:
    """Return ``Your emotion is X<|endofprompt|>text``, DiffRO's prompt format (arXiv 2507.05911).

    Raises:
        InputError: There is no word for the emotion.
    """
    if emotion not in words:
        raise InputError(
            "the policy's prompt has no word for an emotion",
            got=f"{emotion!r}; known are {', '.join(words)}",
            fix="map the label to one of them when importing the corpus (--labels), or set CosyVoiceConfig.words in Python",
        )
    return f"Your emotion is {words[emotion]}{END_OF_PROMPT}{text}"


class TextTokenizer:
    """CosyVoice2's text tokenizer: the Qwen2 tokenizer of ``CosyVoice-BlankEN`` with `SPECIALS` added."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """Load the tokenizer; ``vocabulary`` is the number of rows of the text embedding.

        Raises:
            InputError: Files of the tokenizer are missing, or it has more tokens than the model.
        """
        from transformers import AutoTokenizer

        fix = "copy the tokenizer's files and config.json from CosyVoice2-0.5B/CosyVoice-BlankEN, of one release with llm.pt"
        with reading(folder, "a tokenizer", fix):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._tokenizer.add_tokens(list(SPECIALS), special_tokens=True)
            if len(self._tokenizer) > vocabulary:
                raise ValueError(f"{len(self._tokenizer)} tokens, a text embedding of {vocabulary} rows")

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    @property
    def end_of_prompt(self) -> int:
        """Id of `END_OF_PROMPT`."""
        return int(self._tokenizer.convert_tokens_to_ids(END_OF_PROMPT))
