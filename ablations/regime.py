"""``python -m ablations.regime rate --runs-dir runs``: measure one step of the rule of ``docs/regime.md`` and apply the rule.

A step runs its candidates with vanilla DiffRO (the assay also with the oracle) on development seeds, evaluates their checkpoints
with only the proxy and the tuning judge, and prints the candidate that the rule chooses. It writes a table and a figure to
``regime/`` in the runs folder. It changes no constant: the choice is committed by hand, in the profile, before the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import typer

from ablations.commands import Device, RunsDir, Workers, print_line, terminal
from ablations.execution.building import Builder
from ablations.grids import CONTROLS, DEVELOPMENT, RM_DATA_SIZES, arms
from ablations.judges import tuning
from ablations.outcomes import clean, flagged, same
from ablations.stats.statistics import Interval, at_passage, in_points, t_interval
from ablations.tracking.records import POINTS_FILE, SAMPLES_FILE
from rrpo.arms import BASE
from rrpo.commands import program
from rrpo.config import ArmConfig
from rrpo.errors import choose
from rrpo.experiment import dataflow, measurements
from rrpo.profiles import EMBEDDED, Profile

if TYPE_CHECKING:
    import pandas as pd

SEEDS = range(DEVELOPMENT, DEVELOPMENT + 5)
"""Development seeds."""
CHECKPOINTS = (0, 20, 40, 60, 90, 120, 160, 200, 240, 300, 360, 420, 480)
"""Updates at which a candidate is evaluated, up to its own number of updates."""
PROMPTS = 200
"""Evaluation prompts per checkpoint."""
GENTLE_KL, GAIN_SHARE = 0.25, 0.9
"""KL at which rates are compared (nats per token), and the fraction of the best proxy gain that a candidate must reach there."""
PHONES = 2.0
"""Maximum phone errors, as a multiple of SFT's."""
SATURATED_PROXY, PRESSURE_FACTOR, MOST = 0.95, 1.5, 480
"""Working pressure: `PRESSURE_FACTOR` times the updates until proxy accuracy `SATURATED_PROXY`, at most `MOST` updates."""
WINDOW = 0.08
"""Minimum width of the assay's window, as a fraction."""
Verdict = tuple[str, list[str]]
"""(result of the rule: the chosen candidate, empty if none; measurements of each candidate as readable lines)."""
VANILLA, ORACLE = "vanilla", "oracle"
app, main = program("ablations.regime")


@dataclass(frozen=True)
class Step:
    """One step of the rule."""

    candidates: Callable[[], Mapping[str, ArmConfig]]
    """Returns the candidates by name; all constants that they do not set are the profile's."""
    rule: Callable[[pd.DataFrame], Verdict]
    """Applies the rule to a table with one row per candidate, seed and checkpoint, and columns ``candidate, seed, step, rollouts,
    kl_token, proxy, gold, clean, hacked, artefacts, phone_errors``. Here gold is the tuning judge."""


def _gentle() -> ArmConfig:
    """Return vanilla DiffRO with the pressure, batch size and schedule of step 1."""
    return replace(arms()[BASE], steps=240, beta=0.003, content_weight=0.5, batch=32, schedule="constant")


def rates() -> dict[str, ArmConfig]:
    """Return the candidates of the step ``rate``: learning rate x relaxation."""
    return {
        f"{lr:g}, {relaxation}": replace(_gentle(), lr=lr, relaxation=relaxation)
        for lr in (1e-4, 2e-4, 5e-4, 1e-3)
        for relaxation in ("gumbel", "probabilities")
    }


def refinements() -> dict[str, ArmConfig]:
    """Return the candidates of the step ``refine``: schedule and batch size, at the profile's learning rate."""
    return {
        "constant, batch of 32": _gentle(),
        "cosine schedule": replace(_gentle(), schedule="cosine"),
        "batch of 64": replace(_gentle(), batch=64),
    }


def contents() -> dict[str, ArmConfig]:
    """Return the candidates of the step ``content``: content weight, at the profile's learning rate, schedule and batch size."""
    base = replace(arms()[BASE], steps=240, beta=0.003)
    return {f"{weight:g}": replace(base, content_weight=weight) for weight in (0.25, 0.5, 1.0, 2.0)}


