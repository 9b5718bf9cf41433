"""``python -m ablations.regime rate --runs-dir runs``: one step of the rule of ``docs/regime.md``, measured and applied.

A step runs its candidates on vanilla DiffRO (the assay on the oracle too) over development seeds, reads their checkpoints by the
proxy and the tuning judge alone, and prints what the rule chooses. Table and figure go into ``regime/`` of the runs folder. It
changes no constant: what is chosen is committed by hand, into the profile, before the next step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console

from ablations.commands import Device, RunsDir, Workers, end_if_failed, refusing, say, start
from ablations.errors import choose
from ablations.execution import environment
from ablations.execution.building import build
from ablations.execution.estimate import Estimator
from ablations.execution.request import worker_count
from ablations.execution.runs_folder import check
from ablations.grids import CONTROLS, RM_DATA_SIZES, arms
from ablations.judges import tuning
from ablations.outcomes import clean, flagged, same
from ablations.run import WIDTH
from ablations.stats.statistics import Interval, at_passage, in_points, t_interval
from rrpo.arms import BASE
from rrpo.config import ArmConfig
from rrpo.pipeline import dataflow
from rrpo.profiles import EMBEDDED, Profile

if TYPE_CHECKING:
    import pandas as pd

SEEDS = range(1000, 1005)
"""Development seeds."""
CHECKPOINTS = (0, 20, 40, 60, 90, 120, 160, 200, 240, 300, 360, 420, 480)
"""Updates at which a candidate is looked at, as far as it goes."""
PROMPTS = 200
"""Evaluation prompts at each."""
GENTLE_KL, KEPT = 0.25, 0.9
"""Nats a token at which rates are compared, and the share of the best gain that a candidate must have there."""
PHONES = 2.0
"""Most phone errors, times SFT's."""
SATED, LONGER, MOST = 0.95, 1.5, 480
"""Proxy accuracy, by how much working pressure outlasts it, and most updates."""
WINDOW = 0.08
"""Least width of the assay's window."""
Verdict = tuple[str, list[str]]
"""What the rule says (the candidate chosen, empty for none), and the measurements of each."""
VANILLA, ORACLE = "vanilla", "oracle"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Step:
    """One step of the rule."""

    candidates: Callable[[], Mapping[str, ArmConfig]]
    """By name; the step's other constants are the profile's own."""
    rule: Callable[[pd.DataFrame], Verdict]
    """Applied to a table with a row a candidate, seed and checkpoint: ``candidate, seed, step, rollouts, kl_token, proxy, gold,
    clean, hacked, artefacts, phone_errors``; gold is the tuning judge."""


def _gentle() -> ArmConfig:
    """Vanilla as step 1 pushes it."""
    return replace(arms()[BASE], steps=240, beta=0.003, content_weight=0.5, batch=32, schedule="constant")


def rates() -> dict[str, ArmConfig]:
    """Learning rate x relaxation."""
    return {
        f"{lr:g}, {relaxation}": replace(_gentle(), lr=lr, relaxation=relaxation)
        for lr in (1e-4, 2e-4, 5e-4, 1e-3)
        for relaxation in ("gumbel", "probabilities")
    }


def refinements() -> dict[str, ArmConfig]:
    """Schedule and batch at the profile's own rate."""
    return {
        "constant, batch of 32": _gentle(),
        "cosine schedule": replace(_gentle(), schedule="cosine"),
        "batch of 64": replace(_gentle(), batch=64),
    }


def contents() -> dict[str, ArmConfig]:
    """Content weight at the profile's own rate, schedule and batch."""
    asked = replace(arms()[BASE], steps=240, beta=0.003)
    return {f"{weight:g}": replace(asked, content_weight=weight) for weight in (0.25, 0.5, 1.0, 2.0)}


def pressures() -> dict[str, ArmConfig]:
    """Vanilla at the profile's own rate and content weight, for as long as it may go."""
    return {VANILLA: replace(arms()[BASE], steps=MOST, beta=0.003)}


