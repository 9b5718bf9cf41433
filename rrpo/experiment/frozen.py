"""The frozen world: which stages of the embedded world are installed with the package, and how to update them.

They are stored in `rrpo.pipeline.stages.LAYER` under their keys, so that every machine has bit-identical codec, judges,
recognisers and base policy, and none trains them. Inputs that only these stages read (their training speech) are omitted. A
changed config or version gives another key, and that stage is built as usual. Imports no torch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrpo.config import ArmConfig
from rrpo.experiment import dataflow, world
from rrpo.pipeline import stages
from rrpo.pipeline.stages import MARKER, Stage
from rrpo.pipeline.versions import VERSIONS
from rrpo.profiles import EMBEDDED

SEEDS = (1000, 1001)
"""Development seeds whose SFT policies and pre-trained reward models are frozen too: those of the grid ``smoke``."""


def frozen() -> tuple[Stage, ...]:
    """Return the stages to install: what no seed redraws, except speech, and the starting models of `SEEDS`."""
    models = [world.codec, world.base, world.third_judge, world.speakers, world.predictor, world.eval_prompts]
    return (
        *(make(EMBEDDED) for make in models),
        *(world.recogniser(EMBEDDED, role) for role in ("reward", "judge")),
        *(world.judge(EMBEDDED, role) for role in ("val", "test")),
        *(dataflow.sft(EMBEDDED, seed) for seed in SEEDS),
        *(dataflow.pretrained(EMBEDDED, ArmConfig(), seed) for seed in SEEDS),
    )


@dataclass(frozen=True)
class Review:
    """Difference between the layer and the stages that it should contain."""

    missing: tuple[Stage, ...]
    """Stages missing from the layer."""
    outdated: Mapping[str, str]
    """Folder in the layer that it should not contain -> why."""

    @property
    def current(self) -> bool:
        """Whether the layer contains exactly the expected stages."""
        return not (self.missing or self.outdated)


def review(expected: Sequence[Stage]) -> Review:
    """Compare the layer with the stages that it should contain."""
    present = {stage.folder for stage in expected if (stages.LAYER / stage.folder / MARKER).is_file()}
    folders = sorted(path for path in stages.LAYER.glob("*") if path.is_dir())
    outdated = {folder.name: _explain(folder) for folder in folders if folder.name not in present}
    return Review(tuple(stage for stage in expected if stage.folder not in present), outdated)


def freeze(expected: Sequence[Stage], store: Path) -> Review:
    """Copy missing stages from ``store``, which must hold them, and remove outdated ones. Return the prior review.

    Never replace a stage that the layer holds under its current key: results depend on its exact bits.
    """
    before = review(expected)
    for stage in before.missing:
        final = stages.LAYER / stage.folder
        draft = final.with_name(f".{final.name}")
        for leftover in (draft, final):  # left by a run that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(stage.path(store), draft)
        os.replace(draft, final)
    for name in review(expected).outdated:
        shutil.rmtree(stages.LAYER / name)
    return before


def size(folder: str) -> int:
    """Return the size in bytes of one of the layer's folders."""
    return sum(path.stat().st_size for path in (stages.LAYER / folder).rglob("*") if path.is_file())


def _explain(folder: Path) -> str:
    """Return why a folder of the layer is outdated."""
    if not (folder / MARKER).is_file():
        return "not a finished stage"
    marker = json.loads((folder / MARKER).read_text())
    old, new = marker["version"], VERSIONS.get(marker["name"])
    return f"version {old}, now {new}" if old != new else "its config or one of its inputs changed, or it is not frozen"