def pressures() -> dict[str, ArmConfig]:
    """Return the candidate of the step ``pressure``: vanilla with the profile's rate and content weight, for `MOST` updates."""
    return {VANILLA: replace(arms()[BASE], steps=MOST, beta=0.003)}


def assays() -> dict[str, ArmConfig]:
    """Return the candidates of the step ``assay``: vanilla with each size of reward-model data, largest first, and the oracle."""
    data_sizes = {
        f"{utterances} of {speakers}, {annotated}": replace(
            arms()[BASE], rm_utterances=utterances, rm_speakers=speakers, annotated=annotated
        )
        for utterances, speakers, annotated in RM_DATA_SIZES
    }
    return data_sizes | {ORACLE: arms()[ORACLE]}


class Gentle(NamedTuple):
    """A candidate at the point where its KL first reaches `GENTLE_KL`, over the seeds that reach it."""

    gain: Interval
    """Gain in proxy accuracy since SFT."""
    rollouts: Interval
    """Number of roll-outs until that point."""
    seeds: int
    """Number of seeds that were run; ``gain.n`` of them reach the point."""

    @property
    def arrivals(self) -> str:
        """Number of seeds that reach the point, as text."""
        return f"{self.gain.n} of {self.seeds} seeds get there"


def measure_gentle(rows: pd.DataFrame) -> Gentle:
    """Return the proxy gain and the roll-outs of one candidate at `GENTLE_KL`."""
    runs = by_seed(rows)
    gains = [at_passage(run["kl_token"], run["proxy"] - run["proxy"].iloc[0], GENTLE_KL) for run in runs]
    spent = [at_passage(run["kl_token"], run["rollouts"], GENTLE_KL) for run in runs]
    return Gentle(t_interval(gains), t_interval(spent), len(runs))