def assays() -> dict[str, ArmConfig]:
    """The reward model's data, for vanilla, and the oracle; most data first."""
    few = {
        f"{utterances} of {speakers}, {annotated}": replace(
            arms()[BASE], rm_utterances=utterances, rm_speakers=speakers, annotated=annotated
        )
        for utterances, speakers, annotated in RM_DATA_SIZES
    }
    return few | {ORACLE: arms()[ORACLE]}


class Gentle(NamedTuple):
    """A candidate where its KL first reaches `GENTLE_KL`, over the seeds that get there."""

    gain: Interval
    """In proxy accuracy since SFT."""
    rollouts: Interval
    """Until then."""
    seeds: int
    """All that were run; ``gain.n`` of them get there."""

    @property
    def arrivals(self) -> str:
        """How many seeds get there, in words."""
        return f"{self.gain.n} of {self.seeds} seeds get there"


def gentle(rows: pd.DataFrame) -> Gentle:
    """Proxy gain and roll-outs of one candidate at `GENTLE_KL`."""
    runs = by_seed(rows)
    gains = [at_passage(run["kl_token"], run["proxy"] - run["proxy"].iloc[0], GENTLE_KL) for run in runs]
    spent = [at_passage(run["kl_token"], run["rollouts"], GENTLE_KL) for run in runs]
    return Gentle(t_interval(gains), t_interval(spent), len(runs))


