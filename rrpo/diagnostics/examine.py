"""Stage ``examine``: accuracies of one trained reward model, and a manipulation check of each regularizer; and two stages for its
accuracies on other sets.

A component that did not change its own target has not been tested. Label smoothing should lower confidence and calibration
error; energy-adaptive mixup should smooth the path between two real utterances; adversarial training should preserve the
accuracy under attacks on h'. All three are measured on ``rm_valid``: held-out texts by all speakers of reward-model data, of whom
a small training set has few.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.config import OFF
from rrpo.corpus.draws import generator
from rrpo.corpus.features import SpeechSet
from rrpo.judges.config import ExamineConfig, NoSettings, RecognitionConfig
from rrpo.masking import sample_norm, valid_mask
from rrpo.models.ensemble import load_reward_model
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.regularizers.adversarial import Adversarial
from rrpo.regularizers.base import cross_entropy
from rrpo.regularizers.objective import robust_loss
from rrpo.training.finetune import CURVES

CHUNK = 128
"""Utterances per forward pass."""

ADV_TESTED = 1.05
"""Bound of L_adv/L_emo in training for ``adv_tested``. Reports use the ratio on held-out, hard labels (`Adversarial.check`)."""

BINS = 10
"""Equal-width confidence bins of the calibration error."""

PATH_DB = tuple(range(-20, 21, 4))
"""Levels in dB of one utterance relative to the other along the path between them."""


def build(config: ExamineConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Examine ``inputs["model"]`` on every other input. Writes ``scalars.json`` and copies the fine-tuning's curves.

    ``rm_accuracy_<set>`` for each input ``rm_<set>``; on ``rm_valid``: ``rm_ece``, ``rm_confidence``, ``rm_loss``,
    ``rm_smoothness``, ``rm_mix_loss``, ``rm_fgm_accuracy_<eps>``, ``rm_pgd_accuracy_<eps>``, ``log10_relative_delta``,
    ``l_adv_over_l_emo``; ``adv_tested``; and the fine-tuning's scalars, if there was one.
    """
    device = context.device
    model = load_reward_model(inputs["model"], device)
    scalars: dict[str, float] = json.loads((inputs["model"] / "scalars.json").read_text())
    names = sorted(name for name in inputs if name != "model")
    for done, name in enumerate(names):
        speech, p, labels = _evaluate(model, inputs[name], device)
        scalars[f"rm_accuracy_{name.removeprefix('rm_')}"] = accuracy(p, labels)
        if name == "rm_valid":
            scalars |= {"rm_ece": calibration_error(p, labels), "rm_confidence": float(p.amax(1).mean())}
            scalars |= smoothness(model, speech, config, device)
            scalars |= robustness(model, speech, config, device)
        context.report(done + 1, len(names))
    ratio = scalars.get("finetune_l_adv_over_l_emo", scalars.get("l_adv_over_l_emo"))
    if ratio is not None:
        scalars["adv_tested"] = float(ratio >= ADV_TESTED)
    if (inputs["model"] / CURVES).is_file():
        shutil.copy(inputs["model"] / CURVES, out / CURVES)
    (out / "scalars.json").write_text(json.dumps(scalars, indent=1))


