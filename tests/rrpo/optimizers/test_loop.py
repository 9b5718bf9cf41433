"""What the curves and the checkpoints say of a batch of samples."""

from __future__ import annotations

import pytest
import torch

from rrpo.corpus.config import ARTEFACTS
from rrpo.judges.artefacts import OTHERS
from rrpo.optimizers.loop import _opinions


def test_clean_takes_the_judge_and_no_artefact_of_any_kind_in_the_frames() -> None:
    """Of four samples `val` hears three right; one of those has a click and one a long silence."""
    target = torch.tensor([0, 1, 0, 1])
    right = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]).log()
    flags = {f"artefact_{kind}": torch.zeros(4) for kind in (*ARTEFACTS, *OTHERS)}
    flags["artefact_click"] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    flags["artefact_silence"] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    probe = {name: torch.ones(4) for name in ("grad_h", "relative_delta", "l_emo", "l_adv")}
    row = _opinions({"proxy": right, "val": right} | flags | probe, target)
    assert row["val_accuracy"] == 0.75
    assert row["val_clean"] == 0.25
    assert row["artefact_click"] == 0.25
    assert row["val_hack_rate"] == pytest.approx(0.25), "silence is no planted artefact, and the fourth is no hit"
