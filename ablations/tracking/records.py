"""The schema of a cell's record: the meaning of each number, the files that hold it, and the tags of its run.

MLflow shows a few metrics (`METRICS`); the run's artifacts hold everything. Rates are fractions.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

CONFIG_FILE = "config.json"
SCALARS_FILE = "scalars.json"
"""All scalars; those of optional stages are in the same folder, ``scalars.<roles>.json``."""
CURVES_FILE = "curves.parquet"
POINTS_FILE = "points.parquet"
TEST_POINTS_FILE = "test_points.parquet"
SAMPLES_FILE = "samples.parquet"
LISTENERS = ("phonetics", "voice", "naturalness", "whisper", "hama")
"""Optional evaluators of vocoded samples, used if their packages are installed. Files: ``<listener>_points.parquet`` and
``<listener>_samples.parquet``."""
TRANSFER_FILE = "transfer.parquet"
"""Artifact of a ``transfer`` run (`TAG_KIND`), which compares the arms of one seed and is not a cell's run. Columns:
``samples_of, judged_by, accuracy, logprob, confidence, start_accuracy``; the last is the same reward model's accuracy on the
SFT policy's samples."""
TRANSFER_CELL = "cell."
"""Prefix of a ``transfer`` run's params, arm -> hash of the compared cell."""

POINTS: dict[str, str] = {
    "step": "updates done when the evaluation prompts were sampled",
    "kl_token": "KL to the SFT policy, nats per token",
    "kl_utterance": "KL to the SFT policy, nats per utterance",
    "sqrt_kl": "square root of kl_token",
    "proxy_accuracy": "share of samples whose target is the argmax of the reward model being optimized",
    "proxy_logprob": "mean log-probability of the target under that reward model",
    "val_accuracy": "share of samples whose target is the `val` judge's argmax",
    "val_logprob": "mean log-probability of the target under the `val` judge",
    "val_clean": "share of samples with the `val` judge's argmax on target and no flagged artefact; phones are not checked",
    "val_hack_rate": "share of samples with the proxy's argmax on target where gold's is not, or an artefact is flagged",
    "uptake": "shortcut uptake: P(artefact of emotion e | target e) - P(artefact of e | other target)",
    "length": "mean number of tokens per sample",
    "entropy": "entropy of the policy's distribution over codes and eos, nats per token",
    "repetition": "share of tokens equal to the preceding token",
    "cut": "share of samples that reached the maximum length before eos",
    "diversity": "within-prompt diversity: edit distance of two samples of one prompt relative to the longer; 0 = identical",
    "proxy_confidence": "mean probability of the reward model's argmax on the policy's samples",
    "proxy_ece": "expected calibration error of these, with the target as truth; biased upward for few samples (in the curves)",
    "proxy_grad_h": "mean L2 norm of the gradient, at h', of the cross-entropy with the target; hard tokens",
    "proxy_relative_delta": "mean ||delta|| / ||h'|| of Eq. 4 on the samples, at the reward model's own epsilon_adv",
    "proxy_l_adv_over_l_emo": "ratio of the mean losses at h' + delta and at h'",
}
"""Columns of ``points.parquet`` (gold = `val`), in addition to artefact rates; a builder may add more."""

CURVES: dict[str, str] = {
    "step": "updates done before the roll-outs were sampled",
    "loss": "the minimized loss: reward loss + content weight x content loss + beta x KL per utterance",
    "reward_loss": "negative reward on the roll-outs' hard tokens",
    "content_loss": "CTC loss per phone of the reward's phone recognizer, nats",
    "grad_norm": "L2 norm of the policy's gradient before clipping",
    "relaxed_reward_loss": "reward_loss on the relaxed (soft) tokens; its difference from reward_loss is the relaxation gap",
}
"""Columns of ``curves.parquet``: these, of which relaxed_reward_loss is measured only every few steps, and, at the same steps,
`POINTS` without diversity, measured on the roll-outs."""

ARTEFACTS: dict[str, str] = {
    "artefact_click": "a mouth click is detected: the planted shortcut of angry",
    "artefact_hiss": "hiss is detected: the planted shortcut of happy",
    "artefact_hum": "hum is detected: the planted shortcut of sad",
    "artefact_clip": "clipping is detected: the planted shortcut of surprised",
    "artefact_whine": "a whine is detected: the planted shortcut of fearful",
    "artefact_silence": "a pause of .6 s or more, or complete silence",
    "artefact_drawl": "the spectrum does not change for .5 s",
    "artefact_repetition": "a segment is repeated",
    "artefact_length": "1.6 times longer or shorter than the SFT policy's sample of the same prompt and seed, in tokens",
}
"""Columns per kind of artefact, in ``samples.parquet`` (whether it is flagged) and ``test_points.parquet`` (share of samples)."""

