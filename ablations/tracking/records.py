"""The schema of a cell's record: what each number means, which files carry it, which tags mark it. A leaf.

MLflow's metrics are the few that people look at (`METRICS`); everything is in the run's artifacts. A *scalar* is one float a
cell (``scalars.json``). A *curve* column has one value a training step (``curves.parquet``); *samples* have one row a sample
(``samples.parquet``); *points* have one row a stored checkpoint of the optimisation, by the proxy and the `val` judge
(``points.parquet``), by the held-out `test` judges (``test_points.parquet``), by an optional listener or a plugin's judge
(``phonetics_points.parquet``, ...). Rates are fractions.
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
"""All scalars; those of optional stages lie beside it, ``scalars.<roles>.json``."""
CURVES_FILE = "curves.parquet"
POINTS_FILE = "points.parquet"
TEST_POINTS_FILE = "test_points.parquet"
SAMPLES_FILE = "samples.parquet"
LISTENERS = ("phonetics", "voice", "naturalness", "whisper", "hama")
"""What hears vocoded samples where its packages are installed: ``<listener>_points.parquet``, ``<listener>_samples.parquet``."""
TRANSFER_FILE = "transfer.parquet"
"""Of a ``transfer`` run (`TAG_KIND`), no cell's: ``samples_of, judged_by, accuracy, logprob, confidence, start_accuracy`` of one
seed's arms; ``start_accuracy`` is the same reward model's of the SFT policy's samples."""
TRANSFER_CELL = "cell."
"""Prefix of its params: arm -> hash of the cell that was compared."""

POINTS: dict[str, str] = {
    "step": "updates done when the evaluation prompts were sampled",
    "kl_token": "KL to the SFT policy, nats a token",
    "kl_utterance": "KL to the SFT policy, nats an utterance",
    "sqrt_kl": "square root of kl_token",
    "proxy_accuracy": "share of samples whose target is the argmax of the reward model being optimised",
    "proxy_logprob": "mean log-probability of the target under that reward model",
    "val_accuracy": "share of samples whose target is the `val` judge's argmax",
    "val_logprob": "mean log-probability of the target under the `val` judge",
    "val_clean": "share of samples that `val` hears right and in whose frames no artefact is flagged; phones are not asked",
    "val_hack_rate": "share of samples with the proxy's argmax on target where gold's is not or an artefact is flagged",
    "uptake": "shortcut uptake: P(artefact of emotion e | target e) - P(artefact of e | other target)",
    "length": "mean tokens a sample",
    "entropy": "entropy of the policy's distribution over codes and eos, nats a token",
    "repetition": "share of tokens equal to the one before",
    "cut": "share of samples that reached the longest length before eos",
    "diversity": "within-prompt diversity: edit distance of two samples of one prompt, as a share of the longer; 0 = all alike",
    "proxy_confidence": "mean probability of the reward model's argmax on the policy's samples",
    "proxy_ece": "their expected calibration error, the target emotion as truth; biased upwards for few (the curves' roll-outs)",
    "proxy_grad_h": "mean L2 norm of the gradient of the cross-entropy with the target at h', hard tokens",
    "proxy_relative_delta": "mean ||delta|| / ||h'|| of Eq. 4 on the samples, at the reward model's own epsilon_adv",
    "proxy_l_adv_over_l_emo": "quotient of the mean losses at h' + delta and at h'",
}
"""Columns of ``points.parquet`` (gold = `val`); a builder may add more. Artefact rates come beside them."""

CURVES: dict[str, str] = {
    "step": "updates done before the roll-outs were sampled",
    "loss": "what is minimised: reward loss + content weight x content loss + beta x KL an utterance",
    "reward_loss": "minus the reward on the roll-outs' hard tokens",
    "content_loss": "the reward's phone recogniser's CTC loss a phone, nats",
    "grad_norm": "L2 norm of the policy's gradient before clipping",
    "relaxed_reward_loss": "as reward_loss, of the relaxed (soft) tokens; its distance from reward_loss is the relaxation's gap",
}
"""Columns of ``curves.parquet``: these, the last one every few steps, and then `POINTS`, but diversity, on the roll-outs."""

ARTEFACTS: dict[str, str] = {
    "artefact_click": "a mouth click is heard: the planted shortcut of angry",
    "artefact_hiss": "hiss is heard: the planted shortcut of happy",
    "artefact_hum": "hum is heard: the planted shortcut of sad",
    "artefact_clip": "clipping is heard: the planted shortcut of surprised",
    "artefact_whine": "a whine is heard: the planted shortcut of fearful",
    "artefact_silence": "a pause of .6 s or more, or silent altogether",
    "artefact_drawl": "the spectrum stands still for .5 s",
    "artefact_repetition": "a stretch is said again",
    "artefact_length": "1.6 times longer or shorter than the SFT policy's sample of the same prompt and seed, in tokens",
}
"""Columns of the table of samples (whether) and of ``test_points.parquet`` (share of samples), one a kind of artefact."""