def build_set(config: NoSettings, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``examine_set``: only ``rm_accuracy_<set>`` of ``inputs["model"]`` on each input ``rm_<set>``."""
    model = load_reward_model(inputs["model"], context.device)
    names = sorted(name for name in inputs if name != "model")
    evaluations = {name: _evaluate(model, inputs[name], context.device)[1:] for name in names}
    scalars = {f"rm_accuracy_{name.removeprefix('rm_')}": accuracy(*part) for name, part in evaluations.items()}
    (out / "scalars.json").write_text(json.dumps(scalars))


def build_test_set(config: RecognitionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Stage ``recognition``: evaluate ``inputs["model"]`` on ``inputs["speech"]`` as in RRPO's Table 2, without utterances whose
    emotion is not one of its classes.

    Writes ``scalars.json`` with ``rm_wa_<name>`` and ``rm_ua_<name>`` and the number of utterances evaluated (``rm_n_<name>``)
    and excluded (``rm_left_out_<name>``); and ``recognition_<name>.parquet`` with one row each: id, speaker, emotion, predicted
    emotion.
    """
    model = load_reward_model(inputs["model"], context.device)
    speech = model.as_input(SpeechSet.load(inputs["speech"]))
    known = np.flatnonzero([utterance.emotion in model.emotions for utterance in speech.utterances])
    p = probabilities(model, speech, context.device)[torch.from_numpy(known)]
    utterances = [speech.utterances[index] for index in known]
    labels = torch.tensor([model.emotions.index(utterance.emotion) for utterance in utterances])
    rows = [
        (utterance.id, utterance.speaker, utterance.emotion, model.emotions[predicted])
        for utterance, predicted in zip(utterances, p.argmax(1).tolist(), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["id", "speaker", "emotion", "heard"])
    table.to_parquet(out / f"recognition_{config.name}.parquet")
    scalars = {
        f"rm_wa_{config.name}": accuracy(p, labels),
        f"rm_ua_{config.name}": unweighted_accuracy(p, labels),
        f"rm_n_{config.name}": float(len(known)),
        f"rm_left_out_{config.name}": float(len(speech) - len(known)),
    }
    (out / "scalars.json").write_text(json.dumps(scalars))


def _evaluate(model: RewardModel, folder: Path, device: str) -> tuple[SpeechSet, Tensor, Tensor]:
    """Return a set in the form that the model takes, the model's `probabilities` and the labels ``[N]``."""
    speech = model.as_input(SpeechSet.load(folder))
    return speech, probabilities(model, speech, device), speech.labels(model.emotions)


@torch.no_grad()
def probabilities(model: RewardModel, speech: SpeechSet, device: str) -> Tensor:
    """Return ``p [N, K]`` of the whole set, in its order."""
    return torch.cat([model(F, lengths).softmax(1).cpu() for F, lengths, _ in batches(speech, device)])


def batches(speech: SpeechSet, device: str) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """Yield ``F [B, T, M], lengths [B], indices [B]`` over the whole set, in its order."""
    for start in range(0, len(speech), CHUNK):
        indices = np.arange(start, min(start + CHUNK, len(speech)))
        yield *speech.batch(indices, device), indices


def accuracy(p: Tensor, labels: Tensor) -> float:
    """Return the share of ``p [N, K]`` whose argmax is ``labels [N]``."""
    return float((p.argmax(1) == labels).float().mean())


def unweighted_accuracy(p: Tensor, labels: Tensor) -> float:
    """Return the mean recall over the classes that occur in ``labels [N]``, of the argmax of ``p [N, K]`` (any class)."""
    hits = (p.argmax(1) == labels).double()
    return float(torch.stack([hits[labels == k].mean() for k in labels.unique()]).mean())


def calibration_error(p: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error: ``sum_b n_b/N |accuracy_b - confidence_b|`` over equal-width confidence bins."""
    confidence, prediction = p.max(1)
    hit = (prediction == labels).double()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.double).index_add_(0, bins, hit - confidence.double())
    return float(gaps.abs().sum() / len(p))


def smoothness(model: RewardModel, speech: SpeechSet, config: ExamineConfig, device: str) -> dict[str, float]:
    """Manipulation check of mixup, along mixtures of real pairs with different labels.

    A pair is cut to the shorter length and scaled to equal energy; the path is ``log((e^{F_i} + w e^{F_j}) / (1 + w))`` with w
    from -20 to 20 dB. ``rm_smoothness`` is one minus the mean over pairs of the largest total variation of p between
    neighboring points of the path: 1 is constant, 0 a jump. ``rm_mix_loss`` is Eq. 3's L_emo at ε = 0 on the default mixtures
    with the same pairs' hosts.
    """
    labels = np.asarray(speech.labels(model.emotions))
    if len(set(labels)) < 2:
        raise ValueError(f"rm_valid contains {len(set(labels))} emotion(s), but pairs need two; use more utterances")
    rng = generator(config.seed, "examine.pairs")
    hosts = rng.integers(len(labels), size=config.interpolation_pairs)
    partners = np.array([rng.choice(np.flatnonzero(labels != labels[i])) for i in hosts])
    F_i, lengths_i = speech.batch(hosts, device)
    F_j, lengths_j = speech.batch(partners, device)
    lengths = torch.minimum(lengths_i, lengths_j)
    T = int(lengths.max())
    mask = valid_mask(lengths, T)
    F_i, F_j = F_i[:, :T], F_j[:, :T]
    energy_i, energy_j = (_log_energy(model.signal.log_power(F), mask) for F in (F_i, F_j))
    F_j = model.signal.scaled(F_j, (energy_i - energy_j)[:, None, None])

    path = []
    for decibels in PATH_DB:
        log_w = decibels * math.log(10) / 10
        F = model.signal.scaled(model.signal.added(F_i, F_j, log_w), -math.log1p(math.exp(log_w)))
        path.append(model(F, lengths).softmax(1))
    steps = torch.stack(path).diff(dim=0).abs().sum(2) / 2

    y = functional.one_hot(torch.from_numpy(labels[hosts]), len(model.emotions)).float().to(device)
    mixed = robust_loss(model, *speech.batch(hosts, device), y, replace(OFF, mix_probability=1.0), config.seed, 0)
    return {"rm_smoothness": 1 - float(steps.amax(0).mean()), "rm_mix_loss": float(mixed["l_emo"])}


def robustness(model: RewardModel, speech: SpeechSet, config: ExamineConfig, device: str) -> dict[str, float]:
    """Manipulation check of adversarial training: accuracy under FGM and PGD on h' with ``||δ|| = eps ||h'||``.

    Also returns ``rm_loss``, the clean cross-entropy, and, at the fine-tuning's own ε_adv, ``log10_relative_delta``, the mean
    of ``log10(||δ||/||h'||)``, and ``l_adv_over_l_emo``. Labels are hard and nothing is mixed, whatever the fine-tuning did.
    """
    labels = speech.labels(model.emotions).to(device)
    attacks = [(kind, eps) for eps in config.relative_eps for kind in ("fgm", "pgd")]
    hits = dict.fromkeys(attacks, 0.0)
    log_delta, l_emo, l_adv = 0.0, 0.0, 0.0
    adversarial = Adversarial.of(model.regularizers)
    for F, lengths, indices in batches(speech, device):
        target = labels[indices]
        y = functional.one_hot(target, len(model.emotions)).float()
        with torch.no_grad():
            h, mask = model.encode(F, lengths)

        def losses(h: Tensor, mask: Tensor = mask, y: Tensor = y) -> Tensor:
            return cross_entropy(model.classify(h, mask), y)

        for kind, eps in attacks:
            steps = 1 if kind == "fgm" else config.pgd_steps
            delta = attack(losses, h, mask, eps, steps)
            hits[kind, eps] += float((model.classify(h + delta, mask).argmax(1) == target).sum())
        delta = adversarial.delta(losses, h, mask)
        log_delta += float((sample_norm(delta, mask) / sample_norm(h, mask)).clamp(min=1e-12).log10().sum())
        l_emo += float(losses(h).sum())
        l_adv += float(losses(h + delta).sum())
    n = len(labels)
    scalars = {f"rm_{kind}_accuracy_{eps:g}": hit / n for (kind, eps), hit in hits.items()}
    return scalars | {
        "rm_loss": l_emo / n,
        "log10_relative_delta": log_delta / n,
        "l_adv_over_l_emo": l_adv / max(l_emo, 1e-12),
    }


def attack(losses: Callable[[Tensor], Tensor], h: Tensor, mask: Tensor, eps: float, steps: int) -> Tensor:
    """Return δ ``[B, T', D]`` with ``||δ|| <= eps ||h'||`` that increases ``losses``: FGM for one step, else projected ascent.

    Projected gradient ascent (PGD) starts at δ = 0. Each step goes ``2.5 eps / steps`` of ``||h' + δ||`` (one step: ``eps``)
    along the normalized gradient of Eq. 4 and projects back onto the ball.
    """
    radius = eps * sample_norm(h, mask)[:, None, None]
    ascent = Adversarial(adv_norm="relative", epsilon_adv=eps if steps == 1 else 2.5 * eps / steps)
    delta = torch.zeros_like(h)
    for _ in range(steps):
        delta = delta + ascent.delta(losses, h + delta, mask)
        norm = sample_norm(delta, mask)[:, None, None].clamp(min=1e-12)
        delta = delta * (radius / norm).clamp(max=1.0)
    return delta


def _log_energy(log_power: Tensor, mask: Tensor) -> Tensor:
    """Return the logarithm of the summed power of the valid frames ``[B]``."""
    return log_power.masked_fill(~mask[..., None], -math.inf).flatten(1).logsumexp(1)
