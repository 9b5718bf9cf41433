"""Command line that converts a corpus to manifests for ``--manifest SPLIT=PATH``.

Usage: ``python -m rrpo.corpus import READER PATH --out manifest.jsonl``. Exit status: 0 when the manifests are written, even if
entries were skipped; 2 for bad input or a corpus without usable entries (nothing is written); 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Column, Table

from rrpo.commands import Plugin, option, options_of, paced, program
from rrpo.corpus.importing import Settings, Summary, import_corpus
from rrpo.corpus.manifest import ManifestError
from rrpo.corpus.readers import READERS

app, main = program("rrpo.corpus")


@app.callback()
def corpus() -> None:
    """Import your own corpora."""


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """The options of the command."""

    reader: Annotated[
        str, typer.Argument(help=f"Layout of the corpus: {', '.join(sorted(READERS))}, or one of a plugin.")
    ]
    path: Annotated[Path, typer.Argument(help="Folder of the corpus.")]
    out: Path = option("Options", ...)
    """JSON-lines manifest to write; with --split, out.SPLIT.jsonl instead of out.jsonl."""
    labels: Path | None = option("Options", None)
    """JSON file that maps labels of the corpus to emotions: {"anger": "angry"}. Default: the reader's map."""
    plugin: Plugin = None


@app.command(name="import")
@options_of(Options)
def import_(reader: str, labels: Path | None, plugin: Any, **values: Any) -> None:
    """Check a corpus and write manifests of it; unusable entries are skipped and reported with reasons."""
    console = Console()
    torch.set_num_threads(1)  # utterances are too short to profit from more threads
    try:
        with console.status("reading") as status:
            label_map = READERS[reader].labels if labels is None else read_labels(labels)
            start = time.monotonic()
            tell = status.update if console.is_terminal else paced(console.print)

            def report(summary: Summary) -> None:
                tell(progress(summary, time.monotonic() - start))

            summary = import_corpus(READERS[reader], labels=label_map, report=report, **values)
            seconds = time.monotonic() - start
    except OSError as error:
        print(f"error: {error}; check the path, its permissions and the free space, and run it again", file=sys.stderr)
        raise typer.Exit(2) from None
    console.print(label_table(summary, label_map))
    console.print(progress(summary, seconds), highlight=False)
    for line in notes(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def progress(summary: Summary, seconds: float) -> str:
    """Return one line with the number of utterances read and skipped, and the throughput."""
    used, left_out = summary.utterances.total(), len(summary.skipped) + summary.unmapped.total()
    line = f"{used} utterances, {left_out} left out, {(used + left_out) / max(seconds, 1e-9):.0f} per second"
    return line if summary.copies is None else f"{line}; {summary.written.total()} lines written"


def read_labels(path: Path) -> dict[str, str]:
    """Return the label map in a JSON file. Raises `ManifestError` if the file does not contain one."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"--labels {path} cannot be read ({error}); give a JSON file") from error
    if not (isinstance(labels, dict) and labels and all(isinstance(name, str) and name for name in labels.values())):
        raise ManifestError(f'--labels {path} is not a label map; give a JSON object such as {{"anger": "angry"}}')
    return labels


def label_table(summary: Summary, labels: Mapping[str, str]) -> Table:
    """Return a table of the label map with the amount of speech per label, followed by the labels that are not in the map."""
    amounts = [Column(heading, justify="right") for heading in ("utterances", "minutes", "speakers")]
    table = Table("in the corpus", "emotion", *amounts, title="Labels")
    for label in dict.fromkeys((*labels, *sorted(summary.utterances))):
        minutes, speakers = summary.seconds.get(label, 0.0) / 60, summary.speakers.get(label, ())
        count = summary.utterances[label]
        table.add_row(label, labels.get(label, label), str(count), f"{minutes:.1f}", str(len(speakers)))
    for label, count in sorted(summary.unmapped.items()):
        table.add_row(label, "(not in the map, left out)", str(count), "", "")
    return table


def notes(summary: Summary) -> list[str]:
    """Return lines that list the skipped entries by reason and the files written."""
    examples = {entry.reason: entry.entry for entry in reversed(summary.skipped)}
    reasons = Counter(entry.reason for entry in summary.skipped)
    lines = [f"skipped {count}: {reason}, such as {examples[reason]}" for reason, count in reasons.most_common()]
    if summary.without_text:
        lines.append(
            f"{summary.without_text} utterances have no text: usable for reward models and judges, not for policies or "
            "recognizers"
        )
    if summary.copies is not None:
        lines.append(f"wrote converted copies to {summary.copies}")
    lines += [f"wrote {count} lines to {path}" for path, count in summary.written.items()]
    return [*lines, f"checksum of the audio: {summary.checksum}"]


if __name__ == "__main__":
    main()
