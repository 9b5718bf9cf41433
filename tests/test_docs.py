"""The documentation is true: code runs, commands exist, the site builds without warnings and loads nothing from elsewhere.

Of README.md and of blocks under ``<!-- test: options -->`` shell commands are checked and not run: every ``python -m`` command is
parsed by that command's own options, every target of make and every extra of pip exists; Python blocks are compiled.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from ablations.grids import GRIDS
from rrpo import plugins

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
README = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
"""Pages whose shell blocks are never run."""
BLOCK = re.compile(
    r"^(?P<marker><!-- test: options -->\n)?```(?P<language>bash|python|pycon)?\n(?P<code>.*?)^```$", re.M | re.S
)
FOREIGN = ("venv", "pytest", "mkdocs")
"""Modules that are run by ``python -m`` and are not ours."""
SOURCE = re.compile(r"`((?:rrpo|ablations|reports|studies|tests|docs|examples)/[\w./-]+\.\w+)`")
"""A file of the repository, as pages name it."""
ELSEWHERE = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
"""An element whose content a browser fetches from another host."""
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "MPLBACKEND": "agg",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Block:
    """One fenced block of code."""

    language: str
    """``bash``, ``python`` or ``pycon``."""
    code: str
    """What stands between the fences."""
    runs: bool
    """Whether it is run, not only checked."""


def blocks(page: Path) -> list[Block]:
    """A page's blocks in order; those of `README` have no markers, and only their Python is run."""
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert text.count("```") == 2 * len(found), f"{page}: a block is neither bash, python nor pycon, or not closed"
    return [
        Block(
            language=block["language"] or "bash",
            code=block["code"],
            runs=not block["marker"] and (page not in README or block["language"] == "python"),
        )
        for block in found
    ]


def commands(code: str) -> list[list[str]]:
    """The simple commands of a shell block as words, without settings of variables before them."""
    lines = [line for line in code.replace("\\\n", " ").splitlines() if line.strip()]
    found = []
    for line in lines:
        for part in re.split(r"&&|;|\|", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found


def command_of(module: str) -> Any:
    """The command line of ``python -m module``."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    package = spec.submodule_search_locations is not None
    return typer.main.get_command(importlib.import_module(f"{module}.__main__" if package else module).app)


def check(words: list[str]) -> None:
    """Fails where a command could not even start."""
    program, *arguments = words
    if program in ("python", "python3"):
        if arguments[0] != "-m":
            assert (ROOT / arguments[0]).is_file(), words
        elif arguments[1] not in FOREIGN:
            parse(command_of(arguments[1]), arguments[2:])
    elif program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
        assert {word for word in arguments if "=" not in word and not word.startswith("-")} <= targets, words
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for word in arguments:
            if named := re.fullmatch(r"\.\[(.*)\]", word):
                assert set(named[1].split(",")) <= extras.keys(), words


def parse(command: Any, arguments: list[str]) -> None:
    """Fails where an option or an argument does not exist, is missing, or has a value of another type."""
    if hasattr(command, "commands"):
        assert not arguments or arguments[0] in command.commands, arguments
        return parse(command.commands[arguments[0]], arguments[1:]) if arguments else None
    if "--help" not in arguments:
        command.make_context("documented", list(arguments))


@pytest.mark.parametrize("page", [*README, *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_can_be_given(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin is there, and is not loaded: it would stay registered."""

    def there(path: Path, module: str | None = None) -> str:
        assert path.is_file(), path
        return ""

    monkeypatch.setattr(plugins, "load", there)
    monkeypatch.setenv(plugins.VARIABLE, "")
    for block in blocks(page):
        if block.language == "bash":
            for words in commands(block.code):
                check(words)
        elif block.language == "python":
            compile(block.code, str(page), "exec")


@pytest.mark.parametrize(
    "page",
    [page for page in [*README, *PAGES] if any(b.runs for b in blocks(page))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """In a new folder: each shell block, and all Python of the page in one process, sessions (``>>>``) by doctest."""
    run = [block for block in blocks(page) if block.runs]
    for block in run:
        if block.language == "bash":
            done = subprocess.run(
                ["bash", "-euc", block.code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
            )
            assert done.returncode == 0, f"{block.code}\n{done.stdout}{done.stderr}"
    session = [{"code": block.code, "doctest": block.language == "pycon"} for block in run if block.language != "bash"]
    if session:
        execute(session, tmp_path)


RUNNER = """
import doctest, json, sys
space = {"__name__": "documentation"}
for number, block in enumerate(json.load(sys.stdin)):
    if block["doctest"]:
        test = doctest.DocTestParser().get_doctest(block["code"], space, f"block {number}", None, 0)
        test.globs = space
        assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    else:
        exec(compile(block["code"], f"block {number}", "exec"), space)
"""


def execute(session: list[dict[str, object]], folder: Path) -> None:
    """Runs blocks one after the other in one new process."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(session),
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code
    execute([{"code": one, "doctest": False} for one in code], tmp_path)


@pytest.mark.parametrize("page", [*README, *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_names_of_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for name in SOURCE.findall(text):
        assert (ROOT / name).is_file(), name


def test_the_documented_installation_is_that_of_make_install() -> None:
    recipe = re.findall(r"\$\(PIP\) (.*?)(?:  #|\n)", (ROOT / "Makefile").read_text())
    documented = re.findall(r"^pip install (.*)$", (ROOT / "docs" / "tutorial.md").read_text(), re.M)
    assert len(recipe) == 4
    assert recipe == documented


def test_the_documentation_names_the_packages_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version {version}" in (ROOT / "docs" / "index.md").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version  # type: ignore[index]


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not ELSEWHERE.findall(text), page
        assert not re.search("<!-- (columns|examples)", text), f"{page}: a marker was not filled"


def test_the_readmes_own_numbers_are_those_that_are_pasted_below() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    prose, pasted = readme.split("## Result\n")[1].split("<!-- results:full -->")
    own = re.findall(r"\d+\.\d ± \d+\.\d", re.sub(r"<!-- number:.*?<!-- /number -->", "", prose))
    assert len(own) >= 6
    assert [number for number in own if number not in pasted] == []


def test_the_readme_and_the_world_card_count_the_same_checks() -> None:
    counts = [
        re.search(r"\d+ of \d+(?= (checks|lines) pass)", (ROOT / name).read_text(encoding="utf-8"))
        for name in ("README.md", "docs/world.md")
    ]
    assert counts[0]
    assert counts[1]
    assert counts[0][0] == counts[1][0]


def test_the_readmes_grids_are_those_that_exist() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("| grid | arms | seeds |")[1].split("\n\n")[0]
    seeds = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+)[^|]*\|$", section, re.M))
    assert {name: int(n) for name, n in seeds.items()} == {name: grid.seeds for name, grid in GRIDS.items()}


def test_every_file_that_the_packages_read_is_installed_with_them() -> None:
    """Without this, an installation that is not editable lacks it."""
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "rrpo", "ablations", "studies", "reports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    files = [Path(name) for name in tracked if name and not name.endswith((".py", ".md"))]
    files = [
        path for path in files if path.parts[:2] != ("reports", "records")
    ]  # the results of this project, no data of it
    assert len(files) > 50
    missing = [
        path for path in files if not any(Path(*path.parts[1:]).match(glob) for glob in globs.get(path.parts[0], ()))
    ]
    assert missing == []
