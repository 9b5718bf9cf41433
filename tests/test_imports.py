"""Imports point one way: reports, studies -> ablations -> rrpo; planning and reporting import no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "rrpo": {"rrpo"},
    "ablations": {"ablations", "rrpo"},
    "studies": {"studies", "ablations", "rrpo"},
    "reports": {"reports", "ablations", "rrpo"},
}
OURS = set(MAY_IMPORT)
FOLDERS = (
    *(
        "rrpo.pipeline",
        "rrpo.corpus",
        "rrpo.models",
        "rrpo.regularizers",
        "rrpo.training",
        "rrpo.judges",
        "rrpo.optimizers",
    ),
    *("rrpo.stacking", "rrpo.cosyvoice", "rrpo.diagnostics", "rrpo.experiment", "rrpo.testing", "rrpo.validation"),
    *("ablations.stats", "ablations.tracking", "ablations.rendering", "ablations.execution", "reports.figures"),
)
"""Folders below the packages, from the lowest: each may import those before it. CONTRIBUTING shows them."""
TRACKERS = {"mlflow", "optuna"}


def imported(path: Path) -> set[str]:
    """Top-level names a file imports anywhere, inside functions as well."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_point_one_way(package: str):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) & OURS <= MAY_IMPORT[package], path


def imported_folders(path: Path) -> set[str]:
    """Folders of `FOLDERS` that a file imports, inside functions as well, except for type checking."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = [f"{node.module}.{alias.name}." for node in froms for alias in node.names]
    return {folder for folder in FOLDERS for name in names if name.startswith(f"{folder}.")}


def test_folders_import_downward():
    existing = {
        f"{path.parent.name}.{path.name}" for package in OURS for path in (ROOT / package).iterdir() if path.is_dir()
    }
    assert {name for name in existing if list((ROOT / name.replace(".", "/")).glob("*.py"))} == set(FOLDERS)
    for position, folder in enumerate(FOLDERS):
        for path in (ROOT / folder.replace(".", "/")).rglob("*.py"):
            upward = imported_folders(path) - set(FOLDERS[: position + 1])
            assert not upward, f"{path} imports {upward}"


def test_a_cell_knows_neither_mlflow_nor_optuna():
    for path in (ROOT / "rrpo").rglob("*.py"):
        assert not imported(path) & TRACKERS, path


def test_records_and_statistics_are_leaves():
    for name in ("tracking/records", "stats/statistics"):
        assert not imported(ROOT / "ablations" / f"{name}.py") & (OURS | TRACKERS | {"torch"})


@pytest.mark.parametrize(
    "code",
    [
        "import ablations.run, ablations.validate, ablations.execution.worker, reports.run, reports.figures",
        "from ablations.run import app; app(['--grid', 'full', '--plan', '--runs-dir', 'none'], standalone_mode=False)",
    ],
)
def test_planning_and_reporting_import_no_torch(tmp_path: Path, code: str):
    heavy = {"torch", "torchaudio", "transformers", "mlflow", "pandas", "matplotlib"}
    script = f"{code}\nimport sys\nfound = {heavy} & set(sys.modules)\nassert not found, found"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
