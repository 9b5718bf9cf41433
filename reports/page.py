"""Write ``report.html``, a self-contained file: the answer, one table and one chart first; everything else is folded."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations.rendering import card
from ablations.rendering.sheet import html, show
from ablations.stats.family import primary
from ablations.tracking import page as mlflow_page
from ablations.tracking.records import ENVIRONMENT_FILE, EXPERIMENT_WORLD, TAG_GRID, TAG_WORLD_HASH, Record
from reports import explorer, settings
from reports.figures.samples import FLOOR, spectrogram
from reports.loading import Selection
from reports.report import Figure, Report
from reports.writers import TEMPLATES, render
from rrpo.validation.lines import load

ANSWER = "answer.md"
"""File of the first screen."""
PROMPTS = 5
"""Number of prompts whose audio is embedded in the page: the first one of each emotion."""
BIT_RATE = 0.6
"""Compression level of the embedded audio (0 least, 1 most): about 32 kbit/s for speech, or 14 MB per hour."""


def write(selection: Selection, report: Report, figures: Sequence[Figure], folder: Path) -> Path:
    """Write the page; the figures must already be in ``folder``. The same records give the same bytes."""

    def picture(figure: Figure) -> str:
        return _data_url((folder / f"{figure.name}.png").read_bytes(), "image/png")

    plain, setting = settings.plain(selection)
    chart = explorer.data(plain)
    front = [] if chart["arms"] else figures[:1]
    first, *rest = report.sheets
    text = render(
        "page.html.j2",
        html=html,
        picture=picture,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "page.js").read_text(encoding="utf-8"),
        grid=selection.grid,
        report=report,
        first=first,
        tables={sheet.name: sheet for sheet in rest},
        figures={figure.name: figure for figure in figures if figure not in front},
        front=front,
        setting=setting,
        explorer=chart,
        explorer_json=json.dumps(chart, separators=(",", ":")).replace("</", "<\\/"),
        audio=audio(plain.records),
        card=world_card(selection),
        cells=cells(selection),
        command=selection.store.folder.ui_command(),
        versions=environment(selection.records),
    )
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def keep(selection: Selection, paths: Sequence[Path]) -> None:
    """Log the report's files to the report run of each of its grids in MLflow, and set the answer as the experiment's
    description.

    Files of an earlier report are not removed from MLflow; `writers.LISTING`, one of the files, lists those of the newest
    report.
    """
    alone = len(selection.grids) == 1
    answer = "".join(path.read_text(encoding="utf-8") for path in paths if path.name == ANSWER and alone)
    for grid in selection.grids:
        mlflow_page.keep_report(
            selection.store, grid, paths, "reports" if alone else f"reports/{selection.grid}", answer
        )


def audio(records: Sequence[Record]) -> dict[str, Any]:
    """Return the audio matrix of the first seed with audio: prompts by arms, each sample with its spectrogram, ready to embed."""
    seed = min((record.seed for record in records if (record.folder / "audio").is_dir()), default=records[0].seed)
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
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="MP3", compression_level=BIT_RATE)
    return {
        "sound": _data_url(file.getvalue(), "audio/mpeg"),
        "picture": _data_url(_picture(spectrogram(wave, rate)), "image/png"),
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
    store, world = selection.store, selection.records[0].world_hash
    cards = [run for run in store.runs(EXPERIMENT_WORLD, "card") if run.data.tags.get(TAG_WORLD_HASH) == world]
    paths = (store.artifacts_of(run) / "card.json" for run in reversed(cards))
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}
    lines = load(path)
    title = path.with_name("card.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return {"table": html(card.sheet(lines, title)), "note": f"{card.CAPTION} {card.conclusion(lines)}"}


def cells(selection: Selection) -> dict[str, Any]:
    """Return the primary outcome of every cell by arm and seed, and the cells that ended without one, with the URLs of runs.

    ``failed`` are ``(arm/seed, URL of its run, kind of failure, reason)`` of every cell that failed or diverged.
    """
    outcome, store = primary(), selection.store
    runs = {
        grid: f"{store.folder.ui_address}/#/experiments/{store.experiment_id(grid)}/runs" for grid in selection.grids
    }
    entries = {
        (r.label, r.seed): (show(outcome.read(r), outcome.unit), f"{runs[r.tags[TAG_GRID]]}/{r.run_id}")
        for r in selection.records
    }
    entries |= {key: (state, "") for key, state in selection.lost.items()}
    failed = []
    for key, attempt in selection.attempts.items():
        address = f"{runs[attempt.tags[TAG_GRID]]}/{attempt.run_id}"
        entries[key] = selection.lost[key], address
        if attempt.lost:
            failed.append((f"{attempt.label}/{attempt.seed}", address, attempt.lost.kind, attempt.lost.reason))
    seeds = sorted({seed for _, seed in entries})
    rows = [(arm, [entries.get((arm, seed)) for seed in seeds]) for arm in selection.arms]
    return {"outcome": outcome.heading, "seeds": seeds, "rows": rows, "failed": failed}


def environment(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return versions and machine, from the newest record's environment."""
    newest = max(records, key=lambda record: record.recorded)
    path = newest.folder / ENVIRONMENT_FILE
    return sorted((key, str(value)) for key, value in json.loads(path.read_text()).items()) if path.is_file() else []


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
