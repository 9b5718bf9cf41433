"""Cells with quick stages: build functions that write the same files as the real ones, and fail on demand.

A build fails as long as the file named in its config exists, so that the same cell can first fail and later succeed.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rrpo.config import ArmConfig
from rrpo.corpus.config import WorldConfig
from rrpo.experiment.cell import Cell
from rrpo.pipeline.errors import DivergedError, Interrupted
from rrpo.pipeline.stages import Context, Stage
from rrpo.profiles import Profile

PROFILE = Profile(name="smoke", world=WorldConfig(), sizes={})
CHECKPOINTS = (0, 5, 10, 20)


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    role: str
    label: str = ""
    seed: int = 0
    trouble: str = ""
    """File whose text says how to fail: ``raise``, ``exit``, ``kill``, ``diverge``, ``slow`` or ``deaf``; none is well. ``slow``
    is well once the file is removed."""


@dataclass(frozen=True, kw_only=True)
class FakeCell(Cell):
    trouble: str = ""
    world: str = "a"
    listener: str = ""
    """Names of the installed optional listeners, separated by commas; empty for none."""
    listener_trouble: str = ""
    """The `trouble` of the first of them."""
    same_as: str = ""
    """Label of the cell that has the same stages; empty for no other."""

    @cached_property
    def optional(self) -> dict[str, Stage]:
        def heard(role: str, trouble: str) -> Stage:
            config = FakeConfig(role=role, label=self.label, seed=self.seed, trouble=trouble)
            samples = {"samples": self.stages["optimized"]}
            return Stage("voice", "fakes:build_heard", config, samples, f"{role} {self.name}")

        roles = self.listener.split(",") if self.listener else []
        return {role: heard(role, "" if place else self.listener_trouble) for place, role in enumerate(roles)}

    @cached_property
    def stages(self) -> dict[str, Stage]:
        label = self.same_as or self.label
        shared = Stage("codec", "fakes:build_shared", FakeConfig(role=f"world {self.world}"), label="fake codec")
        policy = Stage(
            "sft", "fakes:build_shared", FakeConfig(role="sft", seed=self.seed), {"codec": shared}, "fake SFT"
        )
        config = FakeConfig(role="optimize", label=label, seed=self.seed, trouble=self.trouble)
        optimized = Stage("optimize", "fakes:build_optimized", config, {"policy": policy}, f"optimise {self.name}")
        scored = Stage(
            "score",
            "fakes:build_scored",
            FakeConfig(role="score", label=label, seed=self.seed),
            {"samples": optimized},
            f"score {self.name}",
        )
        examined = Stage(
            "examine",
            "fakes:build_examined",
            FakeConfig(role="rm", label=label, seed=self.seed),
            {"codec": shared},
        )
        if not self.policy:
            return {"examined": examined}
        return {"examined": examined, "optimized": optimized, "scored": scored}

    @cached_property
    def world_hash(self) -> str:
        return f"world-{self.world}"


def cells(
    labels: Sequence[str], seeds: Sequence[int], trouble: Mapping[str, Path] | None = None, **fields: object
) -> list[Cell]:
    """Return fake cells, with all arms of the first seed first; ``trouble`` maps ``label/seed`` to a file that makes it fail."""
    return [
        FakeCell(
            label=label,
            arm=ArmConfig(steps=0) if label == "sft" else ArmConfig(),
            seed=seed,
            profile=PROFILE,
            trouble=str((trouble or {}).get(f"{label}/{seed}", "")),
            **fields,  # type: ignore[arg-type]
        )
        for seed in seeds
        for label in labels
    ]


def built(store: Path) -> list[str]:
    """Return every finished build in a store, in order."""
    path = store / "stages" / "built.txt"
    return path.read_text().splitlines() if path.exists() else []


def _built(out: Path, config: FakeConfig) -> None:
    with (out.parent / "built.txt").open("a") as file:
        file.write(f"{config.role} {config.label} {config.seed}\n")


def _trouble(config: FakeConfig, context: Context) -> None:
    if not config.trouble or not Path(config.trouble).exists():
        return
    kind = Path(config.trouble).read_text()
    if kind == "raise":
        raise RuntimeError("planted failure")
    if kind == "exit":
        os._exit(7)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "slow":
        Path(f"{config.trouble}.started").touch()
        for _ in range(1200):
            if context.stop():
                raise Interrupted
            if not Path(config.trouble).exists():
                return
            time.sleep(0.05)
    if kind == "deaf":
        Path(f"{config.trouble}.started").touch()
        time.sleep(120)
    if kind == "diverge":
        raise DivergedError("loss nan")


def build_shared(config: FakeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    (out / "threads.txt").write_text(os.environ.get("OMP_NUM_THREADS", "") + " " + str("torch" in sys.modules))
    _built(out, config)


def build_examined(config: FakeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    quality = (sum(config.label.encode()) % 7) / 40
    scalars = {"rm_accuracy_valid": 0.7 + quality + 0.01 * config.seed, "rm_ece": 0.1 - quality / 4}
    (out / "scalars.json").write_text(json.dumps(scalars))
    _built(out, config)


def build_optimized(config: FakeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    training = curve_rows(20 if config.label != "sft" else 0, curve(config.label, config.seed))
    for step in range(3):
        if len(training):
            context.on_measures(step + 1, dict(training.iloc[step]))
        context.report(step + 1, 3)
        print(f"step {step} of {config.label}")
    _trouble(config, context)
    rows = curve(config.label, config.seed)
    rows[
        ["step", "sqrt_kl", "kl_token", "kl_utterance", "proxy_accuracy", "val_accuracy", "val_logprob", "length"]
    ].to_parquet(out / "points.parquet")
    rows[["step", "test_accuracy", "phone_error_rate", "hack_rate", "uptake"]].to_parquet(out / "later.parquet")
    training.to_parquet(out / "curves.parquet")
    (out / "scalars.json").write_text(json.dumps({"end_proxy_accuracy": float(rows["proxy_accuracy"].iloc[-1])}))
    _built(out, config)


def curve_rows(steps: int, points: pd.DataFrame) -> pd.DataFrame:
    """Return curves over so many training steps, interpolated between checkpoints; empty without any."""
    step = np.arange(1, steps + 1)
    if not steps:
        return pd.DataFrame([])
    between = {
        name: np.interp(step, points["step"], points[name]) for name in ("kl_token", "proxy_accuracy", "val_accuracy")
    }
    clean = between["val_accuracy"] * (1 - np.interp(step, points["step"], points["hack_rate"]))
    return pd.DataFrame({"step": step, "reward": np.log1p(step), "loss": 1 / step} | between | {"val_clean": clean})


def build_heard(config: FakeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    _trouble(config, context)
    (out / "scalars.json").write_text(json.dumps({f"end_{config.role}": 0.5 + 0.01 * config.seed}))
    pd.DataFrame({"prompt": [0], config.role: [1.0]}).to_parquet(out / f"{config.role}.parquet")
    _built(out, config)


def build_scored(config: FakeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    rows = pd.read_parquet(inputs["samples"] / "later.parquet")
    rows.to_parquet(out / "test_points.parquet")
    samples(rows).to_parquet(out / "samples.parquet")
    (out / "audio").mkdir()
    tone = (8000 * np.sin(np.arange(1600) / 10)).astype("<i2")
    with wave.open(str(out / "audio" / "00_angry.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    (out / "scalars.json").write_text(json.dumps({"end_test_accuracy": float(rows["test_accuracy"].iloc[-1])}))
    _built(out, config)


def samples(rows: pd.DataFrame) -> pd.DataFrame:
    """Return twenty samples per checkpoint with the targets angry and sad.

    The checkpoint's accuracy is the share that the judges predict right, its hack rate the share with a click.
    """
    samples = []
    for row in rows.itertuples():
        for index in range(20):
            target, other = ("angry", "sad") if index % 2 else ("sad", "angry")
            predicted = target if index < round(20 * row.test_accuracy) else other
            sample = {
                "step": row.step,
                "prompt": index,
                "target": target,
                "proxy": target,
                "test": predicted,
                "val": predicted,
            }
            sample["artefact_click"] = index < round(20 * row.hack_rate)
            samples.append(sample | {"phone_errors": round(10 * row.phone_error_rate), "phones": 10})
    return pd.DataFrame(samples)


def curve(label: str, seed: int) -> pd.DataFrame:
    """Return plausible checkpoints: vanilla arms over-optimize, robust arms do not, SFT does not change."""
    robust = sum(name in label for name in ("ls", "eam", "adv")) + 3 * ("rrpo" in label)
    rng = np.random.default_rng(seed * 1000 + sum(label.encode()))
    steps = np.array(CHECKPOINTS[:1] if label == "sft" else CHECKPOINTS)
    d = np.sqrt(0.35 * steps / 20) * rng.uniform(0.9, 1.1)
    start = 0.55 + 0.02 * math.sin(seed)
    gold = start + 0.45 * d - (0.75 - 0.18 * robust) * d**2 + rng.normal(0, 0.008, len(d)) * (d > 0)
    proxy = start + 0.02 + (0.95 - start) * (1 - np.exp(-5 * d))
    return pd.DataFrame(
        {
            "step": steps,
            "sqrt_kl": d,
            "kl_token": d**2,
            "kl_utterance": 40 * d**2,
            "proxy_accuracy": proxy,
            "test_accuracy": gold,
            "val_accuracy": gold + 0.01,
            "val_logprob": np.log(np.clip(gold, 0.05, 1)),
            "phone_error_rate": 0.2 + 0.1 * d,
            "hack_rate": np.clip(proxy - gold, 0, 1),
            "uptake": 0.3 * d * (1 - robust / 4),
            "length": 40.0 + steps / 10,
        }
    )