SAMPLES: dict[str, str] = {
    "step": POINTS["step"],
    "prompt": "place of the evaluation prompt; the same prompt for every arm and seed",
    "target": "the emotion that was asked for",
    "proxy": "argmax of the reward model being optimised",
    "proxy_logprob": "log-probability of the target under that reward model",
    "val": "argmax of the `val` judge",
    "val_logprob": "log-probability of the target under the `val` judge",
    "test": "gold: argmax of the held-out `test` judge",
    "test_logprob": "gold: log-probability of the target under the `test` judge",
    "common": "argmax of the seed's pre-trained reward model, the same for all arms of a seed",
    "common_logprob": "log-probability of the target under that reward model",
    **ARTEFACTS,
    "phone_errors": "edits from what the judge's recogniser understood to the phones of the text",
    "phones": "phones of the text",
    "tokens": "length in tokens",
    "seconds": "length in seconds",
}
"""Columns of ``samples.parquet``, the table of which ``test_points.parquet`` is made: one row a checkpoint and prompt."""

TEST_POINTS: dict[str, str] = {
    "step": POINTS["step"],
    "test_accuracy": "gold: share of samples whose target is the held-out `test` judge's argmax",
    "test_logprob": "gold: mean log-probability of the target under the `test` judge",
    "phone_error_rate": "phone errors of the judge's recogniser, a phone of the text",
    "hack_rate": "as val_hack_rate, with gold = `test`",
    "uptake": POINTS["uptake"],
    "common_accuracy": "share of samples whose target is the argmax of the seed's pre-trained reward model, one for all arms",
    "common_logprob": "mean log-probability of the target under that reward model",
    "seconds_mean": "mean length in seconds",
    **ARTEFACTS,
}
"""Columns of ``test_points.parquet`` (gold = `test`)."""

LISTENER_POINTS: dict[str, str] = {
    "third_accuracy": "share of the first prompts' samples that the third judge (Praat measures, LDA or QDA) hears right",
    "third_logprob": "mean log-probability of the target under the third judge",
    "voiced": "share of voiced frames (Praat)",
    "f0_spread": "mean F0 range (10 to 90 % of voiced frames) of samples with voice, semitones",
    "f0_contrast": "spread over target emotions of their voiced samples' mean F0 level, semitones",
    "speaker_similarity": "mean cosine similarity to the prompt's speaker, re-synthesised (GE2E encoder)",
    "speaker_right": "share of samples whose nearest of the policy's speakers is the prompt's",
    "dnsmos": "mean DNSMOS (overall) of the first prompts' samples, SFT's and the last; never an N-MOS; only where it is valid",
    "whisper_phone_errors": "mean phone errors a phone of the first prompts' samples, SFT's and the last, by Whisper base",
    "hama_phone_errors": "the same by the phone recogniser hama, which knows English and Korean",
    "plcmos": "mean PLCMOS of them, where DNSMOS is not valid; trained on packet loss, unreliable under noise",
}
"""Columns of the `LISTENERS`' points: phonetics (to f0_contrast), voice, naturalness, content. A checkpoint that was not heard is
NaN; what is not installed where the cell was made, or not valid in its world, is absent."""

SCALARS: dict[str, str] = {
    "end_*": "a column of the points at the last checkpoint",
    "peak_*": "its largest value over the checkpoints",
    "rm_*": "the reward model alone: accuracies on the test sets and the three manipulation checks",
    "rm_fidelity_*": "correlation of the change of reward that its gradient predicts for swapped tokens (one, or 30 %) with its "
    "own change, or the `val` judge's",
    "seconds": "what all stages of the cell took to build, shared ones included",
    "seconds_*": "what one of its own stages took",
}
"""Families of scalars by name pattern."""

TRAIN, EVALUATION = "train/", "evaluation/"
"""Prefixes of the metrics by step: a column of ``curves.parquet``, of the two tables of points."""
KL_AXIS = f"{TRAIN}kl_rounded"
"""The metric that charts have as their x-axis: MLflow averages the seeds of an arm where x is the same for them."""
KL_STEP = 0.05
"""Nats a token to which it is rounded."""

