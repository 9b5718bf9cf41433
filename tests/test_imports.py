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
