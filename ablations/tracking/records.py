"""The schema of a cell's record: the files that hold its numbers, and the tags of its run.

MLflow shows a few metrics (`METRICS`); the run's artifacts hold everything. ``docs/mlflow.md`` says what each number means.

- *Scalars*: one float per cell (``scalars.json``).
- *Curves*: one row per training step (``curves.parquet``).
- *Samples*: one row per sample (``samples.parquet``).
- *Points*: one row per stored checkpoint of the optimization, measured by the proxy and the `val` judge (``points.parquet``), by
  the held-out `test` judges (``test_points.parquet``), and by an optional listener or a plugin's judge
  (``phonetics_points.parquet``, ...).

This module imports no other module of the project.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"
SCALARS_FILE = "scalars.json"
"""All scalars; those of optional stages are in the same folder, ``scalars.<roles>.json``."""
CURVES_FILE = "curves.parquet"
POINTS_FILE = "points.parquet"
TEST_POINTS_FILE = "test_points.parquet"
SAMPLES_FILE = "samples.parquet"
OPTIMIZED = "optimized"
"""Role of the policy optimization in a cell, and folder with its stage's marker."""
LISTENERS = ("phonetics", "voice", "naturalness", "whisper", "hama")
"""Optional evaluators of vocoded samples, used if their packages are installed. Files: ``<listener>_points.parquet`` and
``<listener>_samples.parquet``."""
JUDGING = {"phonetics": ("third", "third_logprob")}
"""Listener that contains a judge of emotion -> the judge's columns in the listener's table of samples."""
KEYS = ("step", "prompt")
"""Columns by which tables of samples are joined."""
TRANSFER_FILE = "transfer.parquet"
"""Artifact of a ``transfer`` run (`TAG_KIND`), which compares the arms of one seed and is not a cell's run. Columns:
``samples_of, judged_by, accuracy, logprob, confidence, start_accuracy``; the last is the same reward model's accuracy on the
SFT policy's samples."""
TRANSFER_CELL = "cell."
"""Prefix of a ``transfer`` run's params, arm -> hash of the compared cell."""

TRAIN, EVALUATION = "train/", "evaluation/"
"""Prefixes of the metrics by step: for columns of ``curves.parquet``, and for columns of the two tables of points."""
KL_AXIS = f"{TRAIN}kl_rounded"
"""Metric used as the x-axis of charts. It is rounded because MLflow averages the seeds of an arm only at equal x."""
KL_STEP = 0.05
"""Rounding step of `KL_AXIS`, nats per token."""

METRICS = (
    *("clean_success", "end_test_accuracy", "peak_test_accuracy", "end_proxy_accuracy", "end_hack_rate", "end_uptake"),
    *("end_phone_error_rate", "end_kl_token", "end_diversity"),
    *("rm_accuracy_test", "rm_ece", "rm_smoothness", "rm_pgd_accuracy_0.1", "seconds"),
    *(f"{TRAIN}{name}" for name in ("loss", "kl_token", "kl_rounded", "proxy_accuracy", "val_accuracy", "val_clean")),
    *(f"{EVALUATION}{name}" for name in ("kl_token", "proxy_accuracy", "test_accuracy")),
)
"""A cell's metrics in MLflow; metrics that were not measured are absent. Training curves arrive while the cell runs."""

RATINGS = (
    *("test", "rater", "position", "item", "emotion", "expressiveness", "naturalness"),
    *("plays", "seconds", "automated", "check"),
)
"""Columns of ``ratings.csv``, written by the listening page and stored in a run of kind ``ratings``.

- *test*: id of the listening test;
- *rater*: name of the rater, as entered;
- *position*: position in the rater's own order, from 1;
- *item*: opaque id of the sample; the test's run in MLflow maps it to the sample;
- *emotion*: the perceived emotion, one of the world's (forced choice);
- *expressiveness*, *naturalness*: 1 bad to 5 excellent; E-MOS and N-MOS are their means;
- *plays*: how often the sample was played to the end;
- *seconds*: seconds for which the sample was shown, over all visits that ended with Next or Back;
- *automated*: 1 if a program controlled the browser;
- *check*: CRC-32 of the row and the previous row's check: detects accidents and careless edits, not forgery.
"""

HUMAN: dict[str, str] = {"human_emos": "expressiveness", "human_nmos": "naturalness"}
"""Mean opinion score in reports -> the rating it averages."""

