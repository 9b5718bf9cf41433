"""Samples stored by a policy optimization: one row per checkpoint and evaluation prompt, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrpo.corpus.prompts import Prompt, load_prompts
from rrpo.models.codec import Codec

FILE = "samples.npz"


@dataclass(frozen=True)
class Samples:
    """R samples, by checkpoint and then by prompt; a checkpoint with fewer prompts has the first ones."""

    step: np.ndarray
    """``[R]`` number of updates."""
    prompt: np.ndarray
    """``[R]`` index of the evaluation prompt."""
    tokens: np.ndarray
    """``[R, N]``, padded with -1."""
    lengths: np.ndarray
    """``[R]`` in tokens."""
    proxy_argmax: np.ndarray
    """``[R]`` class predicted by the reward model."""
    proxy_logprob: np.ndarray
    """``[R]`` its log-probability of the target."""
    val_argmax: np.ndarray
    """``[R]`` class predicted by the `val` judge."""
    val_logprob: np.ndarray
    """``[R]`` its log-probability of the target."""

    @property
    def steps(self) -> list[int]:
        """Return the checkpoints, in order."""
        return sorted(set(self.step.tolist()))

    def select(self, rows: np.ndarray) -> Samples:
        """Return the given rows: numbers, or a mask ``[R]``."""
        return Samples(**{name: values[rows] for name, values in self.arrays().items()})

    def at(self, step: int) -> Samples:
        """Return the samples of one checkpoint."""
        return self.select(self.step == step)

    def of(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return each sample's own prompt, given all evaluation ``prompts``."""
        return [prompts[index] for index in self.prompt]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every array by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def concatenate(cls, parts: Sequence[Samples]) -> Samples:
        """Concatenate several sets of samples."""
        longest = max(part.tokens.shape[1] for part in parts)
        arrays = [part.arrays() | {"tokens": padded(part.tokens, longest)} for part in parts]
        return cls(**{name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]})

    def save(self, folder: Path) -> None:
        """Write `FILE` into ``folder``."""
        arrays: dict[str, Any] = self.arrays()
        np.savez_compressed(folder / FILE, **arrays)

    @classmethod
    def load(cls, folder: Path, prompts: int) -> Samples:
        """Load samples written by `save`.

        Raises:
            ValueError: The file contains other arrays, or samples beyond the first ``prompts``.
        """
        names = {field.name for field in fields(cls)}
        with np.load(folder / FILE) as stored:
            arrays = dict(stored)
        if arrays.keys() != names or not len(arrays["step"]):
            got = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
            raise ValueError(f"{folder / FILE} contains {got}; expected {sorted(names)} with one row per sample")
        samples = cls(**arrays)
        if samples.prompt.max() >= prompts:
            raise ValueError(
                f"{folder / FILE} contains a sample of prompt {samples.prompt.max()}, but there are {prompts} evaluation "
                "prompts; give the samples that were drawn for these prompts"
            )
        return samples


def load_samples(inputs: Mapping[str, Path]) -> tuple[Samples, tuple[Prompt, ...]]:
    """Load the input ``samples`` of a stage, and its input ``eval_prompts``, which they answer."""
    prompts = load_prompts(inputs["eval_prompts"])
    return Samples.load(inputs["samples"], len(prompts)), prompts


def padded(tokens: np.ndarray, size: int) -> np.ndarray:
    """Return ``tokens [R, N]`` as ``[R, size]``, padded with -1 at the end."""
    return np.pad(tokens, ((0, 0), (0, size - tokens.shape[1])), constant_values=-1)


@torch.no_grad()
def decoded(samples: Samples, codec: Codec, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Decode samples with the speakers of their prompts to ``F [R, 2N, M]`` and lengths ``[R]`` in frames."""
    lengths = torch.from_numpy(samples.lengths.astype(np.int64)).to(codec.device)
    tokens = torch.from_numpy(samples.tokens[:, : max(1, int(lengths.max()))].astype(np.int64)).to(codec.device)
    speaker = codec.speaker_index([prompt.speaker for prompt in samples.of(prompts)])
    return codec.decode(tokens.clamp(min=0), lengths, speaker)
