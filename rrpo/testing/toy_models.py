"""Tiny, untrained models and prompts on disk: all inputs of the stage ``optimize``, created within a second."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch

from rrpo.config import CodecConfig, PolicyConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.corpus.prompts import Prompt
from rrpo.judges.config import JudgeConfig, RecogniserConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy
from rrpo.models.reward_model import RewardModel

EMOTIONS = ("angry", "happy", "sad")
SPEAKERS = ("anna", "ben")
PHONES = ("a", "b")
AUDIO = AudioConfig(n_mels=8)
PROMPTS = 18
SHARPNESS = 30.0
"""Factor on the reward model's last layer, so that an untrained one has clear preferences among tokens."""


def toy_codec() -> Codec:
    """Return a codec with 25 codes and two speakers."""
    torch.manual_seed(0)
    return Codec(CodecConfig(levels=(5, 5), dim=16), AUDIO, SPEAKERS).eval().requires_grad_(False)


def toy_policy(max_tokens: int = 8) -> Policy:
    """Return a policy with one layer over the toy codec's codes."""
    torch.manual_seed(1)
    symbols = (*Policy.SPECIALS, *(f"<{name}>" for name in (*EMOTIONS, *SPEAKERS)), *PHONES)
    return Policy(PolicyConfig(dim=16, layers=1, heads=2, max_tokens=max_tokens), symbols, codes=25).eval()


def toy_prompts() -> list[Prompt]:
    """Return `PROMPTS` short prompts with alternating emotions and speakers."""
    return [
        Prompt(id=str(i), text="ab" * n, phones=PHONES * n, speaker=SPEAKERS[i % 2], emotion=EMOTIONS[i % 3])
        for i, n in zip(range(PROMPTS), cycle((1, 2, 3)), strict=False)
    ]


def optimize_inputs(folder: Path) -> dict[str, Path]:
    """Write the inputs of a stage ``optimize`` into ``folder``, one folder each; return them by role."""
    torch.manual_seed(2)
    reward_model = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), EMOTIONS, AUDIO.n_mels, AUDIO.floor)
    with torch.no_grad():
        reward_model.head.weight.mul_(SHARPNESS)
    save: dict[str, Callable[[Path], None]] = {
        "policy": toy_policy().save,
        "codec": toy_codec().save,
        "reward_model": reward_model.save,
        "recogniser": Recogniser(RecogniserConfig(dim=16), PHONES, AUDIO.n_mels).save,
        "val": Judge(JudgeConfig(dim=16), EMOTIONS, AUDIO).save,
    }
    inputs = {role: folder / role for role in (*save, "prompts")}
    for path in inputs.values():
        path.mkdir(parents=True)
    for role, write in save.items():
        write(inputs[role])
    lines = [json.dumps(dataclasses.asdict(prompt)) + "\n" for prompt in toy_prompts()]
    (inputs["prompts"] / "prompts.jsonl").write_text("".join(lines))
    prompts = inputs.pop("prompts")
    return inputs | {"rl_prompts": prompts, "eval_prompts": prompts}
