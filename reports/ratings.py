"""Ratings of a listening test: validate the page's CSV line by line, store it in MLflow, and load it for reports.

A run of kind ``ratings`` holds one person's answers to one test: the original file, a summary by arm, and the tag ``complete``
with the file's hash, which is written last. The checks detect accidents and careless edits; a page without a server cannot
prove who rated.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zlib
from collections.abc import Mapping, Sequence
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
WRITTEN = {"rater": r"[A-Za-z0-9._-]{1,40}", "plays": "[0-9]+", "seconds": r"[0-9]+\.[0-9]"}
"""Column -> pattern of the values that the page writes."""


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
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), restkey="more", strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("the ratings cannot be read", got=f"{path}: {error}", fix=DOWNLOAD) from None
    header = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))[:1]
    if header != [list(RATINGS)]:
        missing = [name for name in RATINGS if name not in (header[0] if header else [])]
        got = f"{path}: missing {', '.join(missing)}" if missing else f"{path}: {','.join(header[0])}"
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
    check, seen = str(len(rows)), set[str]()
    for line, row in enumerate(rows, start=2):
        _check_row(row, line, rows[0], test, seen, path)
        seen.add(row["item"])
        check = f"{zlib.crc32('|'.join([check, *(row[name] for name in RATINGS if name != 'check')]).encode()):08x}"
        if row["check"] != check:
            raise InputError(
                "a rating was changed, moved, added or removed after the download",
                got=f"{path}, line {line}: check {row['check']} instead of {check}",
                fix=DOWNLOAD,
            )
    return Ratings(test, rows[0]["rater"], tuple(rows), content)


def _check_row(
    row: dict[str, Any], line: int, first: dict[str, Any], test: ListeningTest, seen: set[str], path: Path
) -> None:
    """Check the values of one line before its checksum, so that the message names the wrong value."""
    where = f"{path}, line {line}"
    if "more" in row or None in row.values():
        raise InputError("a rating has too few or too many values", got=where, fix=DOWNLOAD)
    if (row["test"], row["rater"]) != (first["test"], first["rater"]):
        got = f"{where}: test {row['test']}, rater {row['rater']} after {first['test']}, {first['rater']}"
        raise InputError(
            "a file must hold one person's ratings of one test", got=got, fix="import each file separately"
        )
    if row["automated"] == "1":
        raise InputError(
            "the browser was automated, so these are not a person's ratings", got=where, fix="let people rate"
        )
    if row["item"] not in test.items:
        raise InputError("the test has no sample with that id", got=f"{where}: {row['item']}", fix=DOWNLOAD)
    if row["item"] in seen:
        raise InputError("a sample is rated twice", got=f"{where}: {row['item']}", fix=DOWNLOAD)
    allowed: dict[str, Sequence[str]] = {
        "emotion": test.emotions,
        **dict.fromkeys(HUMAN.values(), SCALE),
        "position": (str(line - 1),),
        "automated": ("0",),
    }
    for name, values in allowed.items():
        if row[name] not in values:
            fix = f"it must be {' or '.join(values)}; {DOWNLOAD}"
            raise InputError(f"a rating's {name} is out of range", got=f"{where}: {row[name] or 'nothing'}", fix=fix)
    for name, pattern in WRITTEN.items():
        if not re.fullmatch(pattern, row[name]):
            raise InputError(
                f"the page never writes such a value of {name}", got=f"{where}: {row[name] or 'nothing'}", fix=DOWNLOAD
            )
    if row["plays"] == "0":
        raise InputError("a sample was rated but never played", got=f"{where}: plays {row['plays']}", fix=DOWNLOAD)


def renamed(files: Sequence[Ratings], name: str) -> Ratings:
    """Return the answers of a single file under another name. Raises InputError for several files or an invalid name."""
    if len(files) != 1 or not re.fullmatch(WRITTEN["rater"], name):
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
    fresh: dict[tuple[str, str], Ratings] = {}
    for file in files:
        key = file.test.id, file.rater
        if key in fresh:
            raise InputError(
                "two files hold the same person's ratings of one test",
                got=f"rater {file.rater}, test {file.test.id}",
                fix="omit one, or import it separately with --as NAME if another person has the same name",
            )
        fresh[key] = file
    stored = {
        (run.data.tags[TAG_TEST], run.data.tags[TAG_RATER]): run.data.tags[TAG_COMPLETE]
        for grid in {file.test.grid for file in files}
        for run in _complete(store, grid)
    }
    for key, file in fresh.items():
        if not replacing and stored.get(key, file.digest) != file.digest:
            raise InputError(
                "different ratings of that test by that person were imported before",
                got=f"rater {file.rater}, test {file.test.id}",
                fix="use --replace if these are the person's complete answers, or --as NAME if another person has the same name",
            )
    return [file for key, file in fresh.items() if stored.get(key) != file.digest]


def keep(store: Store, file: Ratings) -> str:
    """Store one person's ratings; return the id of the run."""
    from mlflow.entities import Metric

    tags = {TAG_KIND: "ratings", TAG_GRID: file.test.grid, TAG_TEST: file.test.id, TAG_RATER: file.rater}
    run = str(
        store.client.create_run(
            store.beside(file.test.grid), run_name=f"ratings by {file.rater}", tags=tags
        ).info.run_id
    )
    metrics = [Metric(name, value, 0, 0) for name, value in _summary(file).items()]
    store.client.log_batch(run, metrics=metrics)
    store.client.log_text(run, file.content.decode("utf-8-sig"), FILE)
    store.client.set_terminated(run, "FINISHED")
    store.client.set_tag(run, TAG_COMPLETE, file.digest)
    return run


