"""Create a blind listening test of a grid's samples, as one HTML file that needs no server.

Blind: the page identifies each sample by a keyed hash (HMAC-SHA-256). The key and the meaning of each hash are stored in a run
of kind ``listening`` in the experiment ``about GRID``. The same choice of samples gives the same test, so its page can be
written again.

Balanced: each person hears every prompt by every arm exactly once. Seeds rotate over the prompts, and all arms of a prompt use
the same seed, so arms are compared on the same prompt, seed and person. The order is random, seeded by the rater's name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ablations.tracking.connection import answering
from ablations.tracking.reader import Store
from ablations.tracking.reconcile import owner_tags
from ablations.tracking.records import TAG_GRID, TAG_KIND, TAG_TEST, Record
from ablations.tracking.run_files import put_text
from reports.loading import Selection
from reports.settings import default_suffix
from reports.writers import render
from rrpo.arms import BASE, RRPO
from rrpo.errors import InputError, choose
from rrpo.identity import rebuild

ARMS = ("sft", BASE, RRPO)
"""Default arms: those of the paper's Table 1 that this package trains."""
PROMPTS = 10
"""Default for the maximum number of prompts per arm."""
FILE = "test.json"
"""Artifact that stores the key and the items."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample to be rated."""

    arm: str
    """Arm that generated the sample."""
    seed: int
    """The experiment's seed."""
    sound: str
    """Name of the audio file in the cell's record, ``NN_emotion.wav`` for evaluation prompt NN."""
    cell_hash: str
    """Hash of the cell; ratings are shown only with this exact result."""

    @property
    def prompt(self) -> int:
        """Number of the evaluation prompt."""
        return int(self.sound.split("_")[0])

    @property
    def emotion(self) -> str:
        """Target emotion of the prompt."""
        return emotion_of(self.sound)


@dataclass(frozen=True, kw_only=True)
class ListeningTest:
    """A listening test, as stored in its run."""

    id: str
    """Opaque identifier, contained in the page and in every row of ratings."""
    grid: str
    """Grid whose samples are rated."""
    key: str
    """Key of the hash; it never leaves the runs folder."""
    emotions: tuple[str, ...]
    """Emotions that a listener can choose from."""
    items: dict[str, Item]
    """Opaque name -> item."""


def emotion_of(sound: str) -> str:
    """Return the emotion in a file name ``NN_emotion.wav``."""
    return sound.removesuffix(".wav").split("_", 1)[1]


def choose_items(
    selection: Selection, arms: Sequence[str] | None, seeds: Sequence[int] | None, prompts: int = PROMPTS
) -> list[Item]:
    """Return the samples to rate: at most ``prompts`` prompts, alternating between emotions, by the given arms and seeds.

    The default is `ARMS` (in a grid of settings, those of the default setting) and all seeds that have audio of every arm.
    """
    suffix = default_suffix(selection)
    defaults = [f"{arm}{suffix}" for arm in ARMS]
    labels = list(dict.fromkeys(arms)) if arms else [arm for arm in defaults if arm in selection.arms] or selection.arms
    for arm in labels:
        choose("arm with records", arm, selection.arms)
    with_audio = {(r.label, r.seed): r for r in selection.records if (r.folder / "audio").is_dir()}
    complete = [s for s in sorted({seed for _, seed in with_audio}) if all((arm, s) in with_audio for arm in labels)]
    chosen_seeds = complete if seeds is None else list(dict.fromkeys(seeds))
    missing = [f"{arm}/{seed}" for seed in chosen_seeds for arm in labels if (arm, seed) not in with_audio]
    if missing or not chosen_seeds:
        got = ", ".join(missing) or f"no seed that all of {', '.join(labels)} have"
        known = ", ".join(map(str, complete)) or "none"
        raise InputError(
            "there is no audio of these cells", got=got, fix=f"choose other --arms, or --seeds among: {known}"
        )
    cells = [with_audio[arm, seed] for arm in labels for seed in chosen_seeds]
    sounds = _alternating(
        set.intersection(*({path.name for path in (r.folder / "audio").glob("*.wav")} for r in cells))
    )
    if not sounds:
        raise InputError("these cells have no prompt in common", got=", ".join(labels), fix="choose other --arms")
    return [
        Item(arm=r.label, seed=r.seed, sound=sound, cell_hash=r.cell_hash) for sound in sounds[:prompts] for r in cells
    ]


