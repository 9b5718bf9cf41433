"""Write ``report.html``, a self-contained file: the answer, one table and one chart first; everything else is folded."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablations.rendering import card
from ablations.rendering.sheet import Sheet, html, show
from ablations.stats.family import primary
from ablations.tracking import page as mlflow_page
from ablations.tracking.reader import Store
from ablations.tracking.records import EXPERIMENT_WORLD, TAG_GRID, TAG_WORLD_HASH, Record
from reports import explorer, settings
from reports.figures.samples import FLOOR, spectrogram
from reports.loading import Selection
from reports.report import Figure, Report
from rrpo.validation.lines import load

ANSWER = "answer.md"
"""File of the first screen."""
PROMPTS = 5
"""Number of prompts whose audio is embedded in the page: the first one of each emotion."""
BIT_RATE = 0.6
"""Compression level of the embedded audio (0 least, 1 most): about 32 kbit/s for speech, or 14 MB per hour."""
TEMPLATE = Path(__file__).with_name("page.html.j2")


class Part(NamedTuple):
    """One folded section of the page: figures, then tables."""

    name: str
    """Name in links."""
    title: str
    """Heading."""
    line: str
    """The question that it answers, in one line."""
    shown: tuple[str, ...]
    """Names of its figures and tables."""


PARTS = (
    Part("settings", "By setting", "Which conclusions hold when a setting changes.", ("reach", "settings")),
    Part(
        "components",
        "Components",
        "What each component does alone, within RRPO, and in combination with the others.",
        ("forest", "effects", "ablation"),
    ),
    Part(
        "arms",
        "Arms",
        "Every outcome of every arm and seed.",
        ("seeds", "pareto", "table", "outcomes", "ran_with"),
    ),
    Part(
        "overoptimisation",
        "Over-optimization",
        "How far proxy and gold diverge, how often policies collapse, and what early stopping would have saved.",
        ("goodhart", "training", "overoptimisation", "at_kl", "at_rollouts", "at_seconds", "early_stopped"),
    ),
    Part(
        "hacking",
        "How the reward is hacked",
        "Uptake of planted artefacts, and confusion matrices.",
        ("confusion", "uptake", "uptake_by_kind"),
    ),
    Part(
        "reward-models",
        "Reward models",
        "Whether each regularizer caused its intended change, and how each arm's samples score under other reward models.",
        ("reward_models", "recognition_effects", "rulers", "transfer"),
    ),
    Part("listeners", "Listeners", "Listeners' ratings of the samples.", ("listening",)),
)
"""Sections in order. Figures and tables that no section names are shown in a last one."""


def write(selection: Selection, report: Report, figures: Sequence[Figure], folder: Path) -> Path:
    """Write the page; the figures must already be in ``folder``. The same records give the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATE.parent)
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(TEMPLATE.name)
    plain = settings.plain(selection)[0]
    chart = explorer.data(plain)
    images = {figure.name: _figure(figure, folder) for figure in figures}
    first, *rest = report.sheets
    text = template.render(
        style=TEMPLATE.with_name("page.css").read_text(encoding="utf-8"),
        script=TEMPLATE.with_name("page.js").read_text(encoding="utf-8"),
        grid=selection.grid,
        answer=report.answer,
        methods=report.methods,
        provenance=report.provenance,
        first=_table(first),
        front=[] if chart["arms"] else list(images.values())[:1],
        parts=parts({sheet.name: _table(sheet) for sheet in rest}, images),
        explorer=chart,
        explorer_json=json.dumps(chart, separators=(",", ":")).replace("</", "<\\/"),
        audio=audio(plain.records),
        card=world_card(selection),
        cells=cells(selection),
        command=selection.folder.ui_command() if selection.folder else "",
        versions=environment(selection.records),
    )
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def parts(tables: Mapping[str, Any], figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `PARTS` with their existing figures and tables; empty sections are omitted."""
    placed = {name for part in PARTS for name in part.shown}
    unplaced = tuple(name for name in (*figures, *tables) if name not in placed)
    sections = [
        {
            "name": part.name,
            "title": part.title,
            "line": part.line,
            "figures": [figures[name] for name in part.shown if name in figures],
            "tables": [tables[name] for name in part.shown if name in tables],
        }
        for part in (*PARTS, Part("more", "More", "Other figures and tables.", unplaced))
    ]
    return [part for part in sections if part["figures"] or part["tables"]]


def _table(sheet: Sheet) -> dict[str, Any]:
    return {"name": sheet.name, "title": sheet.title, "html": html(sheet, notes=False), "notes": sheet.notes}


def _figure(figure: Figure, folder: Path) -> dict[str, str]:
    picture = _data_url((folder / f"{figure.name}.png").read_bytes(), "image/png")
    return {"name": figure.name, "title": figure.title, "caption": figure.caption, "source": picture}


def keep(selection: Selection, paths: Sequence[Path]) -> None:
    """Log the report's files to the report run of each of its grids in MLflow, and set the answer as the experiment's
    description.

    Files of an earlier report are not removed from MLflow; `writers.LISTING`, one of the files, lists those of the newest
    report.
    """
    assert selection.folder is not None
    store = Store(selection.folder)
    alone = len(selection.grids) == 1
    answer = "".join(path.read_text(encoding="utf-8") for path in paths if path.name == ANSWER and alone)
    for grid in selection.grids:
        mlflow_page.keep_report(store, grid, paths, "reports" if alone else f"reports/{selection.grid}", answer)


def audio(records: Sequence[Record]) -> dict[str, Any]:
    """Return the audio matrix of the first seed: prompts by arms, each sample with its spectrogram, ready to embed."""
    seed = min(record.seed for record in records)
    folders = {r.label: r.folder / "audio" for r in records if r.seed == seed and (r.folder / "audio").is_dir()}
    first_of_emotion: dict[str, str] = {}
    for name in sorted({path.name for folder in folders.values() for path in folder.glob("*.wav")}):
        first_of_emotion.setdefault(name.removesuffix(".wav").split("_", 1)[-1], name)
    prompts = list(first_of_emotion.items())[:PROMPTS]
    rows = [(emotion, name, [_sample(folder / name) for folder in folders.values()]) for emotion, name in prompts]
    return {"seed": seed, "arms": list(folders), "rows": rows}


def _sample(path: Path) -> dict[str, str] | None:
    import soundfile

    if not path.is_file():
        return None
    wave, rate = soundfile.read(path)
    level, *_ = spectrogram(wave, rate)
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="MP3", compression_level=BIT_RATE)
    return {
        "sound": _data_url(file.getvalue(), "audio/mpeg"),
        "picture": _data_url(_picture(level), "image/png"),
        "seconds": f"{len(wave) / rate:.1f}",
    }


def _picture(level: Any) -> bytes:
    """Return a spectrogram ``[f, t]`` in dB as a small PNG, low frequencies at the bottom."""
    import numpy as np
    from PIL import Image

    shade = np.clip((level - FLOOR) / -FLOOR, 0, 1)[::-1]
    image = Image.fromarray((255 * (1 - shade)).astype("uint8")).resize((140, 64), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def world_card(selection: Selection) -> dict[str, str]:
    """Return the newest validation report of the records' world as ``table`` (HTML) and ``note``; empty if there is none."""
    assert selection.folder is not None
    store, world = Store(selection.folder), selection.records[0].world_hash
    cards = [run for run in store.runs(EXPERIMENT_WORLD, "card") if run.data.tags.get(TAG_WORLD_HASH) == world]
    paths = (store.artifacts_of(run) / "card.json" for run in reversed(cards))
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}
    lines = load(path)
    title = path.with_name("card.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return {"table": html(card.sheet(lines, title)), "note": f"{card.CAPTION} {card.conclusion(lines)}"}


def cells(selection: Selection) -> dict[str, Any]:
    """Return the primary outcome of every cell by arm and seed, and the cells that ended without one, with the URLs of runs."""
    outcome, address = primary(), _addresses(selection)
    entries = {
        (r.label, r.seed): (show(outcome.read(r), outcome.unit), address(r.tags[TAG_GRID], r.run_id))
        for r in selection.records
    }
    for key, state in selection.lost.items():
        attempt = selection.attempts.get(key)
        entries[key] = state, address(attempt.tags[TAG_GRID], attempt.run_id) if attempt else ""
    seeds = sorted({seed for _, seed in entries})
    rows = [(arm, [entries.get((arm, seed)) for seed in seeds]) for arm in selection.arms]
    return {"outcome": outcome.heading, "seeds": seeds, "rows": rows, "failed": failed(selection, address)}


def failed(selection: Selection, address: Callable[[str, str], str]) -> list[tuple[str, str, str, str]]:
    """Return ``(arm/seed, URL of its run, kind of failure, reason)`` for every cell that failed.

    ``address`` gives the URL of a run from its grid and id.
    """
    return [
        (f"{arm}/{seed}", address(attempt.tags[TAG_GRID], attempt.run_id), attempt.lost.kind, attempt.lost.reason)
        for (arm, seed), attempt in selection.attempts.items()
        if attempt.lost
    ]


def _addresses(selection: Selection) -> Callable[[str, str], str]:
    """Return a function of a grid and a run's id that gives the URL of the run in MLflow's interface."""
    assert selection.folder is not None
    store, base = Store(selection.folder), selection.folder.ui_address
    experiment_ids = {grid: store.experiment_id(grid) for grid in selection.grids}
    return lambda grid, run: f"{base}/#/experiments/{experiment_ids[grid]}/runs/{run}"


def environment(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return versions and machine, from the newest record's environment."""
    newest = max(records, key=lambda record: record.recorded)
    path = newest.folder / "environment.json"
    return sorted((key, str(value)) for key, value in json.loads(path.read_text()).items()) if path.is_file() else []


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
