"""The package's own judges pass the contract of trained judges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rrpo.judges import phonetic_judge, phonetics
from rrpo.judges.config import JudgeConfig, PhoneticJudgeConfig
from rrpo.judges.emotion import Judge
from rrpo.pipeline.stages import Context
from rrpo.testing.judges import AUDIO, EMOTIONS, HearingContract


class TestValJudge(HearingContract):
    architecture = "conv_gru"

    def trained(self) -> Judge:
        torch.manual_seed(0)
        return Judge(JudgeConfig(dim=8, architecture=self.architecture), EMOTIONS, AUDIO).eval()


class TestTestJudge(TestValJudge):
    architecture = "stats_tdnn"


@pytest.mark.skipif(not phonetics.available(), reason="praat-parselmouth is not installed")
class TestThirdJudge(HearingContract):
    found: phonetic_judge.PhoneticJudge

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _built(cls, stages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("third")
        inputs = {"speech": stages["heldout"], "codec": stages["codec"]}
        phonetic_judge.build(PhoneticJudgeConfig(folds=2), inputs, folder, Context())
        cls.found = phonetic_judge.PhoneticJudge.load(folder)

    def trained(self) -> phonetic_judge.PhoneticJudge:
        return self.found