TEXT_LIMIT = 5000
"""Maximum length of a tag in characters; every MLflow backend accepts it."""
EXPERIMENT_WORLD = "world"
"""The MLflow experiment of the worlds' validation reports."""
EXPERIMENT_STUDY = "study "
"""Prefix of the name of a study's experiment."""
EXPERIMENT_ABOUT = "about "
"""Prefix of the name of the experiment for a grid's runs other than cells, which keeps them out of MLflow's table of cells.
Experiments with other names belong to grids."""
INSTALLED = "0"
"""Number of the installed world, as in a record's parameter ``world.seed``; others are built with ``--world``."""
TAG_KIND = "kind"
"""Kind of the run: ``cell``; ``parent`` (an invocation); ``report`` (the newest files of a report); ``listening`` (an exported
listening test with its key); ``ratings`` (one person's ratings in such a test); ``transfer`` (one seed's cross-RM matrix);
``card`` (a validation report of a world); ``study`` and ``trial`` (a search and one of its points)."""
TAG_GRID = "grid"
TAG_ARM = "arm"
TAG_SEED = "seed"
TAG_ARM_HASH = "arm_hash"
TAG_CELL_HASH = "cell_hash"
TAG_WORLD_HASH = "world_hash"
TAG_PROFILE = "profile"
TAG_COMPLETE = "complete"
"""The cell's hash, written last. Only a run with this tag counts as complete."""
TAG_OPTIONAL = "optional"
"""Roles of the optional stages (`rrpo.experiment.cell.Cell.optional`) whose results the run contains, comma-separated."""
TAG_SHA = "git_sha"
TAG_DIRTY = "dirty"
TAG_DIFF = "diff_hash"
"""Hash of the uncommitted changes."""
TAG_CODE = "code"
"""Hash of rrpo's source; for a cell, of the source that built its own stages."""
TAG_DATA_HASH = "data_hash"
"""Hash of all splits and prompt sets that the cell depends on."""
TAG_ENTRY = "entry"
"""Key of the run in the outbox; each key has one run."""
TAG_INVOCATION = "invocation"
"""Key of the invocation to which a run belongs."""
TAG_TEST = "listening_test"
"""Id of a listening test, on its own run and on the runs of its ratings."""
TAG_RATER = "rater"
"""Name of the rater, as entered."""
TAG_PLUGINS = "plugins"
"""Plugin files of the run, as JSON, hash -> name; copies are among its artifacts."""
TAG_COPIED = "copied_from"
"""Grid that first recorded a cell whose record was copied."""
ORIGIN = (TAG_SHA, TAG_DIRTY, TAG_DIFF, TAG_CODE, TAG_DATA_HASH, TAG_OPTIONAL, TAG_PLUGINS, "mlflow.source.git.commit")
"""Tags that a copy of a cell's run keeps."""
TAG_FAILED = "failed"
"""Why a cell's run failed, one line."""
TAG_FAILURE_KIND = "failure_kind"
"""A key of `ablations.failures.KINDS`: ``diverged``, ``bug``, ``oom``, ``killed``, ``disk``, ``refused``."""


def roles(tags: Mapping[str, str]) -> frozenset[str]:
    """Return the roles of the optional results that a run with these tags contains (`TAG_OPTIONAL`)."""
    return frozenset(filter(None, tags.get(TAG_OPTIONAL, "").split(",")))