SAMPLES: dict[str, str] = {
    "step": POINTS["step"],
    "prompt": "index of the evaluation prompt; the same prompt for every arm and seed",
    "target": "the target emotion",
    "proxy": "argmax of the reward model being optimized",
    "proxy_logprob": "log-probability of the target under that reward model",
    "val": "argmax of the `val` judge",
    "val_logprob": "log-probability of the target under the `val` judge",
    "test": "gold: argmax of the held-out `test` judge",
    "test_logprob": "gold: log-probability of the target under the `test` judge",
    "common": "argmax of the seed's pre-trained reward model, the same for all arms of a seed",
    "common_logprob": "log-probability of the target under that reward model",
    **ARTEFACTS,
    "phone_errors": "edit distance between the output of the judge's phone recognizer and the phones of the text",
    "phones": "number of phones in the text",
    "tokens": "length in tokens",
    "seconds": "length in seconds",
}
"""Columns of ``samples.parquet``, from which ``test_points.parquet`` is computed: one row per checkpoint and prompt."""

TEST_POINTS: dict[str, str] = {
    "step": POINTS["step"],
    "test_accuracy": "gold: share of samples whose target is the held-out `test` judge's argmax",
    "test_logprob": "gold: mean log-probability of the target under the `test` judge",
    "phone_error_rate": "phone errors of the judge's recognizer per phone of the text",
    "hack_rate": "val_hack_rate with gold = `test`",
    "uptake": POINTS["uptake"],
    "common_accuracy": "share of samples whose target is the argmax of the seed's pre-trained reward model, common to all arms",
    "common_logprob": "mean log-probability of the target under that reward model",
    "seconds_mean": "mean length in seconds",
    **ARTEFACTS,
}
"""Columns of ``test_points.parquet`` (gold = `test`)."""

LISTENER_POINTS: dict[str, str] = {
    "third_accuracy": "accuracy of the third judge (Praat measures, LDA or QDA) on the first prompts' samples",
    "third_logprob": "mean log-probability of the target under the third judge",
    "voiced": "share of voiced frames (Praat)",
    "f0_spread": "mean F0 range (10th to 90th percentile of voiced frames) of samples with voiced frames, semitones",
    "f0_contrast": "spread over target emotions of the mean F0 level of their voiced samples, semitones",
    "speaker_similarity": "mean cosine similarity to the prompt's speaker, re-synthesized (GE2E encoder)",
    "speaker_right": "share of samples whose nearest speaker, among the policy's, is the prompt's",
    "dnsmos": "mean DNSMOS (overall) of the first prompts' samples, at SFT and at the end; not an N-MOS; only where it is valid",
    "whisper_phone_errors": "phone error rate of the first prompts' samples by Whisper base, at SFT and at the end",
    "hama_phone_errors": "the same by the phone recogniser hama, which was trained on English and Korean",
    "plcmos": "mean PLCMOS of these samples, where DNSMOS is not valid; trained on packet loss, unreliable under noise",
}
"""Columns of the `LISTENERS`' points: phonetics (up to f0_contrast), voice, naturalness, content. NaN at checkpoints without
evaluation. A column is absent if its package was not installed where the cell was built, or if the measure is not valid in its
world."""

SCALARS: dict[str, str] = {
    "end_*": "a column of the points at the last checkpoint",
    "peak_*": "the largest value of a column of the points over the checkpoints",
    "rm_*": "measures of the reward model alone: accuracies on the test sets and the three manipulation checks",
    "rm_fidelity_*": "correlation between the change of reward that its gradient predicts for swapped tokens (one, or 30 %) and "
    "its own actual change, or the `val` judge's",
    "seconds": "build time of all stages of the cell, including shared ones",
    "seconds_*": "build time of one of the cell's own stages",
}
"""Families of scalars, by name pattern."""

TRAIN, EVALUATION = "train/", "evaluation/"
"""Prefixes of the metrics by step: for columns of ``curves.parquet``, and for columns of the two tables of points."""
KL_AXIS = f"{TRAIN}kl_rounded"
"""Metric used as the x-axis of charts. It is rounded because MLflow averages the seeds of an arm only at equal x."""
KL_STEP = 0.05
"""Rounding step of `KL_AXIS`, nats per token."""

