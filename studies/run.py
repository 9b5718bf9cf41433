"""``python -m studies.run --study regularizers --trials 50``: search RRPO's knobs, resume a search, hand its winner to a grid.

Exit status: 0, 1 when no trial gave a value, 2 for bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ablations import environment
from ablations.errors import InputError, choose, positive
from ablations.estimate import Estimator, duration
from ablations.exported import write_arm
from ablations.plan import default_workers
from ablations.runs_folder import check
from ablations.sheet import Sheet, as_csv, markdown
from ablations.tracking import create
from rrpo import pipeline
from rrpo.profiles import PROFILES
from rrpo.stages import canonical, walk
from studies import figures, fresh, results
from studies.catalogue import STUDIES, TUNABLE, Study, tune_arm
from studies.samplers import SAMPLERS
from studies.search import PRUNERS, Search, counted, run
from studies.storage import open_storage, open_study
from studies.tracking import Bridge
from studies.trial import FIRST_SEED, FRESH_SEED, OBJECTIVES, Question

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
TOP = 5
"""Trials that a warm start takes over."""


@app.command()
def command(
    study: Annotated[str, typer.Option(help=f"Which study: {', '.join([*STUDIES, 'tune-arm'])}.")],
    trials: Annotated[int, typer.Option(help="Trials in all; a study that has them is only reported.")] = 50,
    profile: Annotated[str, typer.Option(help="Size of world and models.")] = "embedded",
    runs_dir: Annotated[Path, typer.Option(help="The runs folder, shared with grids.")] = Path("runs"),
    arm: Annotated[str, typer.Option(help="The arm that tune-arm tunes.")] = "",
    name: Annotated[str, typer.Option(help="The study's name. Default: the study and the profile.")] = "",
    objectives: Annotated[str, typer.Option(help=f"One or more of {', '.join(OBJECTIVES)}, by commas.")] = "",
    seeds: Annotated[int, typer.Option(help="Development seeds a trial.")] = 3,
    first_seed: Annotated[int, typer.Option(help=f"First of them, {FIRST_SEED} to {FRESH_SEED - 1}.")] = FIRST_SEED,
    sampler: Annotated[str, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")] = "tpe",
    pruner: Annotated[str, typer.Option(help=f"One of {', '.join(PRUNERS)}; none for several objectives.")] = "median",
    storage: Annotated[str, typer.Option(help="A database's URL. Default: a journal file in the runs folder.")] = "",
    warm_start: Annotated[
        str, typer.Option(help="A study in the same storage whose best points are tried first.")
    ] = "",
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one a CPU.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    verify: Annotated[int, typer.Option(help="Fresh seeds on which the winner meets the paper's values; 0: none.")] = 0,
    export_arm: Annotated[
        str, typer.Option(help="Store the winner as an arm of this name, for ablations.run --arms.")
    ] = "",
) -> None:
    """Run or resume a study, then write its tables and figures and keep them in MLflow."""
    console = Console()
    try:
        definition = _definition(study, arm)
        folder = check(runs_dir)
        machine = environment.resolve_device(device)
        question = Question(
            profile=PROFILES[choose("profile", profile, PROFILES)],
            store=runs_dir.resolve(),
            seeds=_seeds(seeds, first_seed),
            objectives=_objectives(objectives, definition),
            device=machine,
        )
        several = len(question.objectives) > 1
        search = Search(
            study=study,
            name=name or f"{definition.name}-{profile}",
            question=question,
            trials=positive("--trials", trials),
            sampler=choose("sampler", sampler, SAMPLERS),
            pruner="none" if several else choose("pruner", pruner, PRUNERS),
            storage=storage or None,
            arm=arm,
        )
        if export_arm and not export_arm.isidentifier():
            raise InputError("an arm needs a plain name", got=export_arm, fix="use letters, digits and underscores")
        if verify < 0:
            raise InputError("--verify must not be negative", got=verify, fix="give a number of fresh seeds, or 0")
        count = default_workers(machine) if workers is None else positive("--workers", workers)
        create(folder, f"study {search.name}")
        opened = open_study(
            open_storage(search.storage, search.folder), search.name, search.directions, identity(search)
        )
        _first_trials(opened, search, warm_start)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    console.print(_announcement(search, opened, count), markup=False, highlight=False, soft_wrap=True)
    bridge = Bridge(search, folder, opened)
    bridge.start()
    try:
        _search(search, opened, bridge, count, console)
    except KeyboardInterrupt:
        bridge.end("KILLED")
        console.print("Stopped. Finished trials are kept; the same command goes on from there.")
        raise typer.Exit(130) from None
    sheets = results.sheets(opened, search)
    found = results.ranked(opened, search)
    if found and verify:
        values = fresh.evaluate(search, found[0].params, verify, count)
        sheets.append(results.verdict(search.question.objectives[0], search.directions[0], *values))
    out = _write(search, opened, sheets, console)
    if found and export_arm:
        _export(search, found[0], export_arm, console)
    bridge.keep(out)
    bridge.end("FINISHED" if found else "FAILED")
    console.print(f"Open it: {folder.ui_command()}", soft_wrap=True, highlight=False)
    raise typer.Exit(0 if found else 1)


def _definition(study: str, arm: str) -> Study:
    if study == "tune-arm":
        return tune_arm(choose("arm for tune-arm (--arm)", arm, TUNABLE))
    if arm:
        raise InputError("--arm belongs to tune-arm alone", got=f"--study {study} --arm {arm}", fix="leave --arm out")
    return STUDIES[choose("study", study, [*STUDIES, "tune-arm"])]()


def _seeds(count: int, first: int) -> tuple[int, ...]:
    last = first + positive("--seeds", count) - 1
    if first < FIRST_SEED or last >= FRESH_SEED:
        raise InputError(
            "a search uses development seeds only",
            got=f"{first} to {last}",
            fix=f"choose them from {FIRST_SEED} to {FRESH_SEED - 1}: lower ones are for reports, higher ones for --verify",
        )
    return tuple(range(first, last + 1))


def _objectives(text: str, definition: Study) -> tuple[str, ...]:
    names = (
        tuple(choose("objective", part.strip(), OBJECTIVES) for part in text.split(","))
        if text
        else definition.objectives
    )
    if len(set(names)) < len(names):
        raise InputError("an objective is named twice", got=text, fix="name each once")
    return names


def identity(search: Search) -> dict[str, Any]:
    """What makes trials comparable: resuming with another identity is refused."""
    from optuna.distributions import distribution_to_json

    question = search.question
    profile = question.profile
    judges = [pipeline.judge(profile, "val"), pipeline.recogniser(profile, "reward")]
    return {
        "study": search.study,
        "arm": search.arm,
        "space": {name: distribution_to_json(d) for name, d in search.definition.space.items()},
        "objectives": list(question.objectives),
        "seeds": list(question.seeds),
        "optimize": canonical(profile.optimize),
        "profile": profile.name,
        "world": [stage.key for stage in judges],
    }


def _first_trials(opened: Any, search: Search, warm_start: str) -> None:
    """The paper's values are trial 0; after it, a warm start's best points with the paper's values for knobs it lacks."""
    import optuna

    points = [] if opened.get_trials(deepcopy=False) else [dict(search.definition.paper)]
    if warm_start and points:
        try:
            other = optuna.load_study(
                study_name=warm_start, storage=open_storage(search.storage, search.folder.parent / warm_start)
            )
        except KeyError:
            raise InputError(
                "there is no study of that name to start from", got=warm_start, fix="run it first"
            ) from None
        sign = -1 if other.directions[0].name == "MAXIMIZE" else 1
        done = [t for t in other.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
        for trial in sorted(done, key=lambda t: sign * t.values[0])[:TOP]:
            taken = {name: value for name, value in trial.params.items() if name in search.definition.space}
            points.append(dict(search.definition.paper) | taken)
    for point in points:
        opened.enqueue_trial(point, skip_if_exists=True)


def _announcement(search: Search, opened: Any, workers: int) -> str:
    """What is going to run, and how long it will take by the seconds that stored stages took."""
    question = search.question
    left = max(0, search.trials - len(counted(opened)))
    estimator = Estimator(question.store, question.device)
    arm = search.definition.arm(search.definition.paper)
    own = {s.key: s for seed in question.seeds for s in walk(*question.stages(arm, seed))}
    base = {s.key for seed in question.seeds for s in walk(pipeline.pretrained(question.profile, arm, seed))}
    base |= {s.key for seed in question.seeds for s in walk(pipeline.sft(question.profile, seed))}
    each = [
        s for s in own.values() if s.name in ("finetune", "examine", "optimize", "transcribe") and s.key not in base
    ]
    once = [s for s in own.values() if s not in each and not s.done(question.store)]
    (trial, unknown), (shared, also_unknown) = estimator.total(each), estimator.total(once)
    time = "unknown: nothing of this size was built here yet"
    if unknown < len(each):
        text = duration((left * trial + shared) / workers)
        time = f"more than {text}" if unknown + also_unknown else f"at most about {text}"
    return (
        f"study {search.name}: {left} of {search.trials} trials to run, each on {len(question.seeds)} seeds, objectives "
        f"{', '.join(question.objectives)}; sampler {search.sampler}, pruner {search.pruner}\ntime on {workers} worker(s), "
        f"{question.device}: {time}"
    )


def _search(search: Search, opened: Any, bridge: Bridge, workers: int, console: Console) -> None:
    """Run the trials with a live line: how many are done, the best so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        line = progress.add_task("no value yet", total=search.trials)

        def look(trials: list[Any]) -> None:
            bridge.write(trials)
            done = [trial for trial in counted(opened) if trial.state.is_finished()]
            found = results.ranked(opened, search)
            said = f"best {found[0].values[0]:+.4g} (trial {found[0].number})" if found else "no value yet"
            if found and len(search.directions) > 1:
                said += f", front of {len(opened.best_trials)}"
            progress.update(line, completed=len(done), description=said)

        run(search, workers, look)


def _write(search: Search, opened: Any, sheets: Sequence[Sheet], console: Console) -> Path:
    """Tables and figures into the study's folder, which is returned."""
    out = search.folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    for sheet in sheets:
        (out / f"{sheet.name}.md").write_text(f"# {sheet.title}\n\n{markdown(sheet)}")
        (out / f"{sheet.name}.csv").write_text(as_csv(sheet))
        console.print(f"\n{sheet.title}\n\n{markdown(sheet)}", markup=False, highlight=False, soft_wrap=True)
    drawn = figures.draw(opened, search, out)
    names = ", ".join(path.name for path in drawn if path.suffix == ".png") or "no figure: too few trials"
    console.print(f"written to {out}: {names}", soft_wrap=True, highlight=False)
    return out


def _export(search: Search, best: Any, name: str, console: Console) -> None:
    """Store the winner as an arm, with where it comes from."""
    provenance = {"study": search.name, "trial": best.number, "values": best.values, "params": best.params}
    provenance |= {"identity": identity(search)}
    path = write_arm(search.question.store, name, search.definition.arm(best.params), provenance)
    console.print(f"exported: {path}", soft_wrap=True, highlight=False)
    console.print(f"use it: python -m ablations.run --grid full --arms diffro,rrpo,{name}", highlight=False)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="studies.run")


if __name__ == "__main__":
    main()
