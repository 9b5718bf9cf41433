"""Read the user's corpora for ``--train`` and ``--test``, and the user's speech encoder.

Test sets are checked like manifests and must be disjoint from all training splits.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ablations.errors import InputError
from rrpo.config import EncoderConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.pipeline import world
from rrpo.profiles import Profile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
PATIENCE = 2.0
"""Seconds after which a check is worth a line."""
TRAINED = {"rm_pretrain": ("train",), "annotated": ("train",), "rm_valid": ("valid", "test")}
"""Splits that ``--train`` fills -> the parts of the corpus that may, the first that is there."""


def training_entries(corpus: str) -> list[str]:
    """``SPLIT=PATH`` of a corpus that ``rrpo.corpus import --out CORPUS.jsonl`` wrote with ``--split`` or ``--folds``."""
    return [f"{split}={part_of(corpus, *parts)}" for split, parts in TRAINED.items()]


def test_entry(text: str) -> str:
    """``NAME=PATH``, or of ``CORPUS`` alone its part ``test``, else the whole."""
    return text if "=" in text else f"{_whole(text).stem}={part_of(text, 'test', '')}"


def part_of(corpus: str, *parts: str) -> Path:
    """The first of a corpus' manifests that is there; ``""`` is the whole. Raises InputError where none is."""
    whole = _whole(corpus)
    paths = [whole.with_name(f"{whole.stem}.{part}.jsonl") if part else whole for part in parts]
    for path in paths:
        if path.is_file():
            return path
    raise InputError(
        f"the corpus {corpus} has no manifest {' or '.join(path.name for path in paths)}",
        got=", ".join(sorted(path.name for path in whole.parent.glob(f"{whole.stem}*.jsonl")))
        or "none of its manifests",
        fix=f"python -m rrpo.corpus import READER PATH --out {whole} --split train=.8 --split valid=.1 --split test=.1",
    )


def told(path: Path) -> Callable[[int, float], None]:
    """Says on the error stream how fast a manifest was checked, where that took a while."""

    def tell(utterances: int, seconds: float) -> None:
        if seconds > PATIENCE:
            print(f"{path}: {utterances} utterances checked, {utterances / seconds:.0f} a second", file=sys.stderr)

    return tell


def with_encoder(profile: Profile, folder: Path, *, tuned: bool) -> Profile:
    """The profile with reward models on the speech encoder of a Hugging Face folder. Raises InputError where it is none."""
    try:
        about = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no speech encoder",
            got=f"no readable config.json ({error})",
            fix="give a folder that `save_pretrained` wrote, or a downloaded repository",
        ) from None
    if "feat_extract_norm" not in about:
        raise InputError(
            f"{folder} is no encoder of waveforms",
            got=f"a {about.get('model_type', 'model without a type')}",
            fix="use wav2vec 2.0, WavLM, HuBERT, or another with their convolutions",
        )
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    encoder = EncoderConfig(digest=digest.hexdigest()[:32], path=str(folder.resolve()), tuned=tuned)
    model = replace(profile.pretrain.model, encoder=encoder)
    return replace(profile, pretrain=replace(profile.pretrain, model=model))


def _whole(corpus: str) -> Path:
    return Path(corpus.removesuffix(".jsonl") + ".jsonl")


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
        for name, _, path in (test_entry(entry).partition("=") for entry in entries):
            if not NAME.fullmatch(name) or name in found or not path:
                raise InputError(
                    "--test takes NAME=PATH or a corpus, each name once, of letters, digits and hyphens",
                    got=f"{name}={path}",
                    fix="for example --test IEMOCAP=iemocap.jsonl, or --test IEMOCAP for the same",
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
            found[name] = replace(
                check_manifest(Path(path), lines, profile.world.audio, tell=told(Path(path))), emotions=own
            )
    except ManifestError as error:
        fix = "correct the manifest or the file it names; nothing was written"
        raise InputError(str(error), got=" ".join(entries), fix=fix) from None
    return found
