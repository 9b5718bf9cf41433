"""Write labelled tokens in the format of the stages that optimizers may read: prompts, and speech for preference pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.prompts import write_prompts
from rrpo.cosyvoice.tokens import TokenUtterance
from rrpo.models.protocols import TokenCodec


def write_inputs(
    out: Path, utterances: Sequence[TokenUtterance], codec: TokenCodec, emotions: Sequence[str]
) -> dict[str, Path]:
    """Write the inputs of `PolicyOptimizer.start`: ``rl_prompts``, and one half of the utterances each as ``sft_speech`` and
    ``parallel_speech``. Return the folders by name."""
    half = len(utterances) // 2
    for name, part in (("sft_speech", utterances[:half]), ("parallel_speech", utterances[half:])):
        (out / name).mkdir(parents=True, exist_ok=True)
        digits = (codec.codebook[torch.tensor(u.tokens, device=codec.device)].half().cpu().numpy() for u in part)
        prompts = [utterance.prompt for utterance in part]
        speech = [
            Utterance(**vars(p), language="und", true_emotion=p.emotion, split="tokens", audio="tokens")
            for p in prompts
        ]
        write_speech(out / name, codec.audio, emotions, speech, digits)
    (out / "rl_prompts").mkdir(exist_ok=True)
    write_prompts(out / "rl_prompts", [utterance.prompt for utterance in utterances])
    return {path.name: path for path in out.iterdir()}