def _summary(file: Ratings) -> dict[str, float]:
    """Return the number of ratings, and their means by arm."""
    of: dict[str, list[dict[str, str]]] = {}
    for row in file.rows:
        of.setdefault(file.test.items[row["item"]].arm, []).append(row)
    means = {
        f"{name}/{arm}": sum(int(row[column]) for row in rows) / len(rows)
        for arm, rows in of.items()
        for name, column in HUMAN.items()
    }
    return {"ratings": float(len(file.rows))} | means


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
        for grid in selection.grid.split("+"):
            known = {test.id: test for test in tests(store, grid)}
            newest: dict[tuple[str, str], Any] = {}
            for run in _complete(store, grid):
                key = run.data.tags[TAG_TEST], run.data.tags[TAG_RATER]
                newest.pop(key, None)  # reinserted last, so that the newest rating wins below
                newest[key] = run
            for (test, rater), run in newest.items():
                file = read(store.artifacts_of(run) / FILE, known)
                items = [(row | {"rater": rater}, known[test].items[row["item"]]) for row in file.rows]
                rows += [_flat(row, item) for row, item in items if item.cell_hash in cells]
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return table.drop_duplicates(["rater", "arm", "seed", "prompt"], keep="last", ignore_index=True)


def beside(selection: Selection, table: pd.DataFrame) -> Selection:
    """Return the records with the means of their ratings among the scalars (`HUMAN`), where figures read them."""
    if table.empty:
        return selection
    means = table.groupby(["arm", "seed"])[list(HUMAN.values())].mean()
    rated = {
        key: {name: float(row[column]) for name, column in HUMAN.items()}
        for key, row in means.to_dict(orient="index").items()
    }
    records = tuple(replace(r, scalars={**r.scalars, **rated.get((r.label, r.seed), {})}) for r in selection.records)
    return replace(selection, records=records)


_COLUMNS = ("test", "rater", "arm", "seed", "prompt", "target", "emotion", *HUMAN.values())


def _flat(row: Mapping[str, str], item: Any) -> dict[str, Any]:
    scores = {name: int(row[name]) for name in HUMAN.values()}
    place = {"arm": item.arm, "seed": item.seed, "prompt": item.prompt, "target": item.emotion}
    return {"test": row["test"], "rater": row["rater"], **place, "emotion": row["emotion"], **scores}


def _complete(store: Store, grid: str) -> list[Any]:
    """Return the completely written runs of ratings, oldest first."""
    return [run for run in store.runs(grid, "ratings") if TAG_COMPLETE in run.data.tags]
