"""What the policy reads: the instruction that names the emotion, the text, and CosyVoice2's text tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrpo.errors import InputError

END_OF_PROMPT = "<|endofprompt|>"
"""Stands between the instruction and the text."""
SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", END_OF_PROMPT, "[breath]", "<strong>", "</strong>", "[noise]", "[laughter]",
    "[cough]", "[clucking]", "[accent]", "[quick_breath]", "<laughter>", "</laughter>", "[hissing]", "[sigh]",
    "[vocalized-noise]", "[lipsmack]", "[mn]",
)  # fmt: skip
"""Special tokens that CosyVoice2 adds to Qwen's tokeniser, in its order, which gives them their ids."""
WORDS = {
    "angry": "angry",
    "disgusted": "disgusted",
    "fearful": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprised": "surprised",
}
"""Emotion -> the word for it in the instruction."""


def prompt_text(emotion: str, text: str, words: Mapping[str, str] = WORDS) -> str:
    """``Your emotion is X<|endofprompt|>text``, DiffRO's form of a request (arXiv 2507.05911).

    Raises:
        ValueError: There is no word for the emotion.
    """
    if emotion not in words:
        raise InputError(
            "there is no word for an emotion in the policy's prompt",
            got=f"{emotion!r}; known are {', '.join(words)}",
            fix="give the policy a table `words` that has it",
        )
    return f"Your emotion is {words[emotion]}{END_OF_PROMPT}{text}"


FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Of a tokeniser, as far as a release has them."""


class TextTokenizer:
    """CosyVoice2's: the Qwen2 tokeniser of ``CosyVoice-BlankEN`` with `SPECIALS` added."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """``vocabulary`` is the number of rows of the text embedding.

        Raises:
            ValueError: The tokeniser's files are not there, or have more tokens than the model.
        """
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} holds no tokeniser",
                got=error,
                fix="copy vocab.json, merges.txt and tokenizer_config.json of CosyVoice2-0.5B/CosyVoice-BlankEN there",
            ) from error
        self._tokenizer.add_tokens(list(SPECIALS), special_tokens=True)
        if len(self._tokenizer) > vocabulary:
            raise InputError(
                f"the tokeniser in {folder} has more tokens than the model",
                got=f"{len(self._tokenizer)} tokens, a text embedding of {vocabulary} rows",
                fix="take tokeniser, config.json and llm.pt from one release",
            )

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    @property
    def end_of_prompt(self) -> int:
        """Id of `END_OF_PROMPT`."""
        return int(self._tokenizer.convert_tokens_to_ids(END_OF_PROMPT))
