"""A blind listening test of a grid's samples, as one HTML file that needs no server.

Blind: the page names a sample by a keyed hash (HMAC-SHA-256). The key and what each name stands for are kept in a run of kind
``listening`` in the grid's experiment; the same choice of samples is the same test, so its page can be written again.

Balanced: a person hears every prompt by every arm exactly once. The seeds rotate over the prompts, and all arms of a prompt come
from one seed, so that arms are compared on the same prompt, seed and person. Who rates decides the order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ablations.errors import InputError, choose
from ablations.tracking.reader import Store
from ablations.tracking.records import TAG_GRID, TAG_KIND, TAG_TEST, Record
from reports.loading import Selection
from reports.settings import settings
from rrpo.arms import BASE, RRPO
from rrpo.identity import content_hash

ARMS = ("sft", BASE, RRPO)
"""Heard unless the user says otherwise: those of the paper's Table 1 that are here."""
PROMPTS = 10
"""Most prompts a person hears by each arm."""
FILE = "test.json"
"""The test's artifact: key and items."""
TEMPLATE = Path(__file__).with_name("listening.html.j2")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample that is rated."""

    arm: str
    """Who made it."""
    seed: int
    """The experiment's seed."""
    sound: str
    """Its audio file's name in the cell's record, ``NN_emotion.wav`` of evaluation prompt NN."""
    cell_hash: str
    """Which result: ratings count only beside this very one."""

    @property
    def prompt(self) -> int:
        """Which evaluation prompt."""
        return int(self.sound.split("_")[0])

    @property
    def emotion(self) -> str:
        """What the prompt asked for."""
        return emotion_of(self.sound)


@dataclass(frozen=True, kw_only=True)
class ListeningTest:
    """A test as its run keeps it."""

    id: str
    """Opaque; stands in the page and in every row of ratings."""
    grid: str
    """Whose samples."""
    key: str
    """Of the hash; never leaves the runs folder."""
    emotions: tuple[str, ...]
    """What can be chosen."""
    items: dict[str, Item]
    """By opaque name."""


def emotion_of(sound: str) -> str:
    """``NN_emotion.wav`` -> emotion."""
    return sound.removesuffix(".wav").split("_", 1)[1]


def choose_items(
    selection: Selection, arms: Sequence[str] | None, seeds: Sequence[int] | None, prompts: int = PROMPTS
) -> list[Item]:
    """The samples to rate: the given arms and seeds by as many prompts, in turn one of each emotion.

    Default: `ARMS`, in a grid of settings those of the world's own, and all seeds.
    Raises InputError for arms or seeds that are not there, and when no prompt was kept for all of them.
    """
    own = next((f"@{s.name}" for s in settings(selection.records) if s.own), "")
    heard = [f"{arm}{own}" for arm in ARMS]
    wanted = list(arms) if arms else [arm for arm in heard if arm in selection.arms] or selection.arms
    for arm in wanted:
        choose("arm with records", arm, selection.arms)
    there = {(r.label, r.seed): r for r in selection.records if (r.folder / "audio").is_dir()}
    complete = [s for s in sorted({seed for _, seed in there}) if all((arm, s) in there for arm in wanted)]
    chosen = complete if seeds is None else list(dict.fromkeys(seeds))
    lacking = [f"{arm}/{seed}" for seed in chosen for arm in wanted if (arm, seed) not in there]
    if lacking or not chosen:
        got = ", ".join(lacking) or f"no seed that all of {', '.join(wanted)} have"
        known = ", ".join(map(str, complete)) or "none"
        raise InputError(
            "there is no audio of these cells", got=got, fix=f"choose other --arms, or --seeds among: {known}"
        )
    cells = [there[arm, seed] for arm in wanted for seed in chosen]
    sounds = _in_turn(set.intersection(*({path.name for path in (r.folder / "audio").glob("*.wav")} for r in cells)))
    if not sounds:
        raise InputError("these cells have no prompt in common", got=", ".join(wanted), fix="choose other --arms")
    return [
        Item(arm=r.label, seed=r.seed, sound=sound, cell_hash=r.cell_hash) for sound in sounds[:prompts] for r in cells
    ]


