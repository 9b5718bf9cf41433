"""Run a study: ``python -m studies.run --study regularizers --trials 50``.

Exit status: 0 on success, 1 if no trial gave a value or a seed of the final check failed, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from optuna.study import Study as OptunaStudy
from rich.console import Console

from ablations.commands import print_line, terminal
from ablations.rendering.sheet import Sheet, as_csv, markdown, markdown_page
from ablations.stats.statistics import Interval
from ablations.tracking.source_version import git_state
from rrpo.commands import options_of, program
from rrpo.errors import InputError
from studies import fresh, results
from studies.export import export
from studies.live import SearchRun
from studies.mlflow_bridge import Bridge
from studies.opening import opened
from studies.options import Options, checked
from studies.preview import preview, shared
from studies.search import Search, counted

app, main = program("studies.run")


@app.command()
@options_of(Options)
def command(**values: Any) -> None:
    """Run or resume an Optuna study, compare its best trial with a baseline on fresh seeds, and write tables and figures.

    All results are also recorded in MLflow.

    Examples:

    --study regularizers --trials 50: search the regularizers' strengths

    --study tune-arm --arm grpo --trials 30: tune an arm's own hyperparameters
    """
    console = terminal()
    search = checked(Options(**values))
    raise typer.Exit(run(search, opened(search), console))


def run(search: Search, study: OptunaStudy, console: Console) -> int:
    """Search, check, report and export; return the exit status, which is 1 also while other commands run the last trials.

    Raises InputError for an invalid launcher or export.
    """
    shared_stages = shared(search)
    for line in preview(search, study, shared_stages):
        print_line(console, line)
    bridge = Bridge(search, study, git_state())
    bridge.write()
    status, comparison, failed, out = "FAILED", None, False, None
    try:
        if len(counted(study)) < search.trials:
            search.builder(console).require(shared_stages)
            SearchRun(search, study, bridge, console).run()
        trials, sheets = results.ranked(study), results.sheets(study, search)
        out = _write(search, study, sheets)  # the comparison may take an hour
        ended = sum(trial.state.is_finished() for trial in counted(study))
        if ended >= search.trials and trials and search.verify:
            try:
                comparison, failed = fresh.check(search, study, console)
            except InputError as error:
                print_line(console, f"Not checked on fresh seeds; run the same command later to do it: {error}")
        if comparison:
            sheets.append(comparison)
            out = _write(search, study, sheets)
        for sheet in sheets:
            print_line(console, f"\n{sheet.title}\n\n{markdown(sheet)}")
        print_line(console, f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
        if ended < search.trials:
            print_line(
                console, f"{ended} of {search.trials} trials are finished; run the same command again for the rest"
            )
        elif not trials:
            print_line(console, f"no trial gave a value; see {out / 'trials.csv'} for the reasons")
        elif search.export_arm:
            print_line(console, f"exported: {export(search, study, trials[0], search.export_arm, comparison)}")
            print_line(console, f"use it: python -m ablations.run --grid full --arms diffro,rrpo,{search.export_arm}")
        status = "FINISHED" if trials and not failed and ended >= search.trials else "FAILED"
    except KeyboardInterrupt:
        status = "KILLED"
        print_line(
            console,
            "Stopped. Finished trials are kept and running ones are queued again; run the same command to continue.",
        )
    finally:
        bridge.write(status, _numbers(comparison), out)
        if waiting := bridge.replay.waiting():
            print_line(console, waiting)
    print_line(console, f"Open it: {search.runs.ui_command()}")
    print_line(console, f"     or: optuna-dashboard {search.address}   (extra: dashboard)")
    return {"FINISHED": 0, "KILLED": 130}.get(status, 1)


def _write(search: Search, study: OptunaStudy, sheets: Sequence[Sheet]) -> Path:
    """Write tables, figures and the page into the report folder, and return it."""
    from studies import figures, page

    out = search.folder / f".report-{os.getpid()}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for sheet in sheets:
        (out / f"{sheet.name}.md").write_text(markdown_page(sheet), encoding="utf-8")
        (out / f"{sheet.name}.csv").write_text(as_csv(sheet), encoding="utf-8")
    results.write_trials(study, out / "trials.csv")
    pictures = [path for path in figures.draw(study, search, out) if path.suffix == ".png"]
    page.write(search.name, sheets, pictures, f"optuna-dashboard {search.address}", out)
    report = search.folder / "report"
    with search.lock():  # two commands that share the study may end together
        shutil.rmtree(report, ignore_errors=True)
        out.rename(report)
    return report


def _numbers(comparison: Sheet | None) -> dict[str, float]:
    """Return the metrics of the check for MLflow: means, and interval and number of seeds of the difference."""
    row = comparison.row(str(comparison.rows[0][0])) if comparison else {}
    intervals = {name: value for name, value in row.items() if isinstance(value, Interval)}
    means = {f"fresh {name}": value.mean for name, value in intervals.items()}
    of_difference = intervals["difference"]._asdict() if intervals else {}
    return means | {f"fresh difference {part}": float(value) for part, value in of_difference.items() if part != "mean"}


if __name__ == "__main__":
    main()
