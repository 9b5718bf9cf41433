"""Run a study: ``python -m studies.run --study regularizers --trials 50``.

Exit status: 0 on success, 1 if no trial gave a value or a seed of the final check failed, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from ablations.commands import program, refusing, say, terminal
from ablations.errors import InputError
from ablations.execution import environment, launchers
from ablations.rendering.sheet import Sheet, as_csv, markdown
from ablations.stats.statistics import Interval
from rrpo.commands import options_of
from rrpo.pipeline.stages import Stage
from studies import fresh, results
from studies.detectable import announcement, shared
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
def command(**given: Any) -> None:
    """Run or resume an Optuna study, compare its best trial with a rival on fresh seeds, and write tables and figures.

    All results are also recorded in MLflow.

    Examples:

    --study regularizers --trials 50: search the regularizers' strengths

    --study tune-arm --arm grpo --trials 30: tune an arm's own hyperparameters
    """
    console = terminal()
    with refusing():
        asked = checked(Options(**given))
        study = opened(asked)
        raise typer.Exit(run(asked, study, console))


def run(asked: Command, study: OptunaStudy, console: Console) -> int:
    """Search, check, report and export; return the exit status. Raises InputError for an invalid launcher or export."""
    search = asked.search
    once = shared(search)
    for line in announcement(search, study, asked.workers, once):
        say(console, line)
    if late := ignored(asked, study):
        say(console, f"note: {late}")
    identity = identity_of(search)
    bridge = Bridge(search, asked.folder, study, environment.git_state())
    bridge.start(identity)
    status = "FAILED"
    numbers: dict[str, float] = {}
    out: Path | None = None
    try:
        failures = _search(asked, study, bridge, console, once)
        sheets = results.sheets(study, search)
        found = results.ranked(study, search)
        checked, lost = _check(asked, study, console) if found else (None, "")
        sheets += [checked] if checked else []
        out = _write(search, study, sheets, console)
        numbers = _numbers(checked)
        for title, reason in failures.items():
            say(console, f"failed: {title}: {reason}")
        if not found:
            say(console, f"no trial gave a value; see {out / 'trials.csv'} for the reasons")
        if found and asked.export_arm:
            path = export(search, study, found[0], asked.export_arm, identity, checked)
            say(console, f"exported: {path}")
            say(console, f"use it: python -m ablations.run --grid full --arms diffro,rrpo,{asked.export_arm}")
        status = "FINISHED" if found and not lost else "FAILED"
    except KeyboardInterrupt:
        status = "KILLED"
        say(
            console,
            "Stopped. Finished trials are kept and running ones are queued again; run the same command to continue.",
        )
    finally:
        if said := bridge.end(status, numbers, out):
            say(console, said)
    say(console, f"Open it: {asked.folder.ui_command()}")
    say(console, f"     or: {dashboard(search)}   (extra: dashboard)")
    return {"FINISHED": 0, "KILLED": 130}.get(status, 1)


def _search(
    asked: Command, opened: OptunaStudy, bridge: Bridge, console: Console, once: Sequence[Stage]
) -> dict[str, str]:
    """Run the missing trials; return the failures, title -> reason."""
    search = asked.search
    running = SearchRun(search, opened, bridge, console, asked.workers)
    if len(counted(opened)) < search.trials:
        pool = launchers.start(asked.launcher, asked.workers, search.folder / "launcher")
        running.run(pool, once)
    bridge.write(opened.get_trials(deepcopy=False))
    return running.failures


def _check(asked: Command, opened: OptunaStudy, console: Console) -> tuple[Sheet | None, str]:
    """Return the comparison of the best trial with its rival, and the reason if seeds are missing in it."""
    if not asked.verify:
        return None, ""
    search = asked.search
    best = results.ranked(opened, search)[0]
    try:
        rival = fresh.rival(search, opened, asked.against)
    except InputError as error:
        say(console, f"Not checked on fresh seeds; run the same command later to do it: {error}")
        return None, ""
    if search.definition.arm(best.params) == rival.arm:
        say(console, f"The best trial is the same arm as {rival.name}: there is nothing to check.")
        return None, ""
    pool = launchers.start(asked.launcher, asked.workers, search.folder / "launcher")
    won, rivals, lost = fresh.evaluate(search, best, rival, asked.verify, pool, console)
    check = fresh.count(search, opened, best, rival, won.keys() & rivals.keys())
    return fresh.verdict(search, best, rival, won, rivals, lost, check), lost


def _write(search: Search, opened: OptunaStudy, sheets: Sequence[Sheet], console: Console) -> Path:
    """Write tables, figures and the page into the report folder, and return it."""
    from studies import figures, page

    out = search.folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    for sheet in sheets:
        (out / f"{sheet.name}.md").write_text(f"# {sheet.title}\n\n{markdown(sheet)}")
        (out / f"{sheet.name}.csv").write_text(as_csv(sheet))
        if sheet.name not in UNPRINTED:
            say(console, f"\n{sheet.title}\n\n{markdown(sheet)}")
    drawn = figures.draw(opened, search, out)
    pictures = [path for path in drawn if path.suffix == ".png"]
    written = [page.write(search.name, sheets, pictures, dashboard(search), out), *pictures]
    say(console, f"written to {out}: {', '.join(path.name for path in written)}")
    if not drawn:
        say(console, "no figure: too few trials")
    return out


def dashboard(search: Search) -> str:
    """Return the command that opens the study in Optuna's dashboard."""
    return f"optuna-dashboard {shown(search.storage) if search.storage else search.folder / 'journal.log'}"


def _numbers(checked: Sheet | None) -> dict[str, float]:
    """Return the metrics of the check for MLflow."""
    if checked is None:
        return {}
    row = dict(zip((column.name for column in checked.columns), checked.rows[0], strict=True))
    means = {f"fresh {name}": v.mean for name, v in row.items() if isinstance(v, Interval)}
    return means | {f"fresh {name}": v for name, v in row.items() if isinstance(v, float)}


if __name__ == "__main__":
    main()