def _alternating(sounds: set[str]) -> list[str]:
    """Sort by alternating emotions, so that any prefix is as balanced as possible."""
    seen: Counter[str] = Counter()
    ranked = []
    for sound in sorted(sounds):
        seen[emotion_of(sound)] += 1
        ranked.append((seen[emotion_of(sound)], sound))
    return [sound for _, sound in sorted(ranked)]


def find_or_make(store: Store, grid: str, items: Sequence[Item], emotions: Sequence[str]) -> ListeningTest:
    """Return the stored test of exactly these samples, or store a new one with a new key."""
    for test in tests(store, grid):
        if [*test.items.values()] == [*items] and [*test.emotions] == [*emotions]:
            return test
    key = secrets.token_hex(16)
    names = {opaque(key, f"{item.cell_hash}/{item.sound}"): item for item in items}
    test = ListeningTest(id=opaque(key, "test"), grid=grid, key=key, emotions=tuple(emotions), items=names)
    tags = {TAG_KIND: "listening", TAG_GRID: grid, TAG_TEST: test.id} | owner_tags()
    experiment = store.about_experiment(grid)
    with answering(store.folder):
        run = store.client.create_run(experiment, run_name=f"listening test {test.id}", tags=tags)
        store.client.log_param(run.info.run_id, "arms", ",".join(dict.fromkeys(item.arm for item in items)))
        store.client.log_param(run.info.run_id, "items", len(items))
        put_text(store.folder, run, json.dumps(asdict(test), indent=2), FILE)
        store.client.set_terminated(run.info.run_id, "FINISHED")
    return test


def tests(store: Store, grid: str) -> list[ListeningTest]:
    """Return every listening test of a grid, oldest first."""
    paths = [store.artifacts_of(run) / FILE for run in store.runs(grid, "listening")]
    return [rebuild(ListeningTest, json.loads(path.read_text())) for path in paths if path.is_file()]


def opaque(key: str, name: str) -> str:
    """Return a hash that cannot be computed without the key: 12 hex digits of HMAC-SHA-256."""
    return hmac.new(bytes.fromhex(key), name.encode(), hashlib.sha256).hexdigest()[:12]


def blocks(test: ListeningTest) -> list[list[list[str]]]:
    """Return ``[prompt][seed]`` -> opaque names of all arms. The order of prompts, seeds and names depends only on the key."""
    prompts = sorted({item.prompt for item in test.items.values()}, key=lambda p: opaque(test.key, f"prompt {p}"))
    seeds = sorted({item.seed for item in test.items.values()}, key=lambda s: opaque(test.key, f"seed {s}"))
    return [
        [sorted(name for name, i in test.items.items() if (i.prompt, i.seed) == (prompt, seed)) for seed in seeds]
        for prompt in prompts
    ]


def page(test: ListeningTest, records: Sequence[Record]) -> str:
    """Return the HTML file: questions, design and losslessly compressed audio, without arms, seeds or target emotions."""
    folders = {record.cell_hash: record.folder / "audio" for record in records}
    sounds = {name: _as_flac(folders[item.cell_hash] / item.sound) for name, item in sorted(test.items.items())}
    data = {"test": test.id, "emotions": test.emotions, "blocks": blocks(test), "sounds": sounds}
    return render("listening.html.j2", data=data)


def _as_flac(path: Path) -> str:
    """Return a 16-bit wav file as base64-encoded FLAC: half the size, the same samples, no metadata."""
    import soundfile

    wave, rate = soundfile.read(path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def write(text: str, path: Path) -> None:
    """Write the page atomically, so that an incomplete page is never given to listeners."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
