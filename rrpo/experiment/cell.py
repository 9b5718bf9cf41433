"""One experiment cell, arm x seed: its stages and the record made from their results. Imports no torch until a stage is built."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rrpo.config import ArmConfig
from rrpo.errors import InputError
from rrpo.experiment import dataflow, measurements, world
from rrpo.identity import content_hash, described, leaves
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile

_REPLACED = re.compile(r"profile\.((base|sft)\.model\.|optimize\.reward$|(?!world\.)\w+\.seed$)")
"""Profile parameters that the pipeline overwrites: the policy's network, the arm's reward, the seeds of stages."""

WEIGHTS = ("policy", "reward_model", "adapter")
"""Folders of models within a stage's folder: gigabytes, no part of a record."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm with one seed on one profile."""

    label: str
    """Name of the arm; together with `Cell.arm_hash` it identifies the arm."""
    arm: ArmConfig
    """Config of the arm."""
    seed: int
    """Seed of the experiment."""
    profile: Profile
    """Sizes and settings shared by all arms."""
    policy: bool = True
    """False in grids that study only reward models: no policy is optimized."""

    @property
    def name(self) -> str:
        """``arm/seed``, the name of the MLflow run."""
        return f"{self.label}/{self.seed}"

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Stages of the record by role, which determine the cell's identity; none needs an optional package."""
        if self.profile.cosyvoice:
            return dataflow.on_cosyvoice(self.profile.cosyvoice, self.arm, self.seed, self.label)
        return measurements.core(self.profile, self.arm, self.seed, policy=self.policy)

    @cached_property
    def optional(self) -> dict[str, Stage]:
        """Stages that need optional packages, as far as those are installed, by role.

        Their results are added to a complete record. They are not part of its identity, which is therefore the same on every
        machine.
        """
        if self.profile.cosyvoice:
            return {}
        return measurements.optional(self.profile, self.arm, self.seed, policy=self.policy)

    @property
    def all_stages(self) -> list[Stage]:
        """Stages of the record and optional stages."""
        return [*self.stages.values(), *self.optional.values()]

    @cached_property
    def hash(self) -> str:
        """Identity of the cell's result: hash of the label and of every stage's key."""
        return self.hash_as(self.label)

    def hash_as(self, label: str) -> str:
        """Return the hash of a cell that has another label and the same stages."""
        return content_hash([label, {role: stage.key for role, stage in self.stages.items()}])

    @cached_property
    def arm_hash(self) -> str:
        """Short hash of the arm's config."""
        return content_hash(self.arm)[:8]

    @cached_property
    def world_hash(self) -> str:
        """Hash of everything that neither seed nor arm redraws, and of the user's own data. Only cells that share it may be
        pooled."""
        if self.profile.pooled:
            return self.profile.pooled
        if self.profile.cosyvoice:
            return content_hash([self.profile.cosyvoice.model, self.profile.cosyvoice.corpus])[:16]
        shared = [stage.key for stage in world.shared(self.profile)]
        return content_hash([self.profile.world, self.profile.manifests, shared])[:16]

    def params(self) -> dict[str, str]:
        """Flat config for MLflow's params: ``section.field`` -> text."""
        params = leaves({"arm": described(self.arm), "profile": described(self.profile)})
        used = {name: json.dumps(value) for name, value in params if not _REPLACED.match(name)}
        return {"label": self.label, "seed": str(self.seed)} | used


def require_buildable(cells: Sequence[Cell]) -> None:
    """Check that the stages of cells fit together, by each profile for itself.

    Raises:
        InputError: A policy's reward model reads waveforms, which its codec does not make; or a cell needs rendered speech of an
            emotion that occurs only in the user's manifests.
    """
    for profile in dict.fromkeys(cell.profile for cell in cells):
        _require_buildable(profile, [cell for cell in cells if cell.profile is profile])


def _require_buildable(profile: Profile, cells: Sequence[Cell]) -> None:
    encoder = profile.pretrain.model.encoder
    if encoder is not None and any(cell.policy for cell in cells):
        raise InputError(
            "a reward model of waveforms cannot reward a policy whose codec makes log-mel frames",
            got=encoder.path,
            fix="use --grid rm, which trains and compares reward models alone",
        )
    if unrenderable := world.rendered_below(profile, *(stage for cell in cells for stage in cell.stages.values())):
        emotions = ", ".join(sorted(set(profile.emotions) - set(profile.world.emotions)))
        raise InputError(
            f"these splits would have to be rendered, but the renderer has no emotion {emotions}: {', '.join(unrenderable)}",
            got=f"manifests for {', '.join(profile.manifests)} with the emotions {', '.join(profile.emotions)}",
            fix="correct a mistyped label; or give a --manifest for each of these splits; or run a smaller grid: --grid rm "
            "trains no policy, and needs only rm_pretrain, annotated and rm_valid",
        )


def collect(stages: Mapping[str, Stage], store: Path) -> tuple[dict[str, float], dict[str, Path]]:
    """Return the scalars of finished ``stages`` (given by role), and their files by artifact name (Parquet tables, audio).

    Every stage writes ``scalars.json``; other files keep the names that they have beside it. `WEIGHTS` are left out.
    """
    scalars: dict[str, float] = {}
    files: dict[str, Path] = {}
    for role, stage in stages.items():
        folder = stage.path(store)
        scalars |= json.loads((folder / "scalars.json").read_text())
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and path.name != "scalars.json" and relative.parts[0] not in WEIGHTS:
                name = relative.as_posix()
                files[f"{role}/{name}" if name == "stage.json" else name] = path
    return scalars, files