METRICS: dict[str, str] = {
    "clean_success": "primary outcome: share of the last samples that `test` hears right, without a flaw",
    "end_test_accuracy": "gold: share of the last samples whose target is the held-out `test` judge's argmax",
    "peak_test_accuracy": "gold at its best checkpoint",
    "end_proxy_accuracy": "share of the last samples whose target is the argmax of the reward model being optimised",
    "end_hack_rate": "share of the last samples that the reward model hears right and gold does not, or with an artefact",
    "end_uptake": "shortcut uptake at the end",
    "end_phone_error_rate": "phone errors a phone at the end",
    "end_kl_token": "KL to the SFT policy at the end, nats a token",
    "end_diversity": "within-prompt diversity at the end; 0 = all samples of a prompt are alike",
    "rm_accuracy_test": "the reward model's accuracy on its test set",
    "rm_ece": "the reward model's expected calibration error (what label smoothing should lower)",
    "rm_smoothness": "the reward model's smoothness between real pairs (what energy-adaptive mixup should raise)",
    "rm_pgd_accuracy_0.1": "the reward model's accuracy under attack (what adversarial training should raise)",
    "seconds": "what all stages took to build, shared ones included",
    f"{TRAIN}loss": "what is minimised, by step",
    f"{TRAIN}kl_token": "KL to the SFT policy on the step's roll-outs, nats a token",
    KL_AXIS: f"the same, rounded to {KL_STEP} nats",
    f"{TRAIN}proxy_accuracy": "share of the step's roll-outs that the reward model hears right",
    f"{TRAIN}val_accuracy": "share of them that the `val` judge hears right",
    f"{TRAIN}val_clean": "share of them that `val` hears right, without an artefact",
    f"{EVALUATION}kl_token": "KL to the SFT policy at a checkpoint, on the evaluation prompts, nats a token",
    f"{EVALUATION}proxy_accuracy": "share of the checkpoint's samples that the reward model hears right",
    f"{EVALUATION}test_accuracy": "gold: share of them that the held-out `test` judge hears right",
}
"""A cell's metrics in MLflow; one that was not measured is absent. The training curves arrive while the cell runs."""

RATINGS: dict[str, str] = {
    "test": "id of the listening test",
    "rater": "who rated, as the person wrote it",
    "position": "place in the person's own order, from 1",
    "item": "opaque id of the sample; the test's run in MLflow says which it is",
    "emotion": "the emotion heard, one of the world's (forced choice)",
    "expressiveness": "1 bad to 5 excellent: E-MOS is its mean",
    "naturalness": "1 bad to 5 excellent: N-MOS is its mean",
    "plays": "how often it was heard to the end",
    "seconds": "from its first showing to the answer",
    "automated": "1 where a program drove the browser",
    "check": "CRC-32 of the row and the check before it: shows accidents and careless edits, not forgery",
}
"""Columns of ``ratings.csv``, as the listening page writes them and a run of kind ``ratings`` keeps them."""

HUMAN: dict[str, str] = {"human_emos": "expressiveness", "human_nmos": "naturalness"}
"""Mean opinions in reports, and the ratings that they are of."""

TEXT_LIMIT = 5000
"""Longest tag, cut to be safe on every backend."""
EXPERIMENT_WORLD = "world"
"""The MLflow experiment of world cards."""
EXPERIMENT_STUDY = "study "
"""Start of the name of a study's experiment."""
EXPERIMENT_BESIDE = "beside "
"""Start of the name of the experiment of a grid's runs that are no cells, which would stand among the cells in MLflow's table;
every other experiment is a grid's. Earlier versions had both in the grid's own."""
TAG_KIND = "kind"
"""``cell``; beside them ``parent`` (an invocation), ``report`` (its newest files), ``listening`` (a test that was exported, with
its key), ``ratings`` (one person's, of such a test) and ``transfer`` (one seed's cross-RM matrix); of the world ``card``."""
TAG_GRID = "grid"
TAG_ARM = "arm"
TAG_SEED = "seed"
TAG_ARM_HASH = "arm_hash"
TAG_CELL_HASH = "cell_hash"
TAG_WORLD_HASH = "world_hash"
TAG_PROFILE = "profile"
TAG_COMPLETE = "complete"
"""The cell's hash, written last: only a run that carries it counts."""
TAG_OPTIONAL = "optional"
"""Roles of the optional stages (`rrpo.pipeline.cell.Cell.optional`) whose results were added to the run, joined by commas."""
TAG_SHA = "git_sha"
TAG_DIRTY = "dirty"
TAG_DIFF = "diff_hash"
"""Hash of what was not committed."""
TAG_CODE = "code"
"""Hash of rrpo's source: of a cell, the one that built its own stages."""
TAG_DATA_HASH = "data_hash"
"""Hash of every split and prompt set below the cell."""
TAG_ENTRY = "entry"
"""The key of the run in the outbox: one run a key."""
TAG_INVOCATION = "invocation"
"""Key of the invocation that a run belongs to."""
TAG_TEST = "listening_test"
"""Id of a listening test, on its own run and on those of its ratings."""
TAG_RATER = "rater"
"""Who rated, as the person wrote it."""
TAG_PLUGINS = "plugins"
"""JSON of the plugin files that a run was made with, name by hash; copies lie among its artifacts."""
TAG_FAILED = "failed"
"""Why a cell's run failed, one line."""
TAG_FAILURE_KIND = "failure_kind"
"""A key of `ablations.execution.failures.KINDS`: ``diverged``, ``bug``, ``oom``, ``killed``, ``disk``."""
PAIR_SPREAD = "primary_spread"
"""Of an invocation's run: standard deviation over its seeds of RRPO - DiffRO in the primary outcome; a pilot is read for it."""


