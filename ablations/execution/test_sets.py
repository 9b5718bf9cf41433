"""Read additional test sets of the user, ``--test NAME=PATH``: checked like manifests, and disjoint from all training splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ablations.errors import InputError
from rrpo.corpus.config import ManifestConfig
from rrpo.pipeline import world
from rrpo.profiles import Profile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


def read_tests(entries: Sequence[str], profile: Profile) -> dict[str, ManifestConfig]:
    """Return the test sets by name. Each keeps its own emotions; a reward model is tested on the emotions that it knows.

    Raises:
        InputError: A name or manifest is invalid, a test set has no emotion of the reward model, or an audio file is also in a
            training split.
    """
    if not entries:
        return {}
    from rrpo.corpus.intake import check_apart, check_manifest
    from rrpo.corpus.manifest import Manifest, ManifestError

    found: dict[str, ManifestConfig] = {}
    try:
        learnt = {
            name: Manifest(path=Path(manifest.path), emotions=None, split=name)
            for name, manifest in profile.manifests.items()
            if name in world.splits(profile) or name == "annotated"
        }
        for name, _, path in (entry.partition("=") for entry in entries):
            if not NAME.fullmatch(name) or name in found or not path:
                raise InputError(
                    "--test takes NAME=PATH, each name once, of letters, digits and hyphens",
                    got=f"{name}={path}",
                    fix="for example --test IEMOCAP=iemocap.jsonl",
                )
            lines = Manifest(path=Path(path), emotions=None, split=name)
            there = {utterance.emotion for utterance in lines}
            if not there & set(profile.emotions):
                raise ManifestError(
                    f"{path}: no utterance has an emotion of the reward model ({', '.join(profile.emotions)}); "
                    f"it has {', '.join(sorted(there))}"
                )
            check_apart({**learnt, f"rm_test_{name}": lines}, world.heard_by)
            own = () if there <= set(profile.world.emotions) else tuple(sorted(there))
            found[name] = replace(check_manifest(Path(path), lines, profile.world.audio), emotions=own)
    except ManifestError as error:
        fix = "correct the manifest or the file it names; nothing was written"
        raise InputError(str(error), got=" ".join(entries), fix=fix) from None
    return found
