"""``python -m ablations.run --grid full``: run a grid's missing cells on worker processes and record them in MLflow.

Exit status: 0 if all cells are done, 1 if some failed, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from ablations.commands import FAILING, HOW, SAID, WHAT, Device, Plugin, RunsDir, Set, WorldSeed, refusing, say, start
from ablations.execution import plan
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import PACKAGES
from ablations.execution.progress_display import JSON, LINES, QUIET
from ablations.execution.request import request
from ablations.execution.runner import Outcome, run_plan
from ablations.execution.stacking import refuse_mixed
from ablations.grids import GRIDS
from ablations.rendering.sheet import Sheet, Value
from ablations.stats.statistics import Interval
from rrpo.pipeline.executor import PRECISIONS
from rrpo.profiles import PROFILES

WIDTH = 150
"""Width of the output in columns if it is not a terminal."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def command(
    grid: Annotated[str, typer.Option(help=f"Grid to run: {', '.join(GRIDS)}.", rich_help_panel=WHAT)],
    seeds: Annotated[
        int | None,
        typer.Option(help="Number of seeds. Default: the grid's.", show_default=False, rich_help_panel=WHAT),
    ] = None,
    first_seed: Annotated[
        int | None,
        typer.Option(
            help="First seed. Seeds from 1000 on are for development. Default: the grid's.",
            show_default=False,
            rich_help_panel=WHAT,
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(help="Run only these arms (comma-separated names). Default: all.", rich_help_panel=WHAT),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help=f"Profile (size of world and models): {', '.join(PROFILES)}. Default: the grid's.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    world: WorldSeed = 0,
    settings: Set = None,
    plugin: Plugin = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of concurrent tasks. Default: one per CPU; on GPUs as many as the measured memory allows, 4 per GPU "
            "before anything is measured.",
            show_default=False,
            rich_help_panel=HOW,
        ),
    ] = None,
    batch_scale: Annotated[
        int,
        typer.Option(
            help="Factor by which all training batches are enlarged, for GPUs. This is a different experiment.",
            rich_help_panel=WHAT,
        ),
    ] = 1,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="CosyVoice2-0.5B, for the grid paper; --train then names a file of labelled speech tokens.",
            show_default=False,
            rich_help_panel=WHAT,
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="Train reward models on your own corpus, CORPUS.train.jsonl and CORPUS.valid.jsonl of rrpo.corpus import.",
            show_default=False,
            rich_help_panel=WHAT,
        ),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Use a pre-trained speech encoder from a Hugging Face folder (wav2vec 2.0, WavLM, HuBERT) in reward models.",
            show_default=False,
            rich_help_panel=WHAT,
        ),
    ] = None,
    tune_encoder: Annotated[
        bool, typer.Option("--tune-encoder", help="Also train the encoder's Transformer.", rich_help_panel=WHAT)
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Cross-validate over K folds of --train's speakers (rrpo.corpus import --folds K), one fold per seed.",
            show_default=False,
            rich_help_panel=WHAT,
        ),
    ] = None,
    manifest: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT=PATH",
            help="Use your own JSON-lines manifest for a split; repeatable.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CORPUS|NAME=PATH",
            help="Additional test set of reward models: CORPUS.test.jsonl, else CORPUS.jsonl, or any manifest; repeatable.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="failed",
            help="Run cells again that diverged or hit a bug.",
            show_default=False,
            rich_help_panel=FAILING,
        ),
    ] = None,
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast/--keep-going",
            help="Stop at the first failed cell, or continue with the others.",
            rich_help_panel=FAILING,
        ),
    ] = False,
    launcher: Annotated[
        str,
        typer.Option(help=f"Where tasks run: {', '.join(PACKAGES)}; at most --workers at a time.", rich_help_panel=HOW),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster. Default: start one on this machine.",
            show_default=False,
            rich_help_panel=HOW,
        ),
    ] = None,
    cpus_per_task: Annotated[int, typer.Option(help="CPUs per task, on Ray and Slurm.", rich_help_panel=HOW)] = 1,
    gpus_per_task: Annotated[
        float | None,
        typer.Option(
            help="GPUs per task, on Ray and Slurm. Default: the share that the measured memory requires, or 0 on the CPU.",
            show_default=False,
            rich_help_panel=HOW,
        ),
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Option of sbatch, as in partition=gpu; repeatable.", rich_help_panel=HOW
        ),
    ] = None,
    stack: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Optimize the policies of N cells together in one process. auto: as many as fit into a GPU's memory, or 1 on "
            "the CPU. All cells of a seed must be optimized in the same way, stacked or not.",
            rich_help_panel=HOW,
        ),
    ] = "1",
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of policy optimizations: fp32, tf32 (GPU only) or bf16 (matrix products of the policy). The same for "
            "all cells of a seed.",
            rich_help_panel=HOW,
        ),
    ] = PRECISIONS[0],
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Use deterministic algorithms on a GPU: bit-identical repetitions, but slower.",
            rich_help_panel=HOW,
        ),
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Run only every N-th cell, starting with the I-th (1 to N), for batch systems.",
            rich_help_panel=HOW,
        ),
    ] = "1/1",
    runs_dir: RunsDir = Path("runs"),
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print only failures and the final summary.", rich_help_panel=SAID)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every event as a JSON object on one line.", rich_help_panel=SAID)
    ] = False,
    plan_only: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Dry run: print the cells, the stages to build and the estimated time, and exit.",
            rich_help_panel=SAID,
        ),
    ] = False,
) -> None:
    """Run a grid of arms x seeds. Finished cells are not run again.

    Examples:

    --grid loo --seeds 3 --plan: show what would run, why, and how long it would take

    --grid full --arms diffro,rrpo --profile quick --workers 2: run two arms of a grid on a small profile
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    mode = JSON if as_json else QUIET if quiet else LINES
    with refusing():
        asked = request(
            grid=grid,
            profile=profile,
            world_seed=world,
            settings=settings or (),
            seeds=seeds,
            first_seed=first_seed,
            arms=arms,
            device=device,
            workers=workers,
            batch_scale=batch_scale,
            encoder=encoder,
            tune_encoder=tune_encoder,
            model=model,
            train=train,
            folds=folds,
            manifests=manifest or (),
            tests=test or (),
            retry=retry,
            fail_fast=fail_fast,
            launcher=launcher,
            address=address,
            cpus_per_task=cpus_per_task,
            gpus_per_task=gpus_per_task,
            slurm=slurm or (),
            stack=stack,
            precision=precision,
            deterministic=deterministic,
            shard=shard,
            runs_dir=runs_dir,
        )
        made = plan.make(asked)
        refuse_mixed(asked.cells, made.stages, asked.folder.root, asked.executor)
    estimator = Estimator(asked.folder.root, asked.device)
    lines = list(made.lines(estimator, cells=plan_only))
    if mode == JSON:
        print(json.dumps({"event": "plan", "lines": lines}, ensure_ascii=False), flush=True)
    elif mode == LINES or plan_only:
        for line in lines:
            say(console, line)
    if plan_only:
        return
    with refusing():
        outcome = run_plan(made, estimator, console, show_table if mode == LINES else _hide, mode)
    if mode == JSON:
        print(json.dumps({"event": "end", **_ended(outcome)}, ensure_ascii=False), flush=True)
    else:
        report(outcome, console, table=mode == LINES)
    raise typer.Exit(outcome.status)


def _hide(table: Sheet, console: Console, title: str) -> None:
    """Print no interim tables, for the modes with less output."""


def _ended(outcome: Outcome) -> dict[str, object]:
    """Return the summary of a finished run as a JSON object."""
    return {
        "cells": outcome.cells,
        "done": outcome.done,
        "failures": outcome.failures,
        "stopped": outcome.stopped,
        "status": outcome.status,
        "waiting": outcome.waiting,
        "open": outcome.ui_command,
        "table": [] if outcome.table is None else [_plain(outcome.table, row) for row in outcome.table.rows],
    }


def _plain(table: Sheet, row: tuple[Value, ...]) -> dict[str, object]:
    """Return a row as column -> value, unrounded; an interval is an object of its parts, a missing value is null."""

    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    def cell(value: Value) -> object:
        if isinstance(value, Interval):
            return {name: known(part) for name, part in value._asdict().items()}
        return value if isinstance(value, str) else known(value)

    return {column.name: cell(value) for column, value in zip(table.columns, row, strict=True)}


def report(outcome: Outcome, console: Console, *, table: bool = True) -> None:
    """Print the summary of a run: the table of results (if ``table``), failures, completion, and how to open MLflow."""

    if table and outcome.table is not None:
        show_table(outcome.table, console, "Result")
    if outcome.failures:
        say(console, f"{len(outcome.failures)} of {outcome.cells} cells failed:")
    for name, reason in outcome.failures.items():
        say(console, f"  {name}: {reason}")
    if outcome.stopped:
        say(
            console,
            f"Stopped. {outcome.done} of {outcome.cells} cells are done and kept; run the same command again to resume.",
        )
    elif not outcome.failures:
        say(console, f"All {outcome.cells} cells are done.")
    if outcome.waiting:
        say(console, outcome.waiting)
    say(console, f"Open it: {outcome.ui_command}")


def show_table(table: Sheet, console: Console, title: str) -> None:
    """Print a table of results with its notes."""
    head, body = table.texts()
    shown = RichTable(title=title, title_justify="left")
    for position, heading in enumerate(head):
        shown.add_column(heading, justify="left" if position == 0 else "right")
    for row in body:
        shown.add_row(*row)
    console.print(shown)
    for note in table.notes:
        console.print(note, markup=False, highlight=False)


def main() -> None:
    """Entry point of the console script."""
    start(app, "ablations.run")


if __name__ == "__main__":
    main()
