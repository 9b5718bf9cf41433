"""A CTC phone recogniser on F: DiffRO's content reward, and (with other data) the judge of intelligibility.

One output per two frames (25 Hz); index 0 is CTC's blank. A phone that does not occur in the training set is mapped to
`UNKNOWN`, which the recogniser never learns to output: it counts as an error and never stops a run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F_
from torch import Tensor, nn

from rrpo.corpus.features import SpeechSet
from rrpo.corpus.manifest import phone_inventory
from rrpo.judges.config import RecogniserConfig
from rrpo.judges.metrics import phone_error_rate
from rrpo.judges.networks import CtcNetwork
from rrpo.masking import valid_mask
from rrpo.pipeline.stages import Context
from rrpo.seeding import bucketed, permutation_batches, seed_everything
from rrpo.training.data import TrainingFrames
from rrpo.training.trainer import fit

UNKNOWN = "<unknown>"
"""Last symbol of every inventory."""
HELD_OUT = 0.1
"""Share of the set, from its end, that is held out to measure the error rate."""
CHUNK = 100
"""Utterances transcribed at once."""
BLANK = 0


class Recogniser(nn.Module):
    """Phones of log-mel frames F; differentiable in F."""

    std: Tensor

    def __init__(self, config: RecogniserConfig, phones: tuple[str, ...], n_mels: int) -> None:
        """Create an untrained recogniser. ``phones`` is the inventory without `UNKNOWN`; P is one more than its length."""
        super().__init__()
        self.config, self.n_mels = config, n_mels
        self.phones = (*phones, UNKNOWN)
        self.index = {phone: number for number, phone in enumerate(self.phones, start=1)}
        self.register_buffer("std", torch.ones(n_mels))
        self.network = CtcNetwork(n_mels, config.dim, len(self.phones) + 1)

    def log_probs(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M], lengths [B]`` -> log-probabilities ``[B, T', P + 1]``, T' = ceil(T / 2), and their lengths.

        Each utterance's mean frame is subtracted first, to remove voice, level and vocoder tilt.
        """
        lengths = lengths.clamp(min=1)
        mask = valid_mask(lengths, F.shape[1])[..., None]
        centre = F.masked_fill(~mask, 0.0).sum(1, keepdim=True) / lengths[:, None, None]
        logits, steps = self.network((F - centre) / self.std, lengths)
        return F_.log_softmax(logits.float(), 2), steps

    def ctc_loss(self, F: Tensor, lengths: Tensor, phones: Sequence[Sequence[str]]) -> Tensor:
        """Return the CTC loss per phone ``[B]`` in nats of ``F [B, T, M]`` against ``phones``, differentiable in F.

        A sample too short for its phones (whose CTC loss would be infinite) gets a uniform guess's ln(P + 1) and no gradient.
        This follows torch's ``zero_infinity``, except that its loss of 0 would count as perfect. An empty reference counts as
        one phone.
        """
        log_probs, steps = self.log_probs(F, lengths)
        if torch.are_deterministic_algorithms_enabled():  # on a GPU, CTC's gradient adds in no fixed order
            log_probs, steps = log_probs.cpu(), steps.cpu()
        device = log_probs.device
        sizes = torch.tensor([len(sequence) for sequence in phones], device=device)
        flat = [self.index.get(phone, len(self.phones)) for sequence in phones for phone in sequence]
        targets = torch.tensor(flat, dtype=torch.long, device=device)
        loss = F_.ctc_loss(
            log_probs.transpose(0, 1), targets, steps, sizes, blank=BLANK, reduction="none", zero_infinity=True
        )
        needed = torch.tensor([_steps_needed(sequence) for sequence in phones], device=device)
        loss_per_phone = torch.where(needed > steps, math.log(len(self.phones) + 1), loss / sizes.clamp(min=1))
        return loss_per_phone.to(F.device)

    @torch.no_grad()
    def transcribe(self, F: Tensor, lengths: Tensor) -> list[list[str]]:
        """Transcribe greedily: the best symbol of each step, with repeats merged and blanks removed."""
        transcripts = []
        for start in range(0, len(F), CHUNK):
            sizes = lengths[start : start + CHUNK]
            log_probs, steps = self.log_probs(F[start : start + CHUNK, : int(sizes.max())], sizes)
            for row, n_steps in zip(log_probs.argmax(2).tolist(), steps.tolist(), strict=True):
                transcripts.append([self.phones[symbol - 1] for symbol, _ in groupby(row[:n_steps]) if symbol != BLANK])
        return transcripts

    def save(self, folder: Path) -> None:
        """Write ``recogniser.json`` (with the inventory) and ``recogniser.pt`` into ``folder``."""
        description = {"config": asdict(self.config), "phones": self.phones[:-1], "n_mels": self.n_mels}
        (folder / "recogniser.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
        torch.save({name: value.cpu() for name, value in self.state_dict().items()}, folder / "recogniser.pt")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Recogniser:
        """Load a recogniser written by `save`; frozen, in evaluation mode, with gradient to F."""
        path = folder / "recogniser.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} contains no recogniser.json; give a folder written by Recogniser.save")
        description = json.loads(path.read_text(encoding="utf-8"))
        recogniser = cls(RecogniserConfig(**description["config"]), tuple(description["phones"]), description["n_mels"])
        recogniser.load_state_dict(torch.load(folder / "recogniser.pt", map_location="cpu", weights_only=True))
        return recogniser.to(device).eval().requires_grad_(False)


