"""Put the user's own data into a profile: manifests, corpora and test sets (``--manifest``, ``--train``, ``--test``,
``--folds``), and the speech encoder. Every line and every recording is checked first.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.execution.options import Options
from ablations.grids import GRIDS
from rrpo.commands import paced
from rrpo.config import EncoderConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.errors import InputError, choose, positive
from rrpo.experiment import world
from rrpo.experiment.cell import Cell
from rrpo.experiment.dataflow import SFT
from rrpo.identity import content_hash, files_digest
from rrpo.judges.protocol import JUDGES
from rrpo.profiles import Profile
from rrpo.settings import assignments

if TYPE_CHECKING:
    from rrpo.corpus.manifest import Manifest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
PATIENCE = 2.0
"""Seconds between two lines of progress of a check."""
TRAINED = {"rm_pretrain": ("train",), "annotated": ("train",), "rm_valid": ("valid", "test")}
"""Split filled by ``--train`` -> parts of the corpus that may fill it; the first existing one is used."""
BASE = ("base", "sft_heldout")
"""Splits from which the policy learns its speakers, emotions and phones."""
PROMPTS = ("rl", "eval")
"""Splits whose manifests hold prompts, without audio."""


def with_data(profile: Profile, seeds: range, options: Options) -> list[tuple[Profile, Sequence[int]]]:
    """Return the profile with the user's data and its seeds, or with ``--folds`` one profile per fold, each with one seed.

    With ``--folds``, the grid's first seed uses fold 1 of the corpus ``--train``, the next one fold 2 and so on, in turn, and the
    test set is that fold's. The folds are pooled as one world, whichever seeds are requested.
    """
    train, tests, folds = options.train, options.tests or (), options.folds
    if folds is None:
        corpus = [f"{split}={part_of(train, *parts)}" for split, parts in TRAINED.items()] if train else []
        trained = replace(profile, manifests=read_manifests([*corpus, *(options.manifests or ())], profile))
        return [(replace(trained, tests=read_tests(tests, trained)), seeds)]
    if train is None or len(seeds) > positive("--folds", folds):
        raise InputError(
            "--folds divides the corpus of --train, one fold a seed",
            got=f"--folds {folds}, {len(seeds)} seeds, " + (f"--train {train}" if train else "no --train"),
            fix="give --train CORPUS and at most as many seeds as folds",
        )
    profiles = []
    for k in range(1, folds + 1):
        fold = f"{train.removesuffix('.jsonl')}.fold{k}"
        fold_tests = [
            f"{Path(train.removesuffix('.jsonl')).name}={part_of(fold, 'test')}" if test == train else test
            for test in tests
        ]
        fold_options = replace(options, train=fold, folds=None, tests=fold_tests)
        ((own, _),) = with_data(profile, range(1), fold_options)
        profiles.append(own)
    pooled = content_hash([Cell(label="", arm=SFT, seed=0, profile=fold).world_hash for fold in profiles])[:16]
    first = GRIDS[options.grid].first_seed
    return [(replace(profiles[(seed - first) % folds], pooled=pooled), range(seed, seed + 1)) for seed in seeds]


def part_of(corpus: str, *parts: str) -> Path:
    """Return the first existing manifest among the parts of a corpus that ``rrpo.corpus import --out CORPUS.jsonl`` wrote with
    ``--split`` or ``--folds``; the part ``""`` is the whole corpus.

    Raises:
        InputError: None of them exists.
    """
    manifest = Path(corpus.removesuffix(".jsonl") + ".jsonl")
    paths = [manifest.with_name(f"{manifest.stem}.{part}.jsonl") if part else manifest for part in parts]
    for path in paths:
        if path.is_file():
            return path
    base, fold, _ = manifest.stem.partition(".fold")
    parts_made = "--folds K" if fold else "--split train=.8 --split valid=.1 --split test=.1"
    existing = sorted(path.name for path in manifest.parent.glob(f"{manifest.stem}*.jsonl"))
    raise InputError(
        f"the corpus {corpus} has no manifest {' or '.join(path.name for path in paths)}",
        got=", ".join(existing) or "none of its manifests",
        fix=f"python -m rrpo.corpus import READER PATH --out {manifest.with_name(base)}.jsonl {parts_made}",
    )


def read_manifests(entries: Sequence[str], profile: Profile) -> dict[str, ManifestConfig]:
    """Read manifests given as ``SPLIT=PATH``.

    Check every line and audio file, then across splits: what they must not share, and what they must have in common.

    Raises:
        InputError: A split or a manifest is invalid.
    """
    if not entries:
        return {}
    from rrpo.corpus.intake import check_apart, check_speakable, classes
    from rrpo.corpus.manifest import Manifest
    from rrpo.corpus.splits import draw_split

    paths = assignments(entries, "--manifest", "SPLIT=PATH", "annotated=mine.jsonl")
    for name in paths:
        splits = [*profile.sizes, *(f"judge_{judge}" for judge in JUDGES), "annotated", *PROMPTS]
        choose("split for --manifest SPLIT=PATH", name, splits)
    with _refusing(entries):
        manifests = {
            name: Manifest(path=Path(path), emotions=None, split=name, audio=name not in PROMPTS)
            for name, path in paths.items()
        }
        emotions = classes(manifests, profile.world.emotions, world.LEARNT)
        configs = {name: _checked(manifest, profile, emotions) for name, manifest in manifests.items()}
        check_apart({name: manifest for name, manifest in manifests.items() if manifest.audio}, world.models_trained_on)
        if spoken := [name for name in ("sft", *PROMPTS) if name in manifests]:
            own = [manifests.get(name) or draw_split(profile.world, world.splits(profile)[name]) for name in BASE]
            base_utterances = [utterance for utterances in own for utterance in utterances]
            for name in spoken:
                check_speakable(name, manifests[name], base_utterances)
    return configs


def read_tests(entries: Iterable[str], profile: Profile) -> dict[str, ManifestConfig]:
    """Return the test sets by name, from values of ``--test``: ``NAME=PATH``, or a corpus, of which the part ``test`` is read, or
    all without one. Each keeps its own emotions; a reward model is tested on those that it predicts.

    Raises:
        InputError: A name or manifest is invalid, a test set has no emotion of the reward model, or an audio file is also in a
            training split.
    """
    if not entries:
        return {}
    from rrpo.corpus.intake import check_apart
    from rrpo.corpus.manifest import Manifest, ManifestError

    texts = [
        text if "=" in text else f"{Path(text.removesuffix('.jsonl')).name}={part_of(text, 'test', '')}"
        for text in entries
    ]
    paths = assignments(texts, "--test", "NAME=PATH or a corpus", "IEMOCAP=iemocap.jsonl")
    if wrong := [name for name in paths if not NAME.fullmatch(name)]:
        fix = "for example --test IEMOCAP=iemocap.jsonl"
        raise InputError("names of test sets consist of letters, digits and hyphens", got=wrong[0], fix=fix)
    test_sets: dict[str, ManifestConfig] = {}
    with _refusing(texts):
        training = {
            name: Manifest(path=Path(manifest.path), emotions=None, split=name)
            for name, manifest in profile.manifests.items()
            if name in world.splits(profile) or name == "annotated"
        }
        for name, path in paths.items():
            utterances = Manifest(path=Path(path), emotions=None, split=name)
            emotions = {utterance.emotion for utterance in utterances}
            if not emotions & set(profile.emotions):
                raise ManifestError(
                    f"{path}: no utterance has an emotion of the reward model ({', '.join(profile.emotions)}); "
                    f"it has {', '.join(sorted(emotions))}"
                )
            own_emotions = () if emotions <= set(profile.world.emotions) else tuple(sorted(emotions))
            test_sets[name] = _checked(utterances, profile, own_emotions)
            check_apart({**training, f"rm_test_{name}": utterances}, world.models_trained_on)
    return test_sets


@contextmanager
def _refusing(entries: Sequence[str]) -> Iterator[None]:
    """Turn an error of a manifest into one of the command."""
    from rrpo.corpus.manifest import ManifestError

    try:
        yield
    except ManifestError as error:
        fix = "correct the manifest or the file it names; nothing was written"
        raise InputError(str(error), got=" ".join(entries), fix=fix) from None


def _checked(manifest: Manifest, profile: Profile, emotions: tuple[str, ...]) -> ManifestConfig:
    """Check a manifest's recordings, and print how many and how fast every few seconds."""
    from rrpo.corpus.intake import check_manifest

    tell = paced(partial(print, file=sys.stderr), PATIENCE)

    def report(utterances: int, seconds: float) -> None:
        tell(f"{manifest.path}: {utterances} utterances checked, {utterances / max(seconds, 1e-9):.0f} per second")

    audio = profile.world.audio if manifest.audio else None
    return replace(check_manifest(manifest.path, manifest, audio, tell=report), emotions=emotions)


def with_encoder(profile: Profile, folder: Path, *, tuned: bool) -> Profile:
    """Return the profile with reward models that use the speech encoder in a Hugging Face folder.

    Raises:
        InputError: The folder contains no encoder of waveforms.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        fix = "give a folder written by `save_pretrained`, or a downloaded repository"
        got = f"no readable config.json ({error})"
        raise InputError(f"{folder} contains no speech encoder", got=got, fix=fix) from None
    if "feat_extract_norm" not in config:
        got = f"a {config.get('model_type', 'model without a type')}"
        fix = "use wav2vec 2.0, WavLM, HuBERT, or another model with their convolutional front end"
        raise InputError(f"the model in {folder} does not encode waveforms", got=got, fix=fix)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
    encoder = EncoderConfig(digest=files_digest(folder, files), path=str(folder.resolve()), tuned=tuned)
    model = replace(profile.pretrain.model, encoder=encoder)
    return replace(profile, pretrain=replace(profile.pretrain, model=model))
