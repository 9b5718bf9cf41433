"""The options of ``ablations.run``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.commands import Device, RunsDir, WorldSeed
from ablations.execution.launchers import Launching
from ablations.grids import GRIDS
from rrpo.commands import EXECUTION, EXPERIMENT, FAILURES, OUTPUT, Plugin, Set, option
from rrpo.pipeline.executor import PRECISIONS
from rrpo.profiles import PROFILES


@dataclass(frozen=True, kw_only=True)
class Options(Launching):
    """The options as given. The docstrings of the fields are the help of the command (`rrpo.commands.options_of`)."""

    grid: str = option(EXPERIMENT, ..., GRIDS)
    """Grid to run."""
    seeds: int | None = option(EXPERIMENT, None)
    """Number of seeds. Default: the grid's, or the number of folds."""
    first_seed: int | None = option(EXPERIMENT, None)
    """First seed. Seeds from 1000 on are for development. Default: the grid's."""
    arms: str | None = option(EXPERIMENT, None)
    """Run only these arms (comma-separated names). Default: all."""
    profile: str | None = option(EXPERIMENT, None, PROFILES)
    """Profile (size of world and models). Default: the grid's."""
    world_seed: WorldSeed = 0
    settings: Set = None
    plugin: Plugin = None
    batch_scale: int = option(EXPERIMENT, 1)
    """Factor by which all training batches are enlarged, for GPUs. This is a different experiment."""
    model: Path | None = option(EXPERIMENT, None, metavar="FOLDER")
    """CosyVoice2-0.5B, for the grid paper; --train then names a file of labelled speech tokens."""
    train: str | None = option(EXPERIMENT, None, metavar="CORPUS")
    """Train reward models on your own corpus, CORPUS.train.jsonl and CORPUS.valid.jsonl of rrpo.corpus import."""
    encoder: Path | None = option(EXPERIMENT, None, metavar="FOLDER")
    """Use a pre-trained speech encoder from a Hugging Face folder (wav2vec 2.0, WavLM, HuBERT) in reward models."""
    tune_encoder: bool = option(EXPERIMENT, False)
    """Also train the encoder's Transformer."""
    folds: int | None = option(EXPERIMENT, None)
    """Cross-validate over K folds of --train's speakers (rrpo.corpus import --folds K), one fold per seed."""
    manifests: list[str] | None = option(EXPERIMENT, None, flag="--manifest", metavar="SPLIT=PATH")
    """Use your own JSON-lines manifest for a split; repeatable."""
    tests: list[str] | None = option(EXPERIMENT, None, flag="--test", metavar="CORPUS|NAME=PATH")
    """Additional test set of reward models: CORPUS.test.jsonl, else CORPUS.jsonl, or any manifest; repeatable."""
    device: Device = "auto"
    workers: int | None = option(EXECUTION, None)
    """Number of concurrent tasks. Default: one per CPU; on GPUs as many as the measured memory allows, 4 per GPU before anything
    is measured."""
    stack: str = option(EXECUTION, "1", metavar="N|auto")
    """Train N cells together in one process (SFT, reward models, policy optimizations). auto: as many as fit into a GPU's memory,
    or 1 on the CPU. All policies of a seed must be optimized in the same way, stacked or not."""
    precision: str = option(EXECUTION, PRECISIONS[0])
    """Precision of policy optimizations: fp32, tf32 (GPU only) or bf16 (matrix products of the policy). The same for all cells
    of a seed."""
    deterministic: bool = option(EXECUTION, False)
    """Use deterministic algorithms on a GPU: bit-identical repetitions, but slower."""
    shard: str = option(EXECUTION, "1/1", metavar="I/N")
    """Run only every N-th cell, starting with the I-th (1 to N), for batch systems."""
    retry: str | None = option(FAILURES, None, metavar="failed")
    """Run cells again that diverged or hit a bug."""
    fail_fast: bool = option(FAILURES, False, flag="--fail-fast/--keep-going")
    """Stop at the first failed cell, or continue with the others."""
    runs_dir: RunsDir = Path("runs")
    quiet: bool = option(OUTPUT, False)
    """Print only failures and the final summary."""
    json: bool = option(OUTPUT, False)
    """Print every event as a JSON object on one line."""
    plan: bool = option(OUTPUT, False)
    """Dry run: print the cells, the stages to build and the estimated time, and exit."""
