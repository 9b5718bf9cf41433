"""Run a study: ``python -m studies.run --study regularizers --trials 50``.

Exit status: 0 on success, 1 if no trial gave a value or a seed of the final check failed, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from ablations.commands import exit_on_input_error, print_line, program, terminal
from ablations.errors import InputError
from ablations.execution import launchers
from ablations.rendering.sheet import Sheet, as_csv, markdown
from ablations.stats.statistics import Interval
from ablations.tracking.source_version import git_state
from rrpo.commands import options_of
from rrpo.pipeline.stages import Stage
from studies import fresh, results
from studies.detectable import preview, shared
from studies.export import export
from studies.live import SearchRun
from studies.mlflow_bridge import Bridge
from studies.opening import identity as identity_of
from studies.opening import ignored, opened
from studies.options import Command, Options, checked
from studies.search import Search, counted
from studies.storage import shown

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy

app, main = program("studies.run")
UNPRINTED = ("trials",)
"""Tables that are written to files but not printed."""


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
    with exit_on_input_error():
        checked_command = checked(Options(**values))
        study = opened(checked_command)
        raise typer.Exit(run(checked_command, study, console))


def run(command: Command, study: OptunaStudy, console: Console) -> int:
    """Search, check, report and export; return the exit status. Raises InputError for an invalid launcher or export."""
    search = command.search
    shared_stages = shared(search)
    for line in preview(search, study, command.workers, shared_stages):
        print_line(console, line)
    if note := ignored(command, study):
        print_line(console, f"note: {note}")
    identity = identity_of(search)
    bridge = Bridge(search, command.folder, study, git_state())
    bridge.start(identity)
    status = "FAILED"
    numbers: dict[str, float] = {}
    out: Path | None = None
    try:
        failures = _search(command, study, bridge, console, shared_stages)
        sheets = results.sheets(study, search)
        trials = results.ranked(study, search)
        comparison, missing = _check(command, study, console) if trials else (None, "")
        sheets += [comparison] if comparison else []
        out = _write(search, study, sheets, console)
        numbers = _numbers(comparison)
        for title, reason in failures.items():
            print_line(console, f"failed: {title}: {reason}")
        if not trials:
            print_line(console, f"no trial gave a value; see {out / 'trials.csv'} for the reasons")
        if trials and command.export_arm:
            path = export(search, study, trials[0], command.export_arm, identity, comparison)
            print_line(console, f"exported: {path}")
            print_line(console, f"use it: python -m ablations.run --grid full --arms diffro,rrpo,{command.export_arm}")
        status = "FINISHED" if trials and not missing else "FAILED"
    except KeyboardInterrupt:
        status = "KILLED"
        print_line(
            console,
            "Stopped. Finished trials are kept and running ones are queued again; run the same command to continue.",
        )
    finally:
        if message := bridge.end(status, numbers, out):
            print_line(console, message)
    print_line(console, f"Open it: {command.folder.ui_command()}")
    print_line(console, f"     or: {dashboard(search)}   (extra: dashboard)")
    return {"FINISHED": 0, "KILLED": 130}.get(status, 1)


def _search(
    command: Command, study: OptunaStudy, bridge: Bridge, console: Console, shared_stages: Sequence[Stage]
) -> dict[str, str]:
    """Run the missing trials; return the failures, title -> reason."""
    search = command.search
    running = SearchRun(search, study, bridge, console, command.workers)
    if len(counted(study)) < search.trials:
        pool = launchers.start(command.launching, command.workers, search.folder / "launcher")
        running.run(pool, shared_stages)
    bridge.write(study.get_trials(deepcopy=False))
    return running.failures


def _check(command: Command, study: OptunaStudy, console: Console) -> tuple[Sheet | None, str]:
    """Return the comparison of the best trial with its baseline, and the reason if seeds are missing in it."""
    if not command.verify:
        return None, ""
    search = command.search
    best = results.ranked(study, search)[0]
    try:
        baseline = fresh.baseline(search, study, command.against)
    except InputError as error:
        print_line(console, f"Not checked on fresh seeds; run the same command later to do it: {error}")
        return None, ""
    if search.definition.arm(best.params) == baseline.arm:
        print_line(console, f"The best trial is the same arm as {baseline.name}: there is nothing to check.")
        return None, ""
    pool = launchers.start(command.launching, command.workers, search.folder / "launcher")
    best_outcomes, baseline_outcomes, missing = fresh.evaluate(search, best, baseline, command.verify, pool, console)
    check = fresh.count(search, study, best, baseline, best_outcomes.keys() & baseline_outcomes.keys())
    return fresh.verdict(search, best, baseline, best_outcomes, baseline_outcomes, missing, check), missing


def _write(search: Search, study: OptunaStudy, sheets: Sequence[Sheet], console: Console) -> Path:
    """Write tables, figures and the page into the report folder, and return it."""
    from studies import figures, page

    out = search.folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    for sheet in sheets:
        (out / f"{sheet.name}.md").write_text(f"# {sheet.title}\n\n{markdown(sheet)}")
        (out / f"{sheet.name}.csv").write_text(as_csv(sheet))
        if sheet.name not in UNPRINTED:
            print_line(console, f"\n{sheet.title}\n\n{markdown(sheet)}")
    files = figures.draw(study, search, out)
    pictures = [path for path in files if path.suffix == ".png"]
    written = [page.write(search.name, sheets, pictures, dashboard(search), out), *pictures]
    print_line(console, f"written to {out}: {', '.join(path.name for path in written)}")
    if not files:
        print_line(console, "no figure: too few trials")
    return out


def dashboard(search: Search) -> str:
    """Return the command that opens the study in Optuna's dashboard."""
    return f"optuna-dashboard {shown(search.storage) if search.storage else search.folder / 'journal.log'}"


def _numbers(comparison: Sheet | None) -> dict[str, float]:
    """Return the metrics of the check for MLflow."""
    if comparison is None:
        return {}
    row = dict(zip((column.name for column in comparison.columns), comparison.rows[0], strict=True))
    means = {f"fresh {name}": value.mean for name, value in row.items() if isinstance(value, Interval)}
    return means | {f"fresh {name}": value for name, value in row.items() if isinstance(value, float)}


if __name__ == "__main__":
    main()
