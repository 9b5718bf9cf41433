"""Ratings of a listening test: validate the page's CSV, store it in MLflow, and load it for reports.

A run of kind ``ratings`` holds one person's answers to one test: the original file, and the tag ``complete``
with the file's hash, which is written last. Each line's checksum covers all lines before it. Checksums detect accidents and
careless edits; a page without a server cannot prove who rated.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import InputError
from ablations.tracking.reader import Store
from ablations.tracking.records import HUMAN, RATINGS, TAG_COMPLETE, TAG_GRID, TAG_KIND, TAG_RATER, TAG_TEST
from reports.listening_test import ListeningTest, tests
from reports.loading import Selection

if TYPE_CHECKING:
    import pandas as pd

FILE = "ratings.csv"
DOWNLOAD = "import the file exactly as downloaded from the page; if needed, download it again on the rater's machine"
SCALE = tuple("12345")
NAME = r"[A-Za-z0-9._-]{1,40}"
"""Pattern of a rater's name."""


@dataclass(frozen=True)
class Ratings:
    """One person's validated answers to one test."""

    test: ListeningTest
    """Test that was rated."""
    rater: str
    """Name of the rater, as entered in the page or given at import."""
    rows: tuple[dict[str, str], ...]
    """Rows, with the columns of `records.RATINGS`."""
    content: bytes
    """Content of the file."""

    @property
    def digest(self) -> str:
        """Hash of the answers, independent of line endings."""
        return hashlib.sha256("\n".join(row["check"] for row in self.rows).encode()).hexdigest()[:32]


def read(path: Path, known: Mapping[str, ListeningTest]) -> Ratings:
    """Read one CSV file and check it against the stored tests.

    Raises InputError, with the line number, for anything that the page could not have written for one of these tests.
    """
    try:
        content = path.read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), restval="", strict=True)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("the ratings cannot be read", got=f"{path}: {error}", fix=DOWNLOAD) from None
    header = list(reader.fieldnames or ())
    if header != list(RATINGS):
        missing = [name for name in RATINGS if name not in header]
        got = f"{path}: missing {', '.join(missing)}" if missing else f"{path}: {','.join(header)}"
        raise InputError(f"a ratings file must have the columns {', '.join(RATINGS)}", got=got, fix=DOWNLOAD)
    if not rows:
        raise InputError("the file contains no rating", got=path, fix="rate at least one sample before downloading")
    test = known.get(rows[0]["test"] or "")
    if test is None:
        raise InputError(
            "these ratings belong to a test that was not exported from this runs folder",
            got=f"{path}: test {rows[0]['test']} (exported: {', '.join(known) or 'none'})",
            fix="set --runs-dir to the folder that exported the page",
        )
    allowed: dict[str, Collection[str]] = {"item": test.items, "emotion": test.emotions, "automated": "01"}
    allowed |= dict.fromkeys(HUMAN.values(), SCALE)
    check = str(len(rows))
    for line, row in enumerate(rows, start=2):
        check = f"{zlib.crc32('|'.join([check, *(row[name] for name in RATINGS if name != 'check')]).encode()):08x}"
        if row["check"] != check:
            raise InputError(
                "a rating was changed, moved, added or removed after the download",
                got=f"{path}, line {line}: check {row['check']} instead of {check}",
                fix=DOWNLOAD,
            )
        for name, values in allowed.items():
            if row[name] not in values:
                got = f"{path}, line {line}: {row[name] or 'nothing'}"
                raise InputError(f"a rating's {name} is out of range", got=got, fix=DOWNLOAD)
    if any(row["automated"] == "1" for row in rows):
        raise InputError(
            "the browser was automated, so these are not a person's ratings", got=path, fix="let people rate"
        )
    return Ratings(test, rows[0]["rater"], tuple(rows), content)


def renamed(files: Sequence[Ratings], name: str) -> Ratings:
    """Return the answers of a single file under another name. Raises InputError for several files or an invalid name."""
    if len(files) != 1 or not re.fullmatch(NAME, name):
        fix = "give one file, and a name of 1 to 40 letters, digits, '.', '_' or '-'"
        raise InputError("--as renames the rater of a single file", got=f"{len(files)} files, name {name!r}", fix=fix)
    return replace(files[0], rater=name)


