"""Take the guide's screenshots: ``python docs/screenshots.py --grid full --runs-dir runs --out docs/images``.

The script starts an ``mlflow server`` on the runs folder. It opens the server's pages, the grid's newest report and a study's
page in headless Chromium (Debian's, unless ``CHROMIUM`` gives another). Each page can be reached from an address that a command
prints, with at most one click.
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

from ablations.tracking import page
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import RunsFolder, check

SIZE = {"width": 1280, "height": 800}
COLOURS = 256
"""Number of colors of a screenshot, chosen for coverage: a palette by frequency turns thin colored lines brown."""
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--autoplay-policy=no-user-gesture-required"]
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
"""Prevents MLflow from opening its assistant's panel at the first visit."""
TRAINING = "?workflowType=machine_learning"
"""Makes MLflow show the sidebar of training runs."""
PATIENCE = 60.0
"""Timeout in seconds, for the server's start and for the expected element of a page."""
SETTLED = 4000
"""Milliseconds to wait for charts to be drawn. MLflow polls its server forever, so waiting for an idle network never ends."""


@contextmanager
def server(folder: RunsFolder) -> Iterator[str]:
    """Run an MLflow server on the folder's store; the context is its address."""
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


@contextmanager
def browser() -> Iterator[Any]:
    """Run headless Chromium; the context is a browser context with timeout `PATIENCE`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        program = tool.chromium.launch(executable_path=BROWSER, args=FLAGS)
        context = program.new_context(viewport=SIZE)  # type: ignore[arg-type]
        context.set_default_timeout(1000 * PATIENCE)
        context.add_init_script(NO_ASSISTANT)
        yield context
        program.close()


def charts(store: Store, grid: str) -> str:
    """Return the path, relative to the server's address, of the page that a run of the grid prints."""
    return page.address(store.folder, store.experiment_id(grid)).removeprefix(store.folder.ui_address)


def report_of(store: Store, grid: str) -> Path:
    """Return the grid's newest ``report.html``, as stored in MLflow."""
    *_, run = store.runs(grid, "report")
    return store.artifacts_of(run) / "reports" / "report.html"


def take(folder: RunsFolder, grid: str, out: Path, address: str) -> dict[str, str]:
    """Write the screenshots of a grid's pages and of a study's page; return name -> text of the page.

    Args:
        folder: Runs folder with the grid's cells and its report.
        grid: Name of the grid.
        out: Folder of the screenshots.
        address: Address of an MLflow server on the folder's store.
    """
    store = Store(folder)
    cells = store.runs(grid, "cell")
    run = next(run for run in reversed(cells) if list((store.artifacts_of(run) / "audio").glob("*_angry.wav")))
    audio = next((store.artifacts_of(run) / "audio").glob("*_angry.wav")).name
    sample_page = (
        f"{address}/#/experiments/{store.experiment_id(grid)}/runs/{run.info.run_id}/artifacts/audio/{audio}{TRAINING}"
    )
    report = report_of(store, grid).as_uri()
    pages = {
        "mlflow-charts": (f"{address}{charts(store, grid)}", ".js-plotly-plot"),
        "mlflow-table": (f"{address}{charts(store, grid)}".replace("&compareRunsMode=CHART", ""), "text=clean_success"),
        "mlflow-samples": (sample_page, "audio"),
        "report": (report, "svg.chart .mean"),
        "report-listen": (f"{report}#part-audio", "table.audio img"),
    }
    for study in sorted((folder.root / "studies").glob("*/report/study.html"))[:1]:
        pages["study"] = (study.as_uri(), "img")
    out.mkdir(parents=True, exist_ok=True)
    with browser() as context:
        return {name: _picture(context, *target, out / f"{name}.png") for name, target in pages.items()}


def _picture(context: Any, address: str, selector: str, path: Path) -> str:
    from PIL import Image

    tab = context.new_page()
    tab.goto(address, wait_until="domcontentloaded")
    tab.locator(selector).first.wait_for(state="attached")
    tab.wait_for_timeout(SETTLED)
    tab.screenshot(path=str(path))
    text = str(tab.inner_text("body"))
    tab.close()
    Image.open(path).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1).save(path, optimize=True)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    folder = check(args.runs_dir)
    with server(folder) as address:
        for name in take(folder, args.grid, args.out, address):
            print(args.out / f"{name}.png")


if __name__ == "__main__":
    main()
