"""Read the user's corpora for ``--train`` and ``--test``, and the user's speech encoder.

Test sets are checked like manifests and must be disjoint from all training splits.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ablations.errors import InputError
from rrpo.config import EncoderConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.identity import files_digest
from rrpo.pipeline import world
from rrpo.profiles import Profile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
PATIENCE = 2.0
"""Checks that take longer, in seconds, are reported."""
TRAINED = {"rm_pretrain": ("train",), "annotated": ("train",), "rm_valid": ("valid", "test")}
"""Split filled by ``--train`` -> parts of the corpus that may fill it; the first existing one is used."""


def training_entries(corpus: str) -> list[str]:
    """Return the ``SPLIT=PATH`` entries of a corpus written by ``rrpo.corpus import --out CORPUS.jsonl`` with ``--split`` or
    ``--folds``."""
    return [f"{split}={part_of(corpus, *parts)}" for split, parts in TRAINED.items()]


def test_entry(text: str) -> str:
    """Return ``NAME=PATH`` for a value of ``--test``; a corpus alone means its part ``test``, or all of it without one."""
    return text if "=" in text else f"{_manifest_path(text).stem}={part_of(text, 'test', '')}"


def part_of(corpus: str, *parts: str) -> Path:
    """Return the first existing manifest among a corpus' parts; the part ``""`` is the whole corpus.

    Raises:
        InputError: None of them exists.
    """
    manifest = _manifest_path(corpus)
    paths = [manifest.with_name(f"{manifest.stem}.{part}.jsonl") if part else manifest for part in parts]
    for path in paths:
        if path.is_file():
            return path
    base, fold, _ = manifest.stem.partition(".fold")
    parts_made = "--folds K" if fold else "--split train=.8 --split valid=.1 --split test=.1"
    raise InputError(
        f"the corpus {corpus} has no manifest {' or '.join(path.name for path in paths)}",
        got=", ".join(sorted(path.name for path in manifest.parent.glob(f"{manifest.stem}*.jsonl")))
        or "none of its manifests",
        fix=f"python -m rrpo.corpus import READER PATH --out {manifest.with_name(base)}.jsonl {parts_made}",
    )


def speed_reporter(path: Path) -> Callable[[int, float], None]:
    """Return a function that prints to stderr how fast a manifest was checked, if that took longer than `PATIENCE`."""

    def report(utterances: int, seconds: float) -> None:
        if seconds > PATIENCE:
            print(f"{path}: {utterances} utterances checked, {utterances / seconds:.0f} per second", file=sys.stderr)

    return report


def with_encoder(profile: Profile, folder: Path, *, tuned: bool) -> Profile:
    """Return the profile with reward models that use the speech encoder in a Hugging Face folder.

    Raises:
        InputError: The folder contains no encoder of waveforms.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} contains no speech encoder",
            got=f"no readable config.json ({error})",
            fix="give a folder written by `save_pretrained`, or a downloaded repository",
        ) from None
    if "feat_extract_norm" not in config:
        raise InputError(
            f"the model in {folder} does not encode waveforms",
            got=f"a {config.get('model_type', 'model without a type')}",
            fix="use wav2vec 2.0, WavLM, HuBERT, or another model with their convolutional front end",
        )
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
    encoder = EncoderConfig(digest=files_digest(folder, files), path=str(folder.resolve()), tuned=tuned)
    model = replace(profile.pretrain.model, encoder=encoder)
    return replace(profile, pretrain=replace(profile.pretrain, model=model))


def _manifest_path(corpus: str) -> Path:
    return Path(corpus.removesuffix(".jsonl") + ".jsonl")


def read_tests(entries: Sequence[str], profile: Profile) -> dict[str, ManifestConfig]:
    """Return the test sets by name. Each keeps its own emotions; a reward model is tested on those that it predicts.

    Raises:
        InputError: A name or manifest is invalid, a test set has no emotion of the reward model, or an audio file is also in a
            training split.
    """
    if not entries:
        return {}
    from rrpo.corpus.intake import check_apart, check_manifest
    from rrpo.corpus.manifest import Manifest, ManifestError

    test_sets: dict[str, ManifestConfig] = {}
    try:
        training = {
            name: Manifest(path=Path(manifest.path), emotions=None, split=name)
            for name, manifest in profile.manifests.items()
            if name in world.splits(profile) or name == "annotated"
        }
        for name, _, path in (test_entry(entry).partition("=") for entry in entries):
            if not NAME.fullmatch(name) or name in test_sets or not path:
                raise InputError(
                    "--test takes NAME=PATH or a corpus; names must be unique and consist of letters, digits and hyphens",
                    got=f"{name}={path}",
                    fix="for example --test IEMOCAP=iemocap.jsonl, or --test IEMOCAP for the same",
                )
            utterances = Manifest(path=Path(path), emotions=None, split=name)
            emotions = {utterance.emotion for utterance in utterances}
            if not emotions & set(profile.emotions):
                raise ManifestError(
                    f"{path}: no utterance has an emotion of the reward model ({', '.join(profile.emotions)}); "
                    f"it has {', '.join(sorted(emotions))}"
                )
            check_apart({**training, f"rm_test_{name}": utterances}, world.models_trained_on)
            own_emotions = () if emotions <= set(profile.world.emotions) else tuple(sorted(emotions))
            test_sets[name] = replace(
                check_manifest(Path(path), utterances, profile.world.audio, tell=speed_reporter(Path(path))),
                emotions=own_emotions,
            )
    except ManifestError as error:
        fix = "correct the manifest or the file it names; nothing was written"
        raise InputError(str(error), got=" ".join(entries), fix=fix) from None
    return test_sets