def all_tests(store: Store) -> dict[str, ListeningTest]:
    """Return every listening test of every grid, by id."""
    return {test.id: test for grid in store.grids() for test in tests(store, grid)}


def check_new(store: Store, files: Sequence[Ratings], replacing: bool) -> list[Ratings]:
    """Return the files that are not stored yet.

    Raises InputError if one person's answers to one test occur twice, or differ from the stored ones (unless ``replacing``:
    then the newest ones count).
    """
    by_rater: dict[tuple[str, str], Ratings] = {}
    for file in files:
        key = file.test.id, file.rater
        if key in by_rater:
            raise InputError(
                "two files hold the same person's ratings of one test",
                got=f"rater {file.rater}, test {file.test.id}",
                fix="omit one, or import it separately with --as NAME if another person has the same name",
            )
        by_rater[key] = file
    stored = {
        (run.data.tags[TAG_TEST], run.data.tags[TAG_RATER]): run.data.tags[TAG_COMPLETE]
        for grid in {file.test.grid for file in files}
        for run in _complete(store, grid)
    }
    for key, file in by_rater.items():
        if not replacing and stored.get(key, file.digest) != file.digest:
            raise InputError(
                "different ratings of that test by that person were imported before",
                got=f"rater {file.rater}, test {file.test.id}",
                fix="use --replace if these are the person's complete answers, or --as NAME if another person has the same name",
            )
    return [file for key, file in by_rater.items() if stored.get(key) != file.digest]


def keep(store: Store, file: Ratings) -> str:
    """Store one person's ratings; return the id of the run."""
    tags = {TAG_KIND: "ratings", TAG_GRID: file.test.grid, TAG_TEST: file.test.id, TAG_RATER: file.rater}
    run = str(
        store.client.create_run(
            store.about_experiment(file.test.grid), run_name=f"ratings by {file.rater}", tags=tags
        ).info.run_id
    )
    store.client.log_metric(run, "ratings", len(file.rows))
    store.client.log_text(run, file.content.decode("utf-8-sig"), FILE)
    store.client.set_terminated(run, "FINISHED")
    store.client.set_tag(run, TAG_COMPLETE, file.digest)
    return run


def load(selection: Selection) -> pd.DataFrame:
    """Return all ratings of a report's cells, one per row; empty if there are none.

    Columns: test, rater, arm, seed, prompt, target, emotion, expressiveness, naturalness. If a person rated a sample several
    times, the newest rating counts. Ratings of cells that are not among the records are ignored.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    if selection.folder is not None:
        store = Store(selection.folder)
        cells = {record.cell_hash for record in selection.records}
        for grid in selection.grids:
            known = {test.id: test for test in tests(store, grid)}
            newest: dict[tuple[str, str], Any] = {}
            for run in _complete(store, grid):
                key = run.data.tags[TAG_TEST], run.data.tags[TAG_RATER]
                newest.pop(key, None)  # reinserted last, so that the newest rating wins below
                newest[key] = run
            for (test, rater), run in newest.items():
                file = read(store.artifacts_of(run) / FILE, known)
                items = [(row | {"rater": rater}, known[test].items[row["item"]]) for row in file.rows]
                rows += [_row(row, item) for row, item in items if item.cell_hash in cells]
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return table.drop_duplicates(["rater", "arm", "seed", "prompt"], keep="last", ignore_index=True)


_COLUMNS = ("test", "rater", "arm", "seed", "prompt", "target", "emotion", *HUMAN.values())


def _row(row: Mapping[str, str], item: Any) -> dict[str, Any]:
    scores = {name: int(row[name]) for name in HUMAN.values()}
    sample = {"arm": item.arm, "seed": item.seed, "prompt": item.prompt, "target": item.emotion}
    return {"test": row["test"], "rater": row["rater"], **sample, "emotion": row["emotion"], **scores}


def _complete(store: Store, grid: str) -> list[Any]:
    """Return the completely written runs of ratings, oldest first."""
    return [run for run in store.runs(grid, "ratings") if TAG_COMPLETE in run.data.tags]
