"""Write labelled tokens in the format of the stages that optimizers may read: prompts, and speech for preference pairs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.tokens import TokenUtterance


def write_inputs(
    out: Path, utterances: Sequence[TokenUtterance], codec: FsqDigits, emotions: Sequence[str]
) -> dict[str, Path]:
    """Write the inputs of `PolicyOptimizer.start`: ``rl_prompts``, and one half of the utterances each as ``sft_speech`` and
    ``parallel_speech``. Return the folders by name."""
    half = len(utterances) // 2
    for name, part in (("sft_speech", utterances[:half]), ("parallel_speech", utterances[half:])):
        (out / name).mkdir(parents=True, exist_ok=True)
        digits = (codec.codebook[torch.tensor(u.tokens, device=codec.device)].half().cpu().numpy() for u in part)
        write_speech(out / name, codec.audio, emotions, [_to_utterance(utterance) for utterance in part], digits)
    (out / "rl_prompts").mkdir(exist_ok=True)
    rows = (json.dumps(dataclasses.asdict(utterance.prompt), ensure_ascii=False) + "\n" for utterance in utterances)
    (out / "rl_prompts" / "prompts.jsonl").write_text("".join(rows), encoding="utf-8")
    return {path.name: path for path in out.iterdir()}


def _to_utterance(utterance: TokenUtterance) -> Utterance:
    prompt = utterance.prompt
    return Utterance(
        id=prompt.id,
        text=prompt.text,
        phones=prompt.phones,
        speaker=prompt.speaker,
        language="und",
        emotion=prompt.emotion,
        true_emotion=prompt.emotion,
        split="tokens",
        audio="tokens",
    )
