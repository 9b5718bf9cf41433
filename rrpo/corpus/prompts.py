"""The stage ``prompts``: texts, speakers and target emotions for the policy, without audio."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrpo.corpus.config import PromptConfig, WorldConfig
from rrpo.corpus.manifest import read_manifest
from rrpo.corpus.speakers import group_speakers
from rrpo.corpus.splits import draw_content
from rrpo.pipeline.stages import Context


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt of the policy."""

    id: str
    text: str
    phones: tuple[str, ...]
    speaker: str
    """`rrpo.corpus.speakers.Speaker.id`."""
    emotion: str
    """The target emotion."""


def draw_prompts(world: WorldConfig, texts: str, n: int, seed: int, speakers: str = "policy") -> list[Prompt]:
    """Draw ``n`` prompts from the text pool ``texts`` (``rl``, ``eval``), balanced over emotions and the speakers of a group."""
    emotions, voices, sentences, phones = draw_content(
        world, n, group_speakers(world, speakers), texts, ("prompts", texts, seed)
    )
    return [
        Prompt(
            id=f"{texts}-{seed}-{i:05d}",
            text=sentences[i],
            phones=phones[i],
            speaker=voices[i].id,
            emotion=world.emotions[emotions[i]],
        )
        for i in range(n)
    ]


def build(config: PromptConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write ``prompts.jsonl``."""
    manifest = config.manifest
    if manifest is None:
        prompts = draw_prompts(config.world, config.texts, config.size, config.seed, config.speakers)
    else:
        from rrpo.corpus.intake import require_unchanged  # imports torch, which planning does without

        utterances = read_manifest(manifest.path, manifest.emotions or config.world.emotions, audio=False)
        require_unchanged(manifest, utterances, None)
        prompts = [
            Prompt(id=u.id, text=u.text, phones=u.phones, speaker=u.speaker, emotion=u.emotion) for u in utterances
        ]
    write_prompts(out, prompts)


def write_prompts(out: Path, prompts: Sequence[Prompt]) -> None:
    """Write ``prompts.jsonl``, which `load_prompts` reads, into the folder ``out``."""
    lines = (json.dumps(vars(prompt), ensure_ascii=False) for prompt in prompts)
    (out / "prompts.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def load_prompts(path: Path) -> tuple[Prompt, ...]:
    """Load the prompts that `build` wrote to the folder ``path``."""
    rows = map(json.loads, (path / "prompts.jsonl").read_text(encoding="utf-8").strip().split("\n"))
    return tuple(Prompt(**{**row, "phones": tuple(row["phones"])}) for row in rows)
