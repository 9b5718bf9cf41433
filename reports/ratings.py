"""Ratings of a listening test: check the page's CSV line by line, keep it in MLflow, read it back for reports.

A run of kind ``ratings`` holds one person's answers to one test: the file as it came, a summary by arm, and ``complete`` = the
file's hash, written last. The checks find accidents and careless edits; no page without a server can prove who rated.
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
DOWNLOAD = "import the file as the page downloaded it, unopened; download it again on the rater's machine"
SCALE = tuple("12345")
WRITTEN = {"rater": r"[A-Za-z0-9._-]{1,40}", "plays": "[0-9]+", "seconds": r"[0-9]+\.[0-9]"}
"""What the page can have written."""


@dataclass(frozen=True)
class Ratings:
    """One person's checked answers to one test."""

    test: ListeningTest
    """What was rated."""
    rater: str
    """Who rated, as the page was told or as the import was."""
    rows: tuple[dict[str, str], ...]
    """By the columns of `records.RATINGS`."""
    content: bytes
    """The file."""

    @property
    def digest(self) -> str:
        """Identity of the answers, however the file's lines end."""
        return hashlib.sha256("\n".join(row["check"] for row in self.rows).encode()).hexdigest()[:32]


def read(path: Path, known: Mapping[str, ListeningTest]) -> Ratings:
    """One CSV, checked against the tests in the store by their ids.

    Raises InputError, with the line, for whatever the page could not have written about one of these tests.
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
        raise InputError(f"the columns of ratings are {', '.join(RATINGS)}", got=got, fix=DOWNLOAD)
    if not rows:
        raise InputError("the file holds no rating", got=path, fix="rate at least one sample before the download")
    test = known.get(rows[0]["test"] or "")
    if test is None:
        raise InputError(
            "these ratings are of a test that this runs folder did not export",
            got=f"{path}: test {rows[0]['test']} (exported: {', '.join(known) or 'none'})",
            fix="give --runs-dir the folder that wrote the page",
        )
    check, seen = str(len(rows)), set[str]()
    for line, row in enumerate(rows, start=2):
        _check_row(row, line, rows[0], test, seen, path)
        seen.add(row["item"])
        check = f"{zlib.crc32('|'.join([check, *(row[name] for name in RATINGS if name != 'check')]).encode()):08x}"
        if row["check"] != check:
            raise InputError(
                "a rating was changed, moved, added or taken out after the download",
                got=f"{path}, line {line}: check {row['check']} instead of {check}",
                fix=DOWNLOAD,
            )
    return Ratings(test, rows[0]["rater"], tuple(rows), content)


def _check_row(
    row: dict[str, Any], line: int, first: dict[str, Any], test: ListeningTest, seen: set[str], path: Path
) -> None:
    """One line's values, before its checksum is asked, so that the message says what is wrong."""
    where = f"{path}, line {line}"
    if "more" in row or None in row.values():
        raise InputError("a rating has too few or too many values", got=where, fix=DOWNLOAD)
    if (row["test"], row["rater"]) != (first["test"], first["rater"]):
        got = f"{where}: test {row['test']}, rater {row['rater']} after {first['test']}, {first['rater']}"
        raise InputError("a file holds one person's ratings of one test", got=got, fix="import each file by itself")
    if row["automated"] == "1":
        raise InputError(
            "a program drove the browser, so these are no person's ratings", got=where, fix="let people rate"
        )
    if row["item"] not in test.items:
        raise InputError("the test has no sample of that id", got=f"{where}: {row['item']}", fix=DOWNLOAD)
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
            raise InputError(f"the page writes no such {name}", got=f"{where}: {row[name] or 'nothing'}", fix=DOWNLOAD)
    if row["plays"] == "0":
        raise InputError("a sample was rated that was never heard", got=f"{where}: plays {row['plays']}", fix=DOWNLOAD)


def renamed(files: Sequence[Ratings], name: str) -> Ratings:
    """The one file's answers under another name. Raises InputError for several files or a name that the page would not take."""
    if len(files) != 1 or not re.fullmatch(WRITTEN["rater"], name):
        fix = "give one file, and a name of 1 to 40 letters, digits, dots, _ or -"
        raise InputError("--as gives one file another name", got=f"{len(files)} files, name {name!r}", fix=fix)
    return replace(files[0], rater=name)


def all_tests(store: Store) -> dict[str, ListeningTest]:
    """Every listening test of every grid by id."""
    return {test.id: test for grid in store.grids() for test in tests(store, grid)}


def check_new(store: Store, files: Sequence[Ratings], replacing: bool) -> list[Ratings]:
    """The files that are not in the store yet.

    Raises InputError when one person's answers to one test come twice, or differ from those in the store (``replacing`` allows
    the latter: the newest counts).
    """
    fresh: dict[tuple[str, str], Ratings] = {}
    for file in files:
        key = file.test.id, file.rater
        if key in fresh:
            raise InputError(
                "two files hold the same person's ratings of one test",
                got=f"rater {file.rater}, test {file.test.id}",
                fix="leave one out, or import it by itself with --as NAME if another person took the same name",
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
                "other ratings by that person of that test were imported before",
                got=f"rater {file.rater}, test {file.test.id}",
                fix="give --replace if these are the person's whole answers, or --as NAME if another took the same name",
            )
    return [file for key, file in fresh.items() if stored.get(key) != file.digest]


def keep(store: Store, file: Ratings) -> str:
    """Write one person's ratings; the run's id."""
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
    """How many, and the means by arm."""
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
    """All ratings of a report's own cells, a row each; empty without any.

    Columns: test, rater, arm, seed, prompt, target, emotion, expressiveness, naturalness. Of one person's ratings of a sample the
    newest counts, and only where its cell is among the records.
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
                newest.pop(key, None)  # so that the order is that of the newest
                newest[key] = run
            for (test, rater), run in newest.items():
                file = read(store.artifacts_of(run) / FILE, known)
                items = [(row | {"rater": rater}, known[test].items[row["item"]]) for row in file.rows]
                rows += [_flat(row, item) for row, item in items if item.cell_hash in cells]
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return table.drop_duplicates(["rater", "arm", "seed", "prompt"], keep="last", ignore_index=True)


def beside(selection: Selection, table: pd.DataFrame) -> Selection:
    """The records with the means of their own ratings among the scalars (`HUMAN`), for figures and whatever else reads those."""
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
    """Runs of ratings that were written to the end, oldest first."""
    return [run for run in store.runs(grid, "ratings") if TAG_COMPLETE in run.data.tags]
