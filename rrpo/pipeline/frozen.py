"""The frozen world: which stages of the embedded world are installed with the package, and how they are brought up to date.

They lie in `rrpo.pipeline.stages.LAYER` under their keys: every machine has the same codec, judges, recognisers and base
policy, to the last bit, and nobody trains them. What only they read (the speech they learnt from) is not needed and not there;
what a changed config or version asks for has another key, and is built as ever. Imports no torch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrpo.config import ArmConfig
from rrpo.pipeline import dataflow, stages, world
from rrpo.pipeline.stages import MARKER, Stage
from rrpo.pipeline.versions import VERSIONS
from rrpo.profiles import EMBEDDED

SEEDS = (1000, 1001)
"""Development seeds whose SFT policies and pre-trained reward models are frozen too: those of the grid ``smoke``."""


def frozen() -> tuple[Stage, ...]:
    """What is installed: what no seed redraws, but speech, and for `SEEDS` where every arm starts."""
    models = [world.codec, world.base, world.third_judge, world.speakers, world.predictor, world.eval_prompts]
    by_role: list[tuple[Callable[..., Stage], tuple[str, ...]]] = [
        (world.recogniser, ("reward", "judge")),
        (world.judge, ("val", "test")),
    ]
    return (
        *(make(EMBEDDED) for make in models),
        *(make(EMBEDDED, role) for make, roles in by_role for role in roles),
        *(dataflow.sft(EMBEDDED, seed) for seed in SEEDS),
        *(dataflow.pretrained(EMBEDDED, ArmConfig(), seed) for seed in SEEDS),
    )


@dataclass(frozen=True)
class Review:
    """The layer beside what should be in it."""

    missing: tuple[Stage, ...]
    """Stages that it lacks."""
    stale: Mapping[str, str]
    """Folder -> why its key is no longer current."""
    superfluous: tuple[str, ...]
    """Folders that are no stage of the kinds that it holds."""
    empty: bool
    """Whether nothing was ever frozen."""

    @property
    def current(self) -> bool:
        """Whether exactly what should be there is there."""
        return not (self.missing or self.stale or self.superfluous)


def review(wanted: Sequence[Stage]) -> Review:
    """Compare the layer with the stages that should be in it."""
    kinds = {stage.name for stage in wanted}
    there = {stage.folder for stage in wanted if (stages.LAYER / stage.folder / MARKER).is_file()}
    stale: dict[str, str] = {}
    superfluous: list[str] = []
    for folder in _folders():
        marker = _marker(folder)
        if marker.get("name") not in kinds:
            superfluous.append(folder.name)
        elif folder.name not in there:
            stale[folder.name] = _why(marker)
    missing = tuple(stage for stage in wanted if stage.folder not in there)
    return Review(missing, stale, tuple(superfluous), not _folders())


def freeze(wanted: Sequence[Stage], store: Path) -> Review:
    """Copy what the layer lacks from ``store``, where all of it is built, and remove what is stale or superfluous; what it was.

    A stage that the layer holds under its current key is left as it is, whatever ``store`` has: results go by its bits.
    """
    before = review(wanted)
    for stage in before.missing:
        final = stages.LAYER / stage.folder
        draft = final.with_name(f".{final.name}")
        for left in (draft, final):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(stage.path(store), draft)
        os.replace(draft, final)
    after = review(wanted)
    for name in (*after.stale, *after.superfluous):
        shutil.rmtree(stages.LAYER / name)
    return before


def size(folder: str) -> int:
    """Bytes of one of the layer's folders."""
    return sum(path.stat().st_size for path in (stages.LAYER / folder).rglob("*") if path.is_file())


def _folders() -> list[Path]:
    return sorted(path for path in stages.LAYER.glob("*") if path.is_dir())


def _marker(folder: Path) -> dict[str, object]:
    path = folder / MARKER
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _why(marker: Mapping[str, object]) -> str:
    then, now = marker["version"], VERSIONS[str(marker["name"])]
    return f"version {then}, now {now}" if then != now else "its config changed, or a stage that it reads"
