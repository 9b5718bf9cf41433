"""The version of the source that made a record: git state and hash. Detects records of several versions."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ablations.tracking.records import TAG_CODE, TAG_DIFF, TAG_DIRTY, TAG_SHA, TEXT_LIMIT, Record
from rrpo.identity import content_hash
from rrpo.pipeline.provenance import source_hash

SOURCE = Path(__file__).resolve().parents[2]
DIFF_LIMIT = 1_000_000
"""Maximum length of the recorded diff, in characters."""


@cache
def git_state() -> dict[str, str]:
    """Return the provenance tags of every run.

    ``git_sha`` and ``dirty`` describe the source tree (``unknown`` unless a git repository tracks the source). ``diff_hash``
    is the hash of uncommitted changes, ``code`` the hash of rrpo's source files, ``command`` the command line.

    Cached per process: call it at the start, because workers run the code as it was then.
    """
    tracked = _git("ls-files", "--error-unmatch", "ablations/tracking/source_version.py") is not None
    sha, status = (_git("rev-parse", "HEAD"), _git("status", "--porcelain")) if tracked else (None, None)
    tags = {
        TAG_SHA: sha or "unknown",
        TAG_DIRTY: "unknown" if status is None else str(bool(status)).lower(),
        TAG_CODE: source_hash(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:TEXT_LIMIT],
    }
    return tags | ({TAG_DIFF: content_hash(_changes())[:16]} if tags[TAG_DIRTY] == "true" else {})


def dirty_diff() -> str:
    """Return the uncommitted changes, including new source files, truncated to `DIFF_LIMIT`; empty if there are none."""
    if git_state()[TAG_DIRTY] != "true":
        return ""
    text = _changes()
    omitted = len(text) - DIFF_LIMIT
    return text if omitted <= 0 else f"{text[:DIFF_LIMIT]}\n[{omitted} more characters]\n"


@cache
def _changes() -> str:
    parts = [_git("diff", "HEAD") or ""]
    for name in (_git("ls-files", "--others", "--exclude-standard", "--", "*.py", "*.toml") or "").splitlines():
        path = SOURCE / name
        parts.append(f"new file {name}\n" + (path.read_text(errors="replace") if path.is_file() else ""))
    return "\n".join(part for part in parts if part)


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(SOURCE), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def source_of(record: Record) -> str:
    """Return the hash of the rrpo source that built a cell's own stages; of an older record, its commit."""
    return record.tags.get(TAG_CODE, _commit(record))


def _commit(record: Record) -> str:
    tags = record.tags
    commit = tags.get(TAG_SHA, "unknown")[:8]
    if TAG_DIFF in tags or tags.get(TAG_DIRTY) == "true":
        commit += f" with changes {tags.get(TAG_DIFF, 'unknown')[:8]}"
    return commit


def code_versions(records: Sequence[Record]) -> dict[str, list[str]]:
    """Group the cells by the version of the code that built them, largest group first.

    A version is the hash of the rrpo source that built the cell's own stages, independent of the commit. Older records lack that
    hash, so their commit is used. Keys are readable: ``commit 1a2b3c4d``, with the hash of uncommitted changes if there were any.

    Returns:
        Version -> names of its cells, ``arm/seed``.
    """
    names: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    for record in records:
        version, commit = source_of(record), _commit(record)
        label = labels.setdefault(version, f"commit {commit}")
        if list(labels.values()).count(label) > 1:  # a commit may record stages that another commit had built
            sources = " and ".join(source[:8] for source in version.split(","))
            label = labels[version] = f"{label}, source {sources}"
        names.setdefault(label, []).append(f"{record.label}/{record.seed}")
    return dict(sorted(names.items(), key=lambda item: -len(item[1])))


def code_warning(records: Sequence[Record]) -> str:
    """Return a warning if the cells were built by several versions of the code; empty otherwise."""
    versions = code_versions(records)
    if len(versions) < 2:
        return ""
    parts = [
        f"{version} ({len(cells)} cells: {', '.join(cells[:4])}{', ...' if len(cells) > 4 else ''})"
        for version, cells in versions.items()
    ]
    return f"These cells were built by {len(versions)} versions of the code: {'; '.join(parts)}."
