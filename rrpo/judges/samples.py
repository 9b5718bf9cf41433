"""The samples that a policy optimisation stores: a table with a row a checkpoint and evaluation prompt, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrpo.corpus.prompts import Prompt
from rrpo.models.codec import Codec

FILE = "samples.npz"


@dataclass(frozen=True)
class Samples:
    """R samples, by checkpoint and then by prompt; a checkpoint has the first of the evaluation prompts, however many it asks."""

    step: np.ndarray
    """``[R]`` updates made."""
    prompt: np.ndarray
    """``[R]`` place of the evaluation prompt."""
    tokens: np.ndarray
    """``[R, N]``, padded with -1."""
    lengths: np.ndarray
    """``[R]`` in tokens."""
    proxy_argmax: np.ndarray
    """``[R]`` the reward model's class."""
    proxy_logprob: np.ndarray
    """``[R]`` its log-probability of the target."""
    val_argmax: np.ndarray
    """``[R]`` the `val` judge's class."""
    val_logprob: np.ndarray
    """``[R]`` its log-probability of the target."""

    @property
    def steps(self) -> list[int]:
        """The checkpoints, in order."""
        return sorted(set(self.step.tolist()))

    def select(self, rows: np.ndarray) -> Samples:
        """The given rows: numbers, or a mask ``[R]``."""
        return Samples(**{name: values[rows] for name, values in self.arrays().items()})

    def at(self, step: int) -> Samples:
        """One checkpoint's."""
        return self.select(self.step == step)

    def of(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Each sample's own of all evaluation ``prompts``."""
        return [prompts[place] for place in self.prompt]

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def concatenate(cls, parts: Sequence[Samples]) -> Samples:
        """Several sets of samples as one."""
        longest = max(part.tokens.shape[1] for part in parts)
        wide = [part.arrays() | {"tokens": padded(part.tokens, longest)} for part in parts]
        return cls(**{name: np.concatenate([part[name] for part in wide]) for name in wide[0]})

    def save(self, folder: Path) -> None:
        """Writes `FILE` into ``folder``."""
        arrays: dict[str, Any] = self.arrays()
        np.savez_compressed(folder / FILE, **arrays)

    @classmethod
    def load(cls, folder: Path, prompts: int) -> Samples:
        """Reads what `save` wrote. Raises `ValueError` where it holds other arrays, or more than the first ``prompts``."""
        names = {field.name for field in fields(cls)}
        with np.load(folder / FILE) as stored:
            found = dict(stored)
        if found.keys() != names or not len(found["step"]):
            got = ", ".join(f"{name} {values.shape}" for name, values in found.items())
            raise ValueError(f"{folder / FILE} holds {got}; {sorted(names)} with a row a sample were expected")
        samples = cls(**found)
        if samples.prompt.max() >= prompts:
            raise ValueError(
                f"{folder / FILE} holds a sample of prompt {samples.prompt.max()}, but there are {prompts} evaluation prompts; "
                "give the samples that were drawn for these prompts"
            )
        return samples


def padded(tokens: np.ndarray, size: int) -> np.ndarray:
    """``tokens [R, N]`` as ``[R, size]`` with -1 behind."""
    return np.pad(tokens, ((0, 0), (0, size - tokens.shape[1])), constant_values=-1)


@torch.no_grad()
def decoded(samples: Samples, codec: Codec, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """``F [R, 2N, M]`` and lengths ``[R]`` in frames of samples, by the speakers of their own of all evaluation ``prompts``."""
    device = codec.mean.device
    lengths = torch.from_numpy(samples.lengths.astype(np.int64)).to(device)
    tokens = torch.from_numpy(samples.tokens[:, : max(1, int(lengths.max()))].astype(np.int64)).to(device)
    speaker = codec.speaker_index([prompt.speaker for prompt in samples.of(prompts)]).to(device)
    return codec.decode(tokens.clamp(min=0), lengths, speaker)