def by_candidate(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return candidate -> its rows, in the table's order."""
    return {str(name): rows for name, rows in table.groupby("candidate", sort=False)}


def by_seed(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return one candidate's runs, one table per seed, sorted by checkpoint."""
    return [run.sort_values("step") for _, run in rows.groupby("seed")]


def choose_rate(table: pd.DataFrame) -> Verdict:
    """Apply rule 1: of the candidates with 90 % of the best proxy gain or more at .25 nats, choose that with fewest roll-outs.

    A candidate counts only if more than half of its seeds reach .25 nats.
    """
    gains, cost, lines = {}, {}, []
    for name, rows in by_candidate(table).items():
        gentle = measure_gentle(rows)
        gain, spent = in_points(gentle.gain), gentle.rollouts.mean
        lines.append(f"{name}: {gentle.arrivals}; proxy gain {gain} points, {spent:.0f} roll-outs")
        if 2 * gentle.gain.n > gentle.seeds:
            gains[name], cost[name] = gentle.gain.mean, spent
    eligible = [name for name, gain in gains.items() if gain >= GAIN_SHARE * max(gains.values())]
    return min(eligible, key=lambda name: cost[name], default=""), lines


class Peak(NamedTuple):
    """A candidate at the checkpoint with its highest gold, averaged over seeds."""

    gold: float
    """Gold at that checkpoint."""
    step: float
    """Updates until that checkpoint."""
    phone_errors: float
    """Phone errors at that checkpoint, as a multiple of SFT's."""


def peak(rows: pd.DataFrame) -> Peak:
    """Return one candidate's peak of gold."""
    mean = rows.groupby("step", as_index=False)[["gold", "phone_errors"]].mean()
    best = mean.iloc[int(mean["gold"].to_numpy().argmax())]
    return Peak(best["gold"], best["step"], best["phone_errors"] / mean["phone_errors"].iloc[0])


def choose_content_weight(table: pd.DataFrame) -> Verdict:
    """Apply rule 2: choose the smallest weight for which the phone errors, at the peak of gold, are at most twice SFT's."""
    chosen, lines = "", []
    for name, rows in by_candidate(table).items():
        best = peak(rows)
        gold = f"gold {100 * best.gold:.1f} % at update {best.step:.0f}"
        lines.append(f"{name}: {gold}, where the phone errors are {best.phone_errors:.2f} times SFT's")
        if not chosen and best.phone_errors <= PHONES:
            chosen = name
    return chosen, lines


def choose_updates(table: pd.DataFrame) -> Verdict:
    """Apply rule 3: 1.5 times the mean updates until proxy accuracy .95, at most 480.

    A seed that never reaches .95 counts as 480.
    """
    runs = by_seed(table)
    needed = [at_passage(run["proxy"], run["step"], SATURATED_PROXY) for run in runs]
    counted = [MOST if updates != updates else updates for updates in needed]  # NaN: never reached
    updates = min(MOST, round(PRESSURE_FACTOR * sum(counted) / len(counted)))
    unreached = sum(updates != updates for updates in needed)
    average = f"proxy {SATURATED_PROXY:g} after {sum(counted) / len(counted):.0f} updates on average"
    return str(updates), [f"{average}; {unreached} of {len(runs)} seeds never reach it"]


def ends(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the first and the last checkpoint, each indexed by candidate and seed."""
    steps = table["step"]
    first, last = (table[steps == step].set_index(["candidate", "seed"]) for step in (0, steps.max()))
    return first, last


def measure_window(table: pd.DataFrame, name: str) -> tuple[Interval, float]:
    """Return a candidate's window and phone errors at the last checkpoint.

    The window is the oracle's gold minus the candidate's, paired by seed; the phone errors are a multiple of SFT's.
    """
    first, last = ends(table)
    window = t_interval(last.xs(ORACLE)["gold"] - last.xs(name)["gold"])
    return window, last.xs(name)["phone_errors"].mean() / first.xs(name)["phone_errors"].mean()


def choose_data_size(table: pd.DataFrame) -> Verdict:
    """Apply rule 4: choose the largest data size whose window is at least 8 points.

    The window's interval must lie above 0, and the phone errors must be at most twice SFT's. If no candidate qualifies, choose
    the one with the widest window.
    """
    windows, lines, chosen = {}, [], ""
    for name in (name for name in by_candidate(table) if name != ORACLE):
        window, phones = measure_window(table, name)
        lines.append(f"{name}: window {in_points(window)} points, phone errors {phones:.2f} x SFT's")
        windows[name] = window.mean
        if not chosen and window.mean >= WINDOW and window.low > 0 and phones <= PHONES:
            chosen = name
    if not chosen:
        lines.append("no candidate opens the window: the widest is taken, and that is the finding")
    return chosen or max(windows, key=lambda name: windows[name]), lines


def controls() -> dict[str, ArmConfig]:
    """Return the candidates of the step ``controls``: the controls, and vanilla for comparison, at the profile's own pressure.

    The controls show the effect of KL distance alone and of the content reward alone.
    """
    return {name: arms()[name] for name in (*CONTROLS, BASE)}


def check_controls(table: pd.DataFrame) -> Verdict:
    """Apply rule 6: for no control may the interval of the change from SFT lie entirely above 0, in gold or in clean success."""
    failed, lines = [], []
    for name, rows in by_candidate(table).items():
        runs = by_seed(rows)
        for column, label in (("gold", "gold"), ("clean", "clean success")):
            change = t_interval([run[column].iloc[-1] - run[column].iloc[0] for run in runs])
            lines.append(f"{name}: {label} {in_points(change)} points from SFT's")
            if name in CONTROLS and change.low > 0:
                failed.append(f"{name} ends above SFT in {label}")
    return f"the regime fails: {', '.join(failed)}" if failed else "both controls hold", lines


STEPS = {
    "rate": Step(rates, choose_rate),
    "refine": Step(refinements, choose_rate),
    "content": Step(contents, choose_content_weight),
    "pressure": Step(pressures, choose_updates),
    "assay": Step(assays, choose_data_size),
    "controls": Step(controls, check_controls),
}
"""Steps in the order of the rule."""


@app.command()
def command(
    step: Annotated[str, typer.Argument(help=f"Step to measure: {', '.join(STEPS)}.")],
    device: Device = "auto",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure one step of choosing the training regime, and print the rule's choice."""
    console = terminal()
    selected = STEPS[choose("step", step, STEPS)]
    builder = Builder.of(device, workers, runs_dir, console)
    builder.folder.make()
    store = builder.folder.root
    profile = measuring(EMBEDDED)
    candidates = selected.candidates()
    stages = [measurements.assessed(profile, arm, seed) for seed in SEEDS for arm in candidates.values()]
    builder.require(stages)
    table = measured(candidates, profile, store)
    out = store / "regime"
    out.mkdir(exist_ok=True)
    table.to_csv(out / f"{step}.csv", index=False)
    draw(table, out, step)
    chosen, lines = selected.rule(table)
    for line in lines:
        print_line(console, line)
    print_line(console, f"The rule chooses: {chosen or 'nothing'}. Table and figure: {out}")


def measuring(profile: Profile) -> Profile:
    """Return the profile with more checkpoints and fewer evaluation prompts."""
    prompts = min(PROMPTS, profile.eval_prompts)
    optimize = replace(profile.optimize, checkpoints=CHECKPOINTS, eval_prompts=prompts, final_prompts=prompts)
    return replace(profile, optimize=optimize)


def measured(
    candidates: Mapping[str, ArmConfig], profile: Profile, store: Path, seeds: Sequence[int] = SEEDS
) -> pd.DataFrame:
    """Return the table that `Step.rule` reads, from finished stages."""
    import pandas as pd

    tables = []
    for name, arm in candidates.items():
        for seed in seeds:
            optimized = dataflow.optimized(profile, arm, seed)
            points = pd.read_parquet(optimized.path(store) / POINTS_FILE).set_index("step")
            samples = pd.read_parquet(measurements.assessed(profile, arm, seed).path(store) / SAMPLES_FILE)
            run = by_checkpoint(samples).assign(
                kl_token=points["kl_token"], proxy=points["proxy_accuracy"], gold=points[tuning().accuracy]
            )
            run = run.assign(candidate=name, seed=seed, rollouts=run.index * optimized.config.batch)
            tables.append(run.reset_index())
    return pd.concat(tables, ignore_index=True)


def by_checkpoint(samples: pd.DataFrame) -> pd.DataFrame:
    """Summarize samples by step: the shares ``clean``, ``hacked`` and ``artefacts`` (any kind), and ``phone_errors`` per phone.

    ``hacked`` is a share of the samples with the proxy's argmax on target.
    """

    masks, flags = clean(samples, tuning()), flagged(samples)
    assert masks is not None
    hacked = np.where(same(samples, "proxy", "target"), ~masks[0], np.nan)
    shares = samples.assign(clean=masks[0], hacked=hacked, artefacts=flags).groupby("step")
    by_step = shares[["clean", "hacked", "artefacts"]].mean()
    phones = shares[["phone_errors", "phones"]].mean()
    return by_step.assign(phone_errors=phones["phone_errors"] / phones["phones"])


def draw(table: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Plot proxy, gold, clean success, artefacts and phone errors against sqrt(KL). Thin lines are seeds."""
    from ablations.rendering.figure_style import BLUE, GREEN, PURPLE, VERMILION, WIDE, figure_of, percent, save

    styles = [(color, line) for line in ("-", "--", ":") for color in ("black", BLUE, VERMILION, GREEN, PURPLE)]
    titles = {name: name.replace("_", " ") for name in ("proxy", "gold", "clean", "artefacts", "phone_errors")}
    with figure_of(WIDE, 4.2, 2, 3) as (figure, axes):
        for axis, (column, title) in zip(axes, (titles | {"clean": "clean success"}).items(), strict=False):
            for (candidate, rows), (color, line) in zip(by_candidate(table).items(), cycle(styles), strict=False):
                mean = rows.groupby("step")[["kl_token", column]].mean()
                for run, width, label in (*((run, 0.4, None) for run in by_seed(rows)), (mean, 1.4, candidate)):
                    x = run["kl_token"].clip(lower=0) ** 0.5
                    axis.plot(x, run[column], color=color, ls=line, lw=width, label=label)
            axis.set(title=title, xlabel="√KL (√nats per token)", ylim=(0, max(1.0, table[column].max())))
            axis.yaxis.set_major_formatter(percent)
        axes[-1].axis("off")
        legend = axes[0].get_legend_handles_labels()
        axes[-1].legend(*legend, frameon=False, loc="center", title="mean of seeds (thick)")
        return save(figure, folder, name)


if __name__ == "__main__":
    main()
