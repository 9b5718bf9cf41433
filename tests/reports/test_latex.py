"""A real LaTeX compiles every table and figure of a report, and nothing is wider than the page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fakes
import pytest
from stored import report, store_cells, tiny_grid
from test_writers import MADE

from ablations.components import factorial
from reports.latex import PACKAGES, latex

PAPER = """\\documentclass[twocolumn]{article}\\usepackage[a4paper,margin=2cm]{geometry}\\usepackage[utf8]{inputenc}
\\usepackage{PACKAGES}\\begin{document}
INPUTS
\\end{document}
"""

pytestmark = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no LaTeX here (Debian: texlive-latex-base, texlive-latex-recommended)"
)


def compiled(folder: Path, names: list[str]) -> str:
    """Return LaTeX's output for a paper that inputs these files."""
    inputs = "\n".join(f"\\input{{{name}}}\\clearpage" for name in names)
    (folder / "paper.tex").write_text(PAPER.replace("{PACKAGES}", f"{{{PACKAGES}}}").replace("INPUTS", inputs))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=200)
    assert completed.returncode == 0, completed.stdout[-2000:]
    return completed.stdout


def test_signs_that_latex_takes_for_commands(tmp_path: Path):
    (tmp_path / "table.tex").write_text(latex(MADE))
    assert "Overfull \\hbox" not in compiled(tmp_path, ["table"])


@pytest.mark.timeout(300)
def test_everything_that_a_report_writes(runs: Path, tmp_path: Path):
    arms = ["sft", *factorial(), "oracle"]
    store_cells(runs, fakes.cells(arms, [1, 2]))
    with tiny_grid(arms):
        result = report(runs, tmp_path / "out", "--grid", "tiny", "--format", "tex")
    assert result.exit_code == 0, result.output
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.tex"))
    assert {"table", "effects", "ablation", "reward_models", "overoptimisation", "figures"} <= set(names)
    assert "Overfull \\hbox" not in compiled(tmp_path / "out", names)
