"""``python -m ablations.run --grid full``: run a grid's missing cells on worker processes and record them in MLflow.

Exit status: 0 if all cells are done, 1 if some failed, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import math
from typing import Any

import typer
from rich.console import Console

from ablations.commands import print_line, show_table, terminal
from ablations.execution import plan
from ablations.execution.estimate import Estimator
from ablations.execution.options import Options
from ablations.execution.progress_display import JSON, LINES, QUIET
from ablations.execution.request import request
from ablations.execution.runner import Ending, run_plan
from ablations.execution.stacking import refuse_mixed
from ablations.rendering.sheet import Sheet, Value
from ablations.stats.statistics import Interval
from rrpo.commands import options_of, program

app, main = program("ablations.run")


@app.command()
@options_of(Options)
def command(**values: Any) -> None:
    """Run a grid of arms x seeds. Finished cells are not run again.

    Examples:

    --grid loo --seeds 3 --plan: show what would run, why, and how long it would take

    --grid full --arms diffro,rrpo --profile quick --workers 2: run two arms of a grid on a small profile
    """
    console = terminal()
    options = Options(**values)
    mode = JSON if options.json else QUIET if options.quiet else LINES
    grid_request = request(options)
    grid_plan = plan.make(grid_request)
    store, recorded = grid_request.folder.root, grid_plan.recorded
    refuse_mixed(grid_request.cells, grid_plan.stages, store, grid_request.executor, recorded)
    estimator = Estimator(grid_request.folder.root, grid_request.device)
    lines = list(grid_plan.lines(estimator, cells=options.plan))
    if mode == JSON:
        print(json.dumps({"event": "plan", "lines": lines}, ensure_ascii=False), flush=True)
    elif mode == LINES or options.plan:
        for line in lines:
            print_line(console, line)
    if options.plan:
        return
    outcome = run_plan(grid_plan, estimator, console, mode)
    if mode == JSON:
        print(json.dumps({"event": "end", **_summary(outcome)}, ensure_ascii=False), flush=True)
    else:
        report(outcome, console, table=mode == LINES)
    raise typer.Exit(outcome.status)


def _summary(outcome: Ending) -> dict[str, object]:
    """Return the summary of a finished run as a JSON object."""
    return {
        "cells": outcome.cells,
        "done": outcome.done,
        "failures": outcome.failures,
        "stopped": outcome.stopped,
        "status": outcome.status,
        "waiting": outcome.waiting,
        "open": outcome.ui_command,
        "table": [] if outcome.table is None else [_json_row(outcome.table, row) for row in outcome.table.rows],
    }


def _json_row(table: Sheet, row: tuple[Value, ...]) -> dict[str, object]:
    """Return a row as column -> value, unrounded; an interval is an object of its parts, a missing value is null."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    def cell(value: Value) -> object:
        if isinstance(value, Interval):
            return {name: finite(part) for name, part in value._asdict().items()}
        return value if isinstance(value, str) else finite(value)

    return {column.name: cell(value) for column, value in zip(table.columns, row, strict=True)}


def report(outcome: Ending, console: Console, *, table: bool = True) -> None:
    """Print the summary of a run: the table of results (if ``table``), failures, completion, and how to open MLflow."""

    if table and outcome.table is not None:
        show_table(outcome.table, console, "Result")
    if outcome.failures:
        print_line(console, f"{len(outcome.failures)} of {outcome.cells} cells failed:")
    for name, reason in outcome.failures.items():
        print_line(console, f"  {name}: {reason}")
    if outcome.stopped:
        print_line(
            console,
            f"Stopped. {outcome.done} of {outcome.cells} cells are done and kept; run the same command again to resume.",
        )
    elif outcome.done == outcome.cells:
        print_line(console, f"All {outcome.cells} cells are done.")
    elif not outcome.failures:
        print_line(
            console, f"{outcome.done} of {outcome.cells} cells are done; run the same command again to continue."
        )
    if outcome.waiting:
        print_line(console, outcome.waiting)
    print_line(console, f"Open it: {outcome.ui_command}")


if __name__ == "__main__":
    main()
