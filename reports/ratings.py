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
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.tracking.connection import answering
from ablations.tracking.reader import Store
from ablations.tracking.reconcile import owner_tags
from ablations.tracking.records import HUMAN, RATINGS, TAG_COMPLETE, TAG_GRID, TAG_KIND, TAG_RATER, TAG_TEST
from ablations.tracking.run_files import put_text
from reports.listening_test import ListeningTest, tests
from reports.loading import Selection
from rrpo.errors import InputError

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
    def person(self) -> tuple[str, str]:
        """Test and rater; one person's answers to one test count once."""
        return self.test.id, self.rater

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

    def require(valid: bool, problem: str, got: str, fix: str = DOWNLOAD) -> None:
        if not valid:
            raise InputError(problem, got=f"{path}{got}", fix=fix)

    header = list(reader.fieldnames or ())
    missing = ", ".join(name for name in RATINGS if name not in header) or "nothing, but in another order"
    columns = f"a ratings file must have the columns {', '.join(RATINGS)}"
    require(header == list(RATINGS), columns, f": missing {missing}")
    require(bool(rows), "the file contains no rating", "", "rate at least one sample before downloading")
    require(
        rows[0]["test"] in known,
        "these ratings belong to a test that was not exported from this runs folder",
        f": test {rows[0]['test']} (exported: {', '.join(known) or 'none'})",
        "set --runs-dir to the folder that exported the page",
    )
    test = known[rows[0]["test"]]
    allowed: dict[str, Collection[str]] = {"item": test.items, "emotion": test.emotions, "automated": "01"}
    allowed |= dict.fromkeys(HUMAN.values(), SCALE)
    check = str(len(rows))
    for line, row in enumerate(rows, start=2):
        check = f"{zlib.crc32('|'.join([check, *(row[name] for name in RATINGS if name != 'check')]).encode()):08x}"
        changed = f", line {line}: check {row['check']} instead of {check}"
        require(row["check"] == check, "a rating was changed, moved, added or removed after the download", changed)
        for name, values in allowed.items():
            got = f", line {line}: {row[name] or 'nothing'}"
            require(row[name] in values, f"a rating's {name} is out of range", got)
    automated = any(row["automated"] == "1" for row in rows)
    require(not automated, "the browser was automated, so these are not a person's ratings", "", "let people rate")
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
    stored = {
        (run.data.tags[TAG_TEST], run.data.tags[TAG_RATER]): run.data.tags[TAG_COMPLETE]
        for grid in {file.test.grid for file in files}
        for run in _complete(store, grid)
    }
    people = Counter(file.person for file in files)
    for file in files:
        got = f"rater {file.rater}, test {file.test.id}"
        if people[file.person] > 1:
            fix = "omit one, or import it separately with --as NAME if another person has the same name"
            raise InputError("two files hold the same person's ratings of one test", got=got, fix=fix)
        if not replacing and stored.get(file.person, file.digest) != file.digest:
            fix = "use --replace if these are the person's complete answers, or --as NAME if another person has the same name"
            raise InputError("different ratings of that test by that person were imported before", got=got, fix=fix)
    return [file for file in files if stored.get(file.person) != file.digest]


def keep(store: Store, file: Ratings) -> None:
    """Store one person's ratings."""
    tags = {TAG_KIND: "ratings", TAG_GRID: file.test.grid, TAG_TEST: file.test.id, TAG_RATER: file.rater} | owner_tags()
    experiment = store.about_experiment(file.test.grid)
    with answering(store.folder):
        run = store.client.create_run(experiment, run_name=f"ratings by {file.rater}", tags=tags)
        store.client.log_metric(run.info.run_id, "ratings", len(file.rows))
        put_text(store.folder, run, file.content.decode("utf-8-sig"), FILE)
        store.client.set_terminated(run.info.run_id, "FINISHED")
        store.client.set_tag(run.info.run_id, TAG_COMPLETE, file.digest)


def load(selection: Selection) -> pd.DataFrame:
    """Return all ratings of a report's cells, one per row; empty if there are none.

    Columns: test, rater, arm, seed, prompt, target, emotion, expressiveness, naturalness. If a person rated a sample several
    times, the newest rating counts. Ratings of cells that are not among the records are ignored.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    if selection.folder is not None:
        store = selection.store
        cells = {record.cell_hash for record in selection.records}
        for grid in selection.grids:
            known = {test.id: test for test in tests(store, grid)}
            newest: dict[tuple[str, str], Any] = {}
            for run in _complete(store, grid):
                key = run.data.tags[TAG_TEST], run.data.tags[TAG_RATER]
                newest.pop(key, None)  # reinserted last, so that the newest rating wins below
                newest[key] = run
            for (test, rater), run in newest.items():
                for row in read(store.artifacts_of(run) / FILE, known).rows:
                    item = known[test].items[row["item"]]
                    sample = (test, rater, item.arm, item.seed, item.prompt, item.emotion, row["emotion"])
                    if item.cell_hash in cells:
                        rows.append((*sample, *(int(row[name]) for name in HUMAN.values())))
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    return table.drop_duplicates(["rater", "arm", "seed", "prompt"], keep="last", ignore_index=True)


_COLUMNS = ("test", "rater", "arm", "seed", "prompt", "target", "emotion", *HUMAN.values())


def _complete(store: Store, grid: str) -> list[Any]:
    """Return the completely written runs of ratings, oldest first."""
    return [run for run in store.runs(grid, "ratings") if TAG_COMPLETE in run.data.tags]
