"""A tiny real world for the judges' tests: rendered speech, a briefly trained codec, prompts. Makes `drawn` importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rrpo.config import CodecConfig
from rrpo.corpus import features, prompts
from rrpo.corpus.config import ARTEFACTS, PromptConfig, SpeechConfig, SplitConfig, WorldConfig
from rrpo.pipeline.stages import Context
from rrpo.training import codec

sys.path.insert(0, str(Path(__file__).parent))

WORLD = WorldConfig(policy_speakers=2, rm_speakers=2, judge_speakers=2, foreign_speakers=1)
PROMPTS = 2 * len(ARTEFACTS)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the built stages: ``speech``, ``heldout``, ``words``, ``codec``, ``prompts``."""
    root = tmp_path_factory.mktemp("stages")
    folders = {name: root / name for name in ("speech", "heldout", "words", "codec", "prompts")}
    for folder in folders.values():
        folder.mkdir()
    for name, size, texts in (("speech", 40, "judge_test"), ("heldout", 20, "judge_heldout"), ("words", 30, "random")):
        split = SplitConfig(name=name, size=size, speakers="judge+policy", texts=texts, artefact_rate=0.25)
        features.build(SpeechConfig(world=WORLD, split=split), {}, folders[name], Context())
    config = CodecConfig(dim=16, steps=5, batch=8)
    codec.build(config, {"speech": folders["speech"]}, folders["codec"], Context())
    prompts.build(PromptConfig(world=WORLD, texts="eval", size=PROMPTS), {}, folders["prompts"], Context())
    return folders


@pytest.fixture(scope="session")
def frames(stages: dict[str, Path]) -> tuple[torch.Tensor, torch.Tensor]:
    """``F [4, T, M], lengths [4]`` of real speech, all of different lengths."""
    speech = features.SpeechSet.load(stages["heldout"])
    F, lengths = speech.batch(range(4))
    lengths = lengths - torch.arange(4) % 3
    return F.masked_fill(torch.arange(F.shape[1])[None, :, None] >= lengths[:, None, None], float(F.min())), lengths
