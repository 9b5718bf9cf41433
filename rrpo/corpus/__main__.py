"""Command line that converts a corpus to manifests for ``--manifest SPLIT=PATH``.

Usage: ``python -m rrpo.corpus import READER PATH --out manifest.jsonl``. Exit status: 0 when the manifests are written, even if
entries were skipped; 2 for bad input or a corpus without usable entries (nothing is written); 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from rrpo.commands import Plugin, program
from rrpo.corpus.importing import Summary, import_corpus
from rrpo.corpus.manifest import ManifestError
from rrpo.corpus.readers import READERS
from rrpo.corpus.recordings import LONGEST
from rrpo.plugins import PluginError

app, main = program("rrpo.corpus")


@app.callback()
def corpus() -> None:
    """Import your own corpora."""


@app.command(name="import")
def import_(
    reader: Annotated[str, typer.Argument(help=f"Layout of the corpus: {', '.join(READERS)}, or one of a plugin.")],
    path: Annotated[Path, typer.Argument(help="Folder of the corpus.")],
    out: Annotated[
        Path, typer.Option(help="JSON-lines manifest to write; with --split, out.SPLIT.jsonl instead of out.jsonl.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help='JSON file that maps labels of the corpus to emotions: {"anger": "angry"}. Default: the reader\'s map.'
        ),
    ] = None,
    language: Annotated[
        str, typer.Option(help="Language code such as en, de or cmn, for recordings without one.", show_default=False)
    ] = "",
    only: Annotated[str, typer.Option(help="Use recordings in this language only.", show_default=False)] = "",
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SHARE", help="Split and its share of the speakers; repeat with shares that add up to 1."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Instead of --split: number of folds over speakers, in out.foldK.train.jsonl and out.foldK.test.jsonl.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the assignment of speakers to splits.")] = 0,
    loudness: Annotated[
        float | None,
        typer.Option(
            metavar="DBFS",
            help="Write mono 16 kHz copies with this mean level per speaker, such as -26. Default: use the files unchanged.",
            show_default=False,
        ),
    ] = None,
    longest: Annotated[float, typer.Option(help="Maximum duration in seconds; longer files are skipped.")] = LONGEST,
    plugin: Plugin = None,
) -> None:
    """Check a corpus and write manifests of it; unusable entries are skipped and reported with reasons."""
    console = Console()
    torch.set_num_threads(1)  # utterances are too short to profit from more threads
    try:
        corpus_reader = READERS[reader]
        label_map = corpus_reader.labels if labels is None else read_labels(labels)
        shares = read_splits(split) if split else None
        if shares and folds:
            raise ManifestError(
                f"--split and --folds are mutually exclusive; got {', '.join(split or ())} and {folds}; give only one"
            )
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as bar:
            task = bar.add_task("reading")

            start = time.monotonic()

            def report(summary: Summary) -> None:
                bar.update(task, description=progress(summary, time.monotonic() - start))

            summary = import_corpus(
                corpus_reader,
                path,
                out,
                labels=label_map,
                language=language,
                only=only,
                splits=shares,
                folds=folds,
                seed=seed,
                loudness=loudness,
                longest=longest,
                report=report,
            )
            seconds = time.monotonic() - start
    except (ManifestError, PluginError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
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
    return f"{used} utterances, {left_out} left out, {(used + left_out) / max(seconds, 1e-9):.0f} per second"


def read_labels(path: Path) -> dict[str, str]:
    """Return the label map in a JSON file. Raises `ManifestError` if the file does not contain one."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"--labels {path} cannot be read ({error}); give a JSON file") from error
    if (
        not isinstance(labels, dict)
        or not labels
        or not all(isinstance(emotion, str) and emotion for emotion in labels.values())
    ):
        raise ManifestError(f'--labels {path} is not a label map; give a JSON object such as {{"anger": "angry"}}')
    return labels


def read_splits(entries: Sequence[str]) -> dict[str, float]:
    """Parse ``NAME=SHARE`` entries. Raises `ManifestError` on an invalid entry."""
    shares: dict[str, float] = {}
    for entry in entries:
        name, _, share = entry.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not (name and name not in shares and name == Path(name).name and value > 0):
            raise ManifestError(
                f"--split takes NAME=SHARE, with each name once and a positive share; got {entry!r}; use, for example, train=.8"
            )
        shares[name] = value
    return shares


def label_table(summary: Summary, labels: Mapping[str, str]) -> Table:
    """Return a table of the label map with the amount of speech per label, followed by the labels that are not in the map."""
    table = Table(title="Labels")
    for heading in ("in the corpus", "emotion"):
        table.add_column(heading)
    for heading in ("utterances", "minutes", "speakers"):
        table.add_column(heading, justify="right")
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
