"""Pictures of MLflow's pages for the guide: ``python docs/screenshots.py --grid full --runs-dir runs --out docs/images``.

Starts a real ``mlflow server`` on the runs folder and opens it in headless Chromium (Debian's, or ``CHROMIUM`` names another).
Each picture is of a page that a user reaches by the address which a command prints, or from there by a click.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablations.execution.runs_folder import RunsFolder, check
from ablations.tracking import page
from ablations.tracking.reader import Store

SIZE = {"width": 1500, "height": 1000}
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
"""MLflow opens a panel with its assistant at the first visit."""
TRAINING = "?workflowType=machine_learning"
"""Has MLflow show its side bar of training runs."""
PATIENCE = 120.0
"""Seconds for a server to start, and for a page to show what is waited for."""


@contextmanager
def server(folder: RunsFolder) -> Iterator[str]:
    """The address of an MLflow server on the folder's store, which ends with the context."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", folder.tracking_uri]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | settings, start_new_session=True, **quiet)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=2).status == 200)
    except OSError:
        return False


def take(folder: RunsFolder, grid: str, out: Path) -> list[Path]:
    """Write the pictures of a grid's pages: its charts, its table, one cell's samples, the report's files."""
    from playwright.sync_api import sync_playwright

    store = Store(folder)
    experiment, cells = store.experiment_id(grid), store.runs(grid, "cell")
    sound = next(path for run in cells for path in (store.artifacts_of(run) / "audio").glob("*.wav"))
    run = next(run for run in cells if sound.is_relative_to(store.artifacts_of(run))).info.run_id
    charts = page.address(folder, experiment).removeprefix(folder.ui_address)
    pages = {
        "mlflow-charts": (charts, ".js-plotly-plot"),
        "mlflow-table": (charts.replace("&compareRunsMode=CHART", ""), "text=clean_success"),
        "mlflow-samples": (f"/#/experiments/{experiment}/runs/{run}/artifacts/audio/{sound.name}{TRAINING}", "audio"),
    }
    if report := store.runs(grid, "report"):
        beside = store.beside(grid)
        pages["mlflow-report"] = (
            f"/#/experiments/{beside}/runs/{report[-1].info.run_id}/artifacts{TRAINING}",
            "text=reports",
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with server(folder) as address, sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=BROWSER, args=FLAGS)
        for name, (place, wanted) in pages.items():
            context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
            context.add_init_script(NO_ASSISTANT)
            written.append(_picture(context.new_page(), f"{address}{place}", wanted, out / f"{name}.png"))
            context.close()
        browser.close()
    return written


def _picture(tab: Any, address: str, wanted: str, path: Path) -> Path:
    tab.goto(address, wait_until="domcontentloaded")
    tab.wait_for_selector(wanted, timeout=1000 * PATIENCE)
    tab.wait_for_timeout(1500)  # charts are drawn after their frames
    tab.screenshot(path=str(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    asked = parser.parse_args()
    for path in take(check(asked.runs_dir), asked.grid, asked.out):
        print(path)


if __name__ == "__main__":
    main()