def added(folder: Path) -> list[str]:
    """Return the optional listeners, then the plugin judges, whose ``<name>_points.parquet`` exists in ``folder``."""
    end = f"_{POINTS_FILE}"
    names = {path.name.removesuffix(end) for path in folder.glob(f"*{end}") if path.name != TEST_POINTS_FILE}
    return [name for name in LISTENERS if name in names] + sorted(names.difference(LISTENERS))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One cell, as reports and summaries read it."""

    label: str
    """Name of the arm."""
    seed: int
    """Seed of the experiment."""
    cell_hash: str = ""
    """Identity of the result. Records are pooled by this hash, so that no result counts twice."""
    arm_hash: str = ""
    """Short hash of the arm's config."""
    world_hash: str = ""
    """Hash of the world: everything that is the same for all seeds and arms."""
    profile: str = ""
    """Name of the profile."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Effective settings of the cell (`rrpo.experiment.effective`) as text."""
    run_id: str = ""
    """Id of the MLflow run."""
    recorded: int = 0
    """Start time of the run, milliseconds since 1970."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the run: git sha, command line, ..."""
    find: Callable[[], Path] = Path
    """Locates the run's artifacts and fetches them if they are on a server. Called when a file is first read."""
    load: Callable[[], Mapping[str, float]] = dict
    """Reads the scalars. Called when one is first read."""

    @property
    def folder(self) -> Path:
        """Folder of the run's artifacts."""
        return self.find()

    @property
    def optional(self) -> frozenset[str]:
        """Roles of the optional stages whose results the record contains."""
        return roles(self.tags)

    @property
    def world(self) -> str:
        """Number of the world, as text (`INSTALLED` or another one); empty if it is not recorded."""
        return self.params.get("world.seed", "")

    @cached_property
    def scalars(self) -> Mapping[str, float]:
        """The cell's scalars by name."""
        return self.load()

    @cached_property
    def config(self) -> Mapping[str, str]:
        """The whole flat config, ``section.field`` -> JSON, read from the run's artifact."""
        path = self.folder / CONFIG_FILE
        return dict(json.loads(path.read_text())) if path.is_file() else self.params

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per training step; empty if the cell has no policy."""
        return self._table(CURVES_FILE)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per checkpoint and stored sample, with the columns of the judges that were added to it (NaN for samples that
        they did not evaluate); may be empty."""
        table = self._table(SAMPLES_FILE)
        for name in added(self.folder):
            if table.empty or (name in LISTENERS and name not in JUDGING):
                continue
            other = self._table(f"{name}_{SAMPLES_FILE}")
            if name in JUDGING:
                other = other[[column for column in (*KEYS, *JUDGING[name]) if column in other.columns]]
            if set(KEYS) <= set(other.columns) & set(table.columns):
                table = table.merge(other, on=list(KEYS), how="left", validate="many_to_one")
        return table

    @cached_property
    def last_samples(self) -> pd.DataFrame:
        """The samples of the last checkpoint."""
        samples = self.samples
        return samples if samples.empty else samples[samples["step"] == samples["step"].max()]

    @cached_property
    def tracked(self) -> pd.DataFrame:
        """The samples of those prompts that were evaluated at every checkpoint; all samples if there are no such prompts.

        The last checkpoint has more prompts than the others, with another mix of emotions, so that changes between checkpoints
        must be read on the prompts that they share.
        """
        samples = self.samples
        if not set(KEYS) <= set(samples.columns):
            return samples
        steps = samples.groupby("prompt")["step"].nunique()
        shared = steps.index[steps == samples["step"].nunique()]
        return samples if len(shared) in (0, len(steps)) else samples[samples["prompt"].isin(shared)]

    @cached_property
    def trajectory(self) -> pd.DataFrame:
        """The points, with accuracies and phone errors on the samples of `tracked` instead of all samples of a checkpoint; the
        other columns, such as KL, are unchanged."""
        rows, points = self.tracked, self.points
        if points.empty or len(rows) == len(self.samples):
            return points
        steps, columns = rows["step"], {}
        for name in (column for column in rows.columns if f"{column}_accuracy" in points.columns):
            heard = rows[name].notna().to_numpy()
            right = heard & (rows[name] == rows["target"]).to_numpy(bool, na_value=False)
            columns[f"{name}_accuracy"] = ratio_by_step(steps, right, heard)
        if {"phone_errors", "phones", "phone_error_rate"} <= {*rows.columns, *points.columns}:
            columns["phone_error_rate"] = ratio_by_step(steps, rows["phone_errors"], rows["phones"])
        return points.assign(**{name: points["step"].map(x).fillna(points[name]) for name, x in columns.items()})

    @cached_property
    def shares(self) -> dict[tuple[str, str, bool], dict[float, float]]:
        """Cache of `ablations.outcomes`: (outcome, judge, whether of `last_samples`) -> step -> share of samples."""
        return {}

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row per checkpoint: the tables of points, joined. Gold's columns take precedence over those of the same name."""
        proxy, gold = self._table(POINTS_FILE), self._table(TEST_POINTS_FILE)
        if proxy.empty or gold.empty:
            return proxy if gold.empty else gold
        shared = [name for name in proxy.columns if name in gold.columns and name != "step"]
        joined = proxy.drop(columns=shared).merge(gold, on="step")
        for name in added(self.folder):
            if not (listener := self._table(f"{name}_{POINTS_FILE}")).empty:
                joined = joined.merge(listener, on="step", how="left")
        return joined.sort_values("step", ignore_index=True)

    def _table(self, name: str) -> pd.DataFrame:
        return read_table(self.folder / name)


def ratio_by_step(steps: ArrayLike, counts: ArrayLike, totals: ArrayLike) -> dict[float, float]:
    """Return step -> sum of ``counts [N]`` / sum of ``totals [N]`` over its samples; NaN for a step whose total is 0."""
    known, index = np.unique(np.asarray(steps), return_inverse=True)
    counts, totals = (np.bincount(index, np.asarray(values, float), len(known)) for values in (counts, totals))
    return {step: count / n if n else math.nan for step, count, n in zip(known, counts, totals, strict=True)}


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet file; empty if there is none."""
    import pandas as pd
    from pyarrow.parquet import ParquetFile  # takes a third of the time of pandas' own reader

    return ParquetFile(path).read(use_threads=False).to_pandas(use_threads=False) if path.is_file() else pd.DataFrame()
