"""The page of a grid's experiment in MLflow: runs grouped by arm, charts over KL and step, a description, the report's files.

MLflow stores a shared view as an experiment tag and opens it by a URL (*Share* in its UI); this module writes that tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.judges import gold, tuning
from ablations.tracking.connection import TRAINING, answering
from ablations.tracking.reader import Store
from ablations.tracking.reconcile import owner_tags
from ablations.tracking.records import EVALUATION, KL_AXIS, TAG_GRID, TAG_KIND, TRAIN
from ablations.tracking.run_files import repository
from ablations.tracking.runs_folder import RunsFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "arms"
"""Name of the view in the tag and the URL."""
NOTE = "mlflow.note.content"
NOTE_LIMIT = 20_000
"""Maximum number of characters in an experiment tag."""
END = ("clean_success", f"end_{gold().accuracy}", "end_hack_rate")
"""Metrics of the last checkpoint that are shown."""
COLUMNS = (*END, "end_proxy_accuracy", "end_phone_error_rate", "end_kl_token")
"""Metrics that are columns of the table of runs."""
RISES = (tuning().accuracy, "proxy_accuracy", tuning().clean)
"""Training curves that diverge under over-optimization."""
CHARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "Against KL": tuple((f"{TRAIN}{name}", KL_AXIS) for name in RISES),
    "At the end": tuple((name, "") for name in END),
    "Against step": tuple((f"{TRAIN}{name}", "step") for name in (*RISES, "kl_token", "loss")),
    "Checkpoints": tuple((f"{EVALUATION}{name}", "step") for name in (gold().accuracy, "proxy_accuracy", "kl_token")),
}
"""Section of charts -> (metric, x-axis) of each chart; an empty x-axis gives a bar chart with one bar per arm."""


def prepare(client: MlflowClient, experiment: str, arms: Iterable[str]) -> None:
    """Write the view with groups for these arms to an experiment."""
    view = json.dumps(_state(arms))
    if len(view) > NOTE_LIMIT:  # hundreds of arms: MLflow then opens their groups
        view = json.dumps(_state(()))
    for name, value in (TRAINING | {f"mlflow.sharedViewState.{VIEW}": view}).items():
        client.set_experiment_tag(experiment, name, value)


def address(folder: RunsFolder, experiment: str) -> str:
    """Return the URL of an experiment's charts in the running UI."""
    query = f"viewStateShareKey={VIEW}&compareRunsMode=CHART&workflowType=machine_learning"
    return f"{folder.ui_address}/#/experiments/{experiment}/runs?{query}"


def how_to_open(folder: RunsFolder, experiment: str) -> str:
    """Return a line that says how to open the charts, for the end of a command's output."""
    url = address(folder, experiment) if experiment else folder.ui_address
    return url if folder.server else f"{folder.ui_command()} then {url}"


def keep_report(store: Store, grid: str, paths: Iterable[Path], artifact_folder: str, answer: str = "") -> None:
    """Log a report's files to the folder ``artifact_folder`` of the grid's report run; files of earlier reports are kept.

    If an ``answer`` in Markdown is given, it becomes the description of the grid's experiment, without images and with a link to
    the report's files.
    """
    about, earlier = store.about_experiment(grid), store.runs(grid, "report")
    with answering(store.folder):
        tags = {TAG_KIND: "report", TAG_GRID: grid} | owner_tags()
        run = earlier[-1] if earlier else store.client.create_run(about, run_name=f"report of {grid}", tags=tags)
        artifacts = repository(store.folder, run)
        for path in paths:
            artifacts.log_artifact(str(path), artifact_folder)
        store.client.set_terminated(run.info.run_id)
        if answer:
            description = re.sub(r"^!\[.*\]\(.*\)\n?", "", answer, flags=re.MULTILINE).strip()
            link = f"#/experiments/{about}/runs/{run.info.run_id}/artifacts"
            files = f"Tables, figures and `report.html`: [artifacts of the report's run]({link}). "
            again = f"Regenerate: `python -m reports.run --grid {grid}`."
            text = f"{description[: NOTE_LIMIT - 500]}\n\n{files}{again}"
            store.client.set_experiment_tag(store.experiment_id(grid), NOTE, text)


def _state(arms: Iterable[str]) -> dict[str, Any]:
    sections = [_section(name) for name in CHARTS]
    charts = [_chart(name, *chart) for name, charts in CHARTS.items() for chart in charts]
    return {
        "orderByKey": "attributes.`Created`",
        "orderByAsc": True,
        "selectedColumns": [f"metrics.`{name}`" for name in COLUMNS],
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]},
        "groupsExpanded": {f"param.arm.{arm}": False for arm in arms},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": sections,
        "compareRunCharts": charts,
        "isAccordionReordered": True,
    }


def _section(name: str) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": 2, "cardHeight": 300}


def _chart(section: str, metric: str, axis: str) -> dict[str, Any]:
    chart = {"uuid": f"{section}/{metric}", "metricSectionId": section, "metricKey": metric, "runsCountToCompare": 100}
    if not axis:
        return chart | {"type": "BAR"}
    axes = {"xAxisKey": "step"} if axis == "step" else {"xAxisKey": "metric", "selectedXAxisMetricKey": axis}
    return (
        chart
        | axes
        | {"type": "LINE", "useGlobalXaxisKey": False, "yAxisKey": "metric", "range": {}, "lineSmoothness": 0}
    )