def by_seed(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """One candidate's runs, each from its first checkpoint on."""
    return [run.sort_values("step") for _, run in rows.groupby("seed")]


def gentlest(table: pd.DataFrame) -> Verdict:
    """Rule 1: of the candidates with 90 % of the best proxy gain at .25 nats, the one that is there in the fewest roll-outs."""
    gains, cost, said = {}, {}, []
    for name, rows in table.groupby("candidate", sort=False):
        found = gentle(rows)
        gain, spent = in_points(found.gain), found.rollouts.mean
        said.append(f"{name}: {found.arrivals}; proxy gain {gain} points, {spent:.0f} roll-outs")
        if 2 * found.gain.n > found.seeds:
            gains[str(name)], cost[str(name)] = found.gain.mean, spent
    good = [name for name, gain in gains.items() if gain >= KEPT * max(gains.values())]
    return min(good, key=lambda name: cost[name], default=""), said


class Peak(NamedTuple):
    """A candidate where gold is at its highest, means over seeds."""

    gold: float
    """There."""
    step: float
    """Updates until then."""
    phone_errors: float
    """There, times SFT's."""


def peak(rows: pd.DataFrame) -> Peak:
    """One candidate where gold is at its highest."""
    mean = rows.groupby("step", as_index=False)[["gold", "phone_errors"]].mean()
    best = mean.iloc[int(mean["gold"].to_numpy().argmax())]
    return Peak(best["gold"], best["step"], best["phone_errors"] / mean["phone_errors"].iloc[0])


def lightest(table: pd.DataFrame) -> Verdict:
    """Rule 2: the smallest weight at which the phone errors, where gold is at its highest, are at most twice SFT's."""
    chosen, said = "", []
    for name, rows in table.groupby("candidate", sort=False):
        best = peak(rows)
        gold = f"gold {100 * best.gold:.1f} % at update {best.step:.0f}"
        said.append(f"{name}: {gold}, where the phone errors are {best.phone_errors:.2f} times SFT's")
        if not chosen and best.phone_errors <= PHONES:
            chosen = str(name)
    return chosen, said


def working(table: pd.DataFrame) -> Verdict:
    """Rule 3: 1.5 times the updates to a proxy of .95, mean over seeds; one that never gets there counts as 480."""
    runs = by_seed(table)
    needed = [at_passage(run["proxy"], run["step"], SATED) for run in runs]
    counted = [MOST if updates != updates else updates for updates in needed]
    updates = min(MOST, round(LONGER * sum(counted) / len(counted)))
    never = sum(updates != updates for updates in needed)
    return str(updates), [
        f"proxy {SATED:g} after {sum(counted) / len(counted):.0f} updates on average, {never} of {len(runs)} seeds never"
    ]


def ends(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """First and last checkpoint, by candidate and seed."""
    steps = table["step"]
    first, last = (table[steps == step].set_index(["candidate", "seed"]) for step in (0, steps.max()))
    return first, last


def opening(table: pd.DataFrame, name: str) -> tuple[Interval, float]:
    """At the end: the oracle's gold minus a candidate's, paired by seed, and the candidate's phone errors, times SFT's."""
    first, last = ends(table)
    window = t_interval(last.xs(ORACLE)["gold"] - last.xs(name)["gold"])
    return window, last.xs(name)["phone_errors"].mean() / first.xs(name)["phone_errors"].mean()


def widest(table: pd.DataFrame) -> Verdict:
    """Rule 4: most data at which oracle minus vanilla is 8 points or more, above 0, with the speech intact; else the widest."""
    windows, said, chosen = {}, [], ""
    for name in dict.fromkeys(table["candidate"]):
        if name == ORACLE:
            continue
        window, phones = opening(table, name)
        said.append(f"{name}: window {in_points(window)} points, phone errors {phones:.2f} x SFT's")
        windows[str(name)] = window.mean
        if not chosen and window.mean >= WINDOW and window.low > 0 and phones <= PHONES:
            chosen = str(name)
    if not chosen:
        said.append("no candidate opens the window: the widest is taken, and that is the finding")
    return chosen or max(windows, key=lambda name: windows[name]), said


def controls() -> dict[str, ArmConfig]:
    """What distance and content alone do, beside vanilla; at the profile's own pressure."""
    return {name: arms()[name] for name in (*CONTROLS, BASE)}


def standing(table: pd.DataFrame) -> Verdict:
    """Rule 6: no control's interval of the change from SFT lies wholly above 0, in gold or in clean success."""
    failed, told = [], []
    for name, rows in table.groupby("candidate", sort=False):
        runs = [run.sort_values("step") for _, run in rows.groupby("seed")]
        for column, label in (("gold", "gold"), ("clean", "clean success")):
            change = t_interval([run[column].iloc[-1] - run[column].iloc[0] for run in runs])
            told.append(f"{name!s}: {label} {in_points(change)} points from SFT's")
            if name in CONTROLS and change.low > 0:
                failed.append(f"{name!s} ends above SFT in {label}")
    return f"the regime fails: {', '.join(failed)}" if failed else "both controls hold", told


STEPS = {
    "rate": Step(rates, gentlest),
    "refine": Step(refinements, gentlest),
    "content": Step(contents, lightest),
    "pressure": Step(pressures, working),
    "assay": Step(assays, widest),
    "controls": Step(controls, standing),
}
"""In the order of the rule."""


@app.command()
def command(
    step: Annotated[str, typer.Argument(help=f"Which step: {', '.join(STEPS)}.")],
    device: Device = "auto",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure one step of the choice of the regime, and say what its rule chooses."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    with refusing():
        asked = STEPS[choose("step", step, STEPS)]
        folder = check(runs_dir)
        machine = environment.resolve_device(device)
        count = worker_count(workers, machine)
    folder.make()
    profile = measuring(EMBEDDED)
    candidates = asked.candidates()
    stages = [dataflow.assessed(profile, arm, seed) for seed in SEEDS for arm in candidates.values()]
    end_if_failed(build(stages, folder, Estimator(folder.root, machine), count, console), console)
    table = measured(candidates, profile, folder.root)
    out = folder.root / "regime"
    out.mkdir(exist_ok=True)
    table.to_csv(out / f"{step}.csv", index=False)
    draw(table, out, step)
    chosen, said = asked.rule(table)
    for line in said:
        say(console, line)
    say(console, f"By the rule: {chosen or 'nothing'}. Table and figure: {out}")


def measuring(profile: Profile) -> Profile:
    """The profile, looked at more often and with fewer prompts."""
    prompts = min(PROMPTS, profile.eval_prompts)
    optimize = replace(profile.optimize, checkpoints=CHECKPOINTS, eval_prompts=prompts, final_prompts=prompts)
    return replace(profile, optimize=optimize)


def measured(
    candidates: Mapping[str, ArmConfig], profile: Profile, store: Path, seeds: Sequence[int] = SEEDS
) -> pd.DataFrame:
    """What `Step.rule` reads, of finished stages."""
    import pandas as pd

    tables = []
    for name, arm in candidates.items():
        for seed in seeds:
            optimized = dataflow.optimized(profile, arm, seed)
            points = pd.read_parquet(optimized.path(store) / "points.parquet").set_index("step")
            samples = pd.read_parquet(dataflow.assessed(profile, arm, seed).path(store) / "samples.parquet")
            run = by_checkpoint(samples).assign(
                kl_token=points["kl_token"], proxy=points["proxy_accuracy"], gold=points[tuning().accuracy]
            )
            run = run.assign(candidate=name, seed=seed, rollouts=run.index * optimized.config.batch)
            tables.append(run.reset_index())
    return pd.concat(tables, ignore_index=True)


def by_checkpoint(samples: pd.DataFrame) -> pd.DataFrame:
    """``clean``, ``hacked``, ``artefacts`` (any kind) and ``phone_errors`` (a phone) of each step of a table of samples."""
    import pandas as pd

    found, marked = clean(samples, tuning()), flagged(samples)
    assert found is not None
    assert marked is not None
    hacked = np.where(same(samples, "proxy", "target"), ~found[0], np.nan)
    columns = {
        "clean": found[0],
        "hacked": hacked,
        "artefacts": marked,
        "errors": samples["phone_errors"],
        "phones": samples["phones"],
    }
    by_step = pd.DataFrame(columns).groupby(samples["step"].to_numpy()).mean()
    by_step["phone_errors"] = by_step.pop("errors") / by_step.pop("phones")
    return by_step.rename_axis("step")


def draw(table: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Proxy, gold, clean success, artefacts and phone errors against sqrt(KL), a colour a candidate, seeds thin."""
    from ablations.rendering.figure_style import WIDE, figure_of, save

    shown = {
        "proxy": "proxy",
        "gold": "gold",
        "clean": "clean success",
        "artefacts": "artefacts",
        "phone_errors": "phone errors",
    }
    names = list(dict.fromkeys(table["candidate"]))
    with figure_of(WIDE, 4.2, 2, 3) as (figure, axes):
        for axis, (column, title) in zip(axes, shown.items(), strict=False):
            for place, candidate in enumerate(names):
                rows = table[table["candidate"] == candidate]
                colour = f"C{place % 10}"
                for _, run in rows.groupby("seed"):
                    axis.plot(run["kl_token"].clip(lower=0) ** 0.5, run[column], color=colour, lw=0.4, alpha=0.5)
                mean = rows.groupby("step")[["kl_token", column]].mean()
                axis.plot(mean["kl_token"].clip(lower=0) ** 0.5, mean[column], color=colour, lw=1.4, label=candidate)
            axis.set(title=title, xlabel="√KL, √nats a token", ylim=(0, max(1.0, table[column].max())))
        axes[-1].axis("off")
        axes[-1].legend(
            *axes[0].get_legend_handles_labels(), frameon=False, loc="center", title="mean of seeds (thick)"
        )
        return save(figure, folder, name)


def main() -> None:
    """Entry point of the console script."""
    start(app, "ablations.regime")


if __name__ == "__main__":
    main()