def build(config: RecogniserConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``recogniser``: train on all but the last tenth of ``speech``, as analyzed and re-synthesized."""
    speech = SpeechSet.load(inputs["speech"])
    n_training = len(speech) - max(1, round(HELD_OUT * len(speech)))
    if n_training < 1:
        raise ValueError(
            f"the recogniser's set contains {len(speech)} utterance(s); it needs at least 2, one of them held out"
        )
    seed_everything(config.seed, "recogniser")
    inventory = phone_inventory(speech.utterances[:n_training])
    recogniser = Recogniser(config, inventory, speech.audio.n_mels).to(context.device)
    data = TrainingFrames.load(speech, inputs["codec"], context.device)
    frames = data.originals.flat[: int(data.originals.lengths[:n_training].sum())]
    recogniser.std.copy_(frames.std(0).clamp(min=1e-3))
    batches = permutation_batches(n_training, config.batch, config.steps, config.seed, "recogniser batches")
    batches = bucketed(batches, data.originals.lengths.cpu().numpy(), config.seed, "recogniser bucketed")

    def loss(step: int) -> Tensor:
        F, lengths = data.batch(batches[step], config.seed, "recogniser rendition", step)
        return recogniser.ctc_loss(F, lengths, [speech.utterances[i].phones for i in batches[step]]).mean()

    fit(recogniser.parameters(), loss, config.steps, config.lr, context)
    recogniser.eval()
    scalars = _measure(recogniser, speech, data, np.arange(n_training, len(speech)), context.device)
    recogniser.save(out)
    (out / "scalars.json").write_text(json.dumps(scalars))


def _measure(
    recogniser: Recogniser, speech: SpeechSet, data: TrainingFrames, heldout: np.ndarray, device: str
) -> dict[str, float]:
    """Return phone error rates on the held-out utterances ``heldout [n]``, as analyzed and re-synthesized."""
    references = [speech.utterances[i].phones for i in heldout]
    rows = torch.from_numpy(heldout).to(device)
    transcripts = {
        name: recogniser.transcribe(*data.both.batch(selection))
        for name, selection in {"original": rows, "resynthesised": rows + data.size}.items()
    }
    return {f"phone_error_rate_{name}": phone_error_rate(text, references) for name, text in transcripts.items()}


def too_long(phones: Sequence[str], frames: int) -> bool:
    """Return whether a sample of that many frames is too short for its phones (`Recogniser.ctc_loss`)."""
    return _steps_needed(phones) > math.ceil(frames / 2)


def _steps_needed(phones: Sequence[str]) -> int:
    """Return the minimum number of CTC steps for ``phones``: one each, and a blank between two equal ones."""
    return len(phones) + sum(first == second for first, second in pairwise(phones))