def _in_turn(sounds: set[str]) -> list[str]:
    """By emotion in turn, so that the first ones are as balanced as can be."""
    seen: dict[str, int] = {}
    ranked = []
    for sound in sorted(sounds):
        emotion = emotion_of(sound)
        seen[emotion] = seen.get(emotion, 0) + 1
        ranked.append((seen[emotion], sound))
    return [sound for _, sound in sorted(ranked)]


def find_or_make(store: Store, grid: str, items: Sequence[Item], emotions: Sequence[str]) -> ListeningTest:
    """The test of exactly these samples: the one in the store, or a new one with a key of its own, stored."""
    wanted = content_hash([[asdict(item) for item in items], list(emotions)])
    for test in tests(store, grid):
        if content_hash([[asdict(item) for item in test.items.values()], list(test.emotions)]) == wanted:
            return test
    key = secrets.token_hex(16)
    names = {opaque(key, f"{item.cell_hash}/{item.sound}"): item for item in items}
    test = ListeningTest(id=opaque(key, "test"), grid=grid, key=key, emotions=tuple(emotions), items=names)
    tags = {TAG_KIND: "listening", TAG_GRID: grid, TAG_TEST: test.id}
    run = store.client.create_run(store.beside(grid), run_name=f"listening test {test.id}", tags=tags).info.run_id
    store.client.log_param(run, "arms", ",".join(dict.fromkeys(item.arm for item in items)))
    store.client.log_param(run, "items", len(items))
    store.client.log_dict(run, asdict(test), FILE)
    store.client.set_terminated(run, "FINISHED")
    return test


def tests(store: Store, grid: str) -> list[ListeningTest]:
    """Every listening test of a grid, oldest first."""
    found = []
    for run in store.runs(grid, "listening"):
        path = store.artifacts_of(run) / FILE
        if path.is_file():
            stored = json.loads(path.read_text())
            items = {name: Item(**item) for name, item in stored["items"].items()}
            found.append(
                ListeningTest(**stored | {"items": items, "emotions": tuple(stored["emotions"])}),
            )
    return found


def opaque(key: str, what: str) -> str:
    """What nobody without the key can tell: 12 hex digits of HMAC-SHA-256."""
    return hmac.new(bytes.fromhex(key), what.encode(), hashlib.sha256).hexdigest()[:12]


def blocks(test: ListeningTest) -> list[list[list[str]]]:
    """``[prompt][seed]`` -> opaque names of all arms. The order of prompts, seeds and names depends on the key alone."""
    prompts = sorted({item.prompt for item in test.items.values()}, key=lambda p: opaque(test.key, f"prompt {p}"))
    seeds = sorted({item.seed for item in test.items.values()}, key=lambda s: opaque(test.key, f"seed {s}"))
    return [
        [sorted(name for name, i in test.items.items() if (i.prompt, i.seed) == (prompt, seed)) for seed in seeds]
        for prompt in prompts
    ]


def page(test: ListeningTest, records: Sequence[Record]) -> str:
    """The HTML file: questions, design and every sound, losslessly packed; nothing of arms, seeds or emotions asked for."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = {record.cell_hash: record.folder / "audio" for record in records}
    sounds = {name: _packed(folders[item.cell_hash] / item.sound) for name, item in sorted(test.items.items())}
    data = {"test": test.id, "emotions": test.emotions, "blocks": blocks(test), "sounds": sounds}
    loader = FileSystemLoader(TEMPLATE.parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(TEMPLATE.name).render(data=data)


def _packed(path: Path) -> str:
    """A 16-bit wav file as FLAC in base64: half the size, the same samples, and nothing else of the file."""
    import soundfile

    wave, rate = soundfile.read(path, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def write(text: str, path: Path) -> None:
    """The page in one step, so that no half of it is ever handed out."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