METRICS: dict[str, str] = {
    "clean_success": "primary outcome: share of the last samples that are clean successes by the `test` judge",
    "end_test_accuracy": "gold: share of the last samples whose target is the held-out `test` judge's argmax",
    "peak_test_accuracy": "gold at its best checkpoint",
    "end_proxy_accuracy": "share of the last samples whose target is the argmax of the reward model being optimized",
    "end_hack_rate": "share of the last samples with the proxy's argmax on target where gold's is not, or an artefact is flagged",
    "end_uptake": "shortcut uptake at the end",
    "end_phone_error_rate": "phone errors per phone at the end",
    "end_kl_token": "KL to the SFT policy at the end, nats per token",
    "end_diversity": "within-prompt diversity at the end; 0 = all samples of a prompt are identical",
    "rm_accuracy_test": "the reward model's accuracy on its test set",
    "rm_ece": "the reward model's expected calibration error (what label smoothing should lower)",
    "rm_smoothness": "the reward model's smoothness between real pairs (what energy-adaptive mixup should raise)",
    "rm_pgd_accuracy_0.1": "the reward model's accuracy under attack (what adversarial training should raise)",
    "seconds": "build time of all stages, including shared ones",
    f"{TRAIN}loss": "the minimized loss, by step",
    f"{TRAIN}kl_token": "KL to the SFT policy on the step's roll-outs, nats per token",
    KL_AXIS: f"{TRAIN}kl_token rounded to multiples of {KL_STEP} nats",
    f"{TRAIN}proxy_accuracy": "share of the step's roll-outs whose target is the reward model's argmax",
    f"{TRAIN}val_accuracy": "share of the step's roll-outs whose target is the `val` judge's argmax",
    f"{TRAIN}val_clean": "share of the step's roll-outs with the `val` judge's argmax on target and no artefact",
    f"{EVALUATION}kl_token": "KL to the SFT policy at a checkpoint, on the evaluation prompts, nats per token",
    f"{EVALUATION}proxy_accuracy": "share of the checkpoint's samples whose target is the reward model's argmax",
    f"{EVALUATION}test_accuracy": "gold: share of the checkpoint's samples whose target is the held-out `test` judge's argmax",
}
"""A cell's metrics in MLflow; metrics that were not measured are absent. Training curves arrive while the cell runs."""

RATINGS: dict[str, str] = {
    "test": "id of the listening test",
    "rater": "name of the rater, as entered",
    "position": "position in the rater's own order, from 1",
    "item": "opaque id of the sample; the test's run in MLflow maps it to the sample",
    "emotion": "the perceived emotion, one of the world's (forced choice)",
    "expressiveness": "1 bad to 5 excellent: E-MOS is its mean",
    "naturalness": "1 bad to 5 excellent: N-MOS is its mean",
    "plays": "how often the sample was played to the end",
    "seconds": "seconds from the first display of the sample to the answer",
    "automated": "1 if a program controlled the browser",
    "check": "CRC-32 of the row and the previous row's check: detects accidents and careless edits, not forgery",
}
"""Columns of ``ratings.csv``, written by the listening page and stored in a run of kind ``ratings``."""

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
Experiments with other names belong to grids. Earlier versions recorded both in the grid's experiment."""
TAG_KIND = "kind"
"""Kind of the run: ``cell``; ``parent`` (an invocation); ``report`` (the newest files of a report); ``listening`` (an exported
listening test with its key); ``ratings`` (one person's ratings in such a test); ``transfer`` (one seed's cross-RM matrix);
``card`` (a validation report of a world)."""
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
"""Roles of the optional stages (`rrpo.pipeline.cell.Cell.optional`) whose results the run contains, comma-separated."""
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
TAG_FAILED = "failed"
"""Why a cell's run failed, one line."""
TAG_FAILURE_KIND = "failure_kind"
"""A key of `ablations.execution.failures.KINDS`: ``diverged``, ``bug``, ``oom``, ``killed``, ``disk``."""
PAIR_SPREAD = "primary_spread"
"""Metric of an invocation's run: standard deviation over its seeds of RRPO - DiffRO in the primary outcome."""


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
    """Effective settings of the cell (`rrpo.pipeline.effective`) as text; in older records the whole flat config as JSON."""
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
        return frozenset(filter(None, self.tags.get(TAG_OPTIONAL, "").split(",")))

    @cached_property
    def scalars(self) -> Mapping[str, float]:
        """See `SCALARS`."""
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
        """One row per checkpoint and stored sample: `SAMPLES` and the columns of plugin judges; may be empty."""
        table = self._table(SAMPLES_FILE)
        for name in (name for name in added(self.folder) if name not in LISTENERS and not table.empty):
            table = table.merge(self._table(f"{name}_{SAMPLES_FILE}"), on=["step", "prompt"], how="left")
        return table

    @cached_property
    def shares(self) -> dict[tuple[str, str], dict[float, float]]:
        """Cache of `ablations.outcomes`: (outcome, judge) -> step -> share of samples."""
        return {}

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row per checkpoint: `POINTS`, `TEST_POINTS` and `LISTENER_POINTS`, joined.

        If `POINTS` and `TEST_POINTS` have a column in common, that of `TEST_POINTS` (gold) is used.
        """
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
        import pandas as pd
        from pyarrow.parquet import ParquetFile  # takes a third of the time of pandas' own reader

        path = self.folder / name
        return (
            ParquetFile(path).read(use_threads=False).to_pandas(use_threads=False) if path.is_file() else pd.DataFrame()
        )
