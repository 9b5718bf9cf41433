"""Source version of a record, and detection of grids that mix code versions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ablations.tracking import source_version
from ablations.tracking.records import Record
from ablations.tracking.source_version import code_versions, code_warning, dirty_diff, git_state
from rrpo.pipeline import provenance

OURS = "ablations/tracking/source_version.py"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in place of the project's own."""
    (tmp_path / OURS).parent.mkdir(parents=True)
    (tmp_path / OURS).write_text("old\n")
    monkeypatch.setattr(source_version, "SOURCE", tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    commit(tmp_path)
    forget()
    yield tmp_path
    forget()


def git(tree: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(tree), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(tree: Path) -> None:
    git(tree, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x", "--no-verify")


def forget() -> None:
    git_state.cache_clear()
    source_version._changes.cache_clear()


def test_a_clean_tree_has_its_commit_and_no_diff(tree: Path):
    tags = git_state()
    assert tags["git_sha"] == git(tree, "rev-parse", "HEAD")
    assert tags["dirty"] == "false"
    assert "diff_hash" not in tags
    assert dirty_diff() == ""
    assert tags["code"] == provenance.source_hash()


def test_a_dirty_tree_has_its_diff_with_new_files(tree: Path, monkeypatch: pytest.MonkeyPatch):
    (tree / OURS).write_text("new\n")
    (tree / "extra.py").write_text("print('extra')\n")
    (tree / "big.wav").write_bytes(b"\xff" * 100)
    tags, diff = git_state(), dirty_diff()
    assert tags["dirty"] == "true"
    assert {"-old", "+new", "print('extra')"} <= set(diff.splitlines())
    assert "big.wav" not in diff
    forget()
    assert git_state() == tags
    (tree / "extra.py").write_text("print('other')\n")
    forget()
    assert git_state()["diff_hash"] != tags["diff_hash"]
    monkeypatch.setattr(source_version, "DIFF_LIMIT", 20)
    assert len(dirty_diff()) < 60
    assert "more characters" in dirty_diff()


def test_code_that_lies_in_a_stranger_s_repository_has_no_commit(tree: Path):
    git(tree, "rm", "-q", "--cached", OURS)
    commit(tree)
    forget()
    assert (git_state()["git_sha"], git_state()["dirty"]) == ("unknown", "unknown")
    assert dirty_diff() == ""


def test_the_source_hash_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    seen = set()
    for text in ("a", "b"):
        (tmp_path / "module.py").write_text(text)
        provenance.source_hash.cache_clear()
        seen.add(provenance.source_hash())
    (tmp_path / "note.txt").write_text("no code")
    provenance.source_hash.cache_clear()
    assert provenance.source_hash() in seen
    assert len(seen) == 2
    provenance.source_hash.cache_clear()


def make_record(seed: int, **tags: str) -> Record:
    return Record(label="rrpo", seed=seed, tags=tags)


def test_versions_of_the_code_within_a_grid_are_told():
    same = [
        make_record(1, git_sha="a" * 40, dirty="false", code="s1"),
        make_record(2, git_sha="b" * 40, dirty="false", code="s1"),
    ]
    assert code_versions(same) == {"commit aaaaaaaa": ["rrpo/1", "rrpo/2"]}, "a different commit with the same source"
    assert code_warning(same) == ""
    dirty = make_record(3, git_sha="b" * 40, dirty="true", diff_hash="d" * 16, code="s2")
    assert code_versions([*same, dirty]) == {
        "commit aaaaaaaa": ["rrpo/1", "rrpo/2"],
        "commit bbbbbbbb with changes dddddddd": ["rrpo/3"],
    }
    assert "2 versions of the code" in code_warning([*same, dirty])
    assert "rrpo/3" in code_warning([*same, dirty])
    twins = [
        make_record(1, git_sha="a" * 40, dirty="false", code="s1"),
        make_record(2, git_sha="a" * 40, dirty="false", code="s2,s3"),
    ]
    versions = list(code_versions(twins))
    assert versions == ["commit aaaaaaaa", "commit aaaaaaaa, source s2 and s3"], (
        "recorded by one commit, built by two versions of the source"
    )
    old = [make_record(1, git_sha="a" * 40, dirty="false"), make_record(2, git_sha="b" * 40, dirty="false")]
    assert len(code_versions(old)) == 2, "records without a source hash are grouped by commit"