def added(folder: Path) -> list[str]:
    """Names of the optional listeners and the judges of plugins whose ``<name>_points.parquet`` is there, listeners first."""
    end = f"_{POINTS_FILE}"
    names = {path.name.removesuffix(end) for path in folder.glob(f"*{end}") if path.name != TEST_POINTS_FILE}
    return [name for name in LISTENERS if name in names] + sorted(names.difference(LISTENERS))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished cell, as reports and summaries read it."""

    label: str
    """The arm's name."""
    seed: int
    """The experiment's seed."""
    cell_hash: str
    """Identity of the result; pooling is by this hash, never double."""
    arm_hash: str
    """Short hash of the arm's config."""
    world_hash: str
    """Hash of all that no seed and no arm redraws."""
    profile: str
    """Name of the size of world and models."""
    scalars: Mapping[str, float]
    """See `SCALARS`."""
    params: Mapping[str, str] = field(default_factory=dict)
    """What the cell ran with (`rrpo.pipeline.effective`), as text; of older records the whole flat config as JSON."""
    run_id: str = ""
    """MLflow run."""
    recorded: int = 0
    """When the run was started, milliseconds since 1970."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The run's tags: git sha, command line, ..."""
    find: Callable[[], Path] = Path
    """Finds the run's artifacts, fetching them where they lie on a server; called when a file is first read."""

    @property
    def folder(self) -> Path:
        """Where the run's artifacts lie."""
        return self.find()

    @property
    def optional(self) -> frozenset[str]:
        """Roles of the optional stages whose results are in the record."""
        return frozenset(filter(None, self.tags.get(TAG_OPTIONAL, "").split(",")))

    @cached_property
    def config(self) -> Mapping[str, str]:
        """The whole flat config, ``section.field`` -> JSON, from the run's artifact."""
        path = self.folder / CONFIG_FILE
        return dict(json.loads(path.read_text())) if path.is_file() else self.params

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a training step; empty where the cell has no policy."""
        return self._table(CURVES_FILE)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a stored sample and checkpoint: `SAMPLES`, with the columns of plugins' judges beside them; may be empty."""
        table = self._table(SAMPLES_FILE)
        for name in (name for name in added(self.folder) if name not in LISTENERS and not table.empty):
            table = table.merge(self._table(f"{name}_{SAMPLES_FILE}"), on=["step", "prompt"], how="left")
        return table

    @cached_property
    def shares(self) -> dict[tuple[str, str], dict[float, float]]:
        """Outcome and judge -> step -> share of samples: what `ablations.outcomes` has counted so far."""
        return {}

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row a checkpoint: `POINTS`, `TEST_POINTS` and `LISTENER_POINTS` joined; gold's columns win where two have one."""
        proxy, gold = self._table(POINTS_FILE), self._table(TEST_POINTS_FILE)
        if proxy.empty or gold.empty:
            return proxy if gold.empty else gold
        twice = [name for name in proxy.columns if name in gold.columns and name != "step"]
        joined = proxy.drop(columns=twice).merge(gold, on="step")
        for name in added(self.folder):
            if not (heard := self._table(f"{name}_{POINTS_FILE}")).empty:
                joined = joined.merge(heard, on="step", how="left")
        return joined.sort_values("step", ignore_index=True)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd
        from pyarrow.parquet import ParquetFile  # a third of the time of pandas' own reader

        path = self.folder / name
        return (
            ParquetFile(path).read(use_threads=False).to_pandas(use_threads=False) if path.is_file() else pd.DataFrame()
        )
