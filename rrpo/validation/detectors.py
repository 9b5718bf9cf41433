"""Precision, recall and false alarms of every detector on faults planted into clean speech."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence, unpad_sequence

from rrpo.corpus.config import ARTEFACTS, AudioConfig
from rrpo.corpus.draws import generator
from rrpo.corpus.features import SpeechSet
from rrpo.corpus.manifest import Utterance
from rrpo.corpus.render import render
from rrpo.judges.artefacts import detect, looping, odd_length
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy
from rrpo.pipeline.stages import Context
from rrpo.training.data import Frames
from rrpo.validation.config import SectionConfig
from rrpo.validation.hearing import analysed, one_batch, planted
from rrpo.validation.lines import Line, share

SECTION = "Detectors"
PAUSE = (0.7, 1.2)
"""Duration of planted silence in seconds."""
LOOP = (6, 12)
"""Tokens in a planted loop, which occurs three times in total."""
HOLD = (0.6, 1.0)
"""Seconds for which a token is held in a planted drawl; the detector flags what lasts for more than half a second."""
FACTORS = (0.45, 2.2)
"""Planted durations relative to the real one."""
LEAST, MOST = 0.95, 0.02
"""Required minimum of precision and recall, and maximum false alarm rate on clean speech."""


def measure(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> Iterator[Line]:
    """Measure the section *Detectors*. Utterances with a planted kind and clean speech form the pool for that kind's
    precision."""
    clean = SpeechSet.load(inputs["clean"])
    codec, policy = Codec.load(inputs["codec"], context.device), Policy.load(inputs["policy"], context.device)
    utterances = clean.utterances[: config.card.planted]
    rng = generator(config.world.seed, "card", "detectors")
    flags_of: dict[str, dict[str, np.ndarray]] = {}
    kinds = ("clean", *ARTEFACTS, "silence", "repetition", "length", "drawl")
    for done, kind in enumerate(kinds):
        flags_of[kind] = _flags(kind, utterances, clean, codec, policy, rng)
        context.report(done + 1, len(kinds))
    for kind in kinds[1:]:
        hits = flags_of[kind][kind]
        others = [flags[kind] for name, flags in flags_of.items() if name != kind and not _follows_from(name, kind)]
        correct = np.concatenate([hits[hits], *(~flags[flags] for flags in others)])  # all flagged utterances
        for title, flags in (("recall", hits), ("precision", correct)):
            yield Line(SECTION, f"{kind}: {title}", at_least=LEAST, **share(flags))
        alarms = share(flags_of["clean"][kind])
        yield Line(SECTION, f"{kind}: false alarms on clean speech", at_most=MOST, **alarms)
    found = np.logical_or.reduce(list(flags_of["drawl"].values()))
    yield Line(SECTION, "drawl: flagged as any kind", **share(found))


def _follows_from(planted_kind: str, flagged: str) -> bool:
    """Return whether a flag follows from the planted fault: a planted loop, silence or drawl also makes a sample too long, and a
    drawl sustains whatever noise or tone its token has."""
    return planted_kind == "drawl" or (flagged == "length" and planted_kind in ("repetition", "silence"))


def _flags(
    kind: str,
    utterances: tuple[Utterance, ...],
    clean: SpeechSet,
    codec: Codec,
    policy: Policy,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return every detector's flags ``[n]`` on utterances with ``kind`` planted."""
    device = codec.mean.device
    if kind == "silence":
        rate = clean.audio.sample_rate
        waves = [
            _plant_pause(torch.from_numpy(render(u.spec, rate)), rate, rng) for u in utterances if u.spec is not None
        ]
        frames = analysed(waves, clean.audio, device)
    else:
        frames = planted(utterances, [kind if kind in ARTEFACTS else None] * len(utterances), clean.audio, device)
    tokens, lengths = codec.encode(*one_batch(frames))
    rows = unpad_sequence(tokens, lengths, batch_first=True)
    if kind == "repetition":
        rows = [_plant_loop(row, rng) for row in rows]
    if kind == "length":
        rows = [_stretch(row, FACTORS[i % 2]) for i, row in enumerate(rows)]
    if kind == "drawl":
        decoded = unpad_sequence(*one_batch(_decode_rows(rows, utterances, codec)), batch_first=True)
        rows = [_plant_drawl(row, F.exp().mean(1), clean.audio, rng) for row, F in zip(rows, decoded, strict=True)]
    if kind in ("repetition", "length", "drawl"):
        frames = _decode_rows(rows, utterances, codec)
    flags = detect(*one_batch(frames), clean.audio)
    sizes = torch.tensor([len(row) for row in rows], device=device)
    flags["repetition"] = looping(pad_sequence(rows, batch_first=True), sizes)
    flags["length"] = odd_length(sizes, expected_tokens(policy, utterances))
    return {name: flag.cpu().numpy() for name, flag in flags.items()}


def expected_tokens(policy: Policy, utterances: tuple[Utterance, ...]) -> Tensor:
    """Return the token counts ``[n]`` expected from the policy's pace for each text, by emotion and speaker."""
    style = policy.prefix_ids([()] * len(utterances), [u.speaker for u in utterances], [u.emotion for u in utterances])
    phones = torch.tensor([len(u.phones) for u in utterances], device=style.device)
    return phones * policy.pace[style[:, :2]].prod(1)


def _plant_pause(wave: Tensor, rate: int, rng: np.random.Generator) -> Tensor:
    middle = int(rng.uniform(0.3, 0.7) * len(wave))
    return torch.cat([wave[:middle], torch.zeros(int(rng.uniform(*PAUSE) * rate)), wave[middle:]])


def _plant_loop(row: Tensor, rng: np.random.Generator) -> Tensor:
    size = min(int(rng.integers(*LOOP)), len(row))
    start = int(rng.integers(len(row) - size + 1))
    loop = row[start : start + size]
    return torch.cat([row[: start + size], loop, loop, row[start + size :]])


def _plant_drawl(row: Tensor, power: Tensor, audio: AudioConfig, rng: np.random.Generator) -> Tensor:
    """Hold one of the tokens ``row [N]`` that are among the louder half, given the ``power [T]`` of their frames."""
    per_token = len(power) // len(row)
    loudness = power[: per_token * len(row)].view(len(row), per_token).mean(1)
    louder = loudness.topk((len(row) + 1) // 2).indices
    at = int(louder[int(rng.integers(len(louder)))])
    held = round(float(rng.uniform(*HOLD)) * audio.sample_rate / (audio.hop * per_token))
    return torch.cat([row[:at], row[at].repeat(held), row[at + 1 :]])


def _stretch(row: Tensor, factor: float) -> Tensor:
    """Resample the tokens in time by nearest neighbor."""
    source = (torch.arange(max(1, round(len(row) * factor)), device=row.device) / factor).long()
    return row[source.clamp(max=len(row) - 1)]


def _decode_rows(rows: list[Tensor], utterances: tuple[Utterance, ...], codec: Codec) -> Frames:
    """Decode token rows to frames with each utterance's speaker."""
    lengths = torch.tensor([len(row) for row in rows], device=codec.mean.device)
    speakers = codec.speaker_index([u.speaker for u in utterances])
    decoded = codec.decode(pad_sequence(rows, batch_first=True), lengths, speakers)
    return Frames(unpad_sequence(*decoded, batch_first=True), codec.audio.floor)
