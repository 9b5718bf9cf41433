"""Stage ``validation``: one section of the validation report, measured on the finished stages of a world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rrpo.pipeline.stages import Context
from rrpo.validation import codec, detectors, judges, naturalness, reach, sft, shortcut, speech, voices
from rrpo.validation.config import SectionConfig
from rrpo.validation.lines import LINES, save

SECTIONS = (speech, judges, codec, reach, shortcut, sft, naturalness, detectors, voices)
MEASURES = {module.__name__.rpartition(".")[2]: module.measure for module in SECTIONS}
"""Measuring function by the name of the section's module."""


def build(config: SectionConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write ``lines.json`` with the lines of ``rrpo.validation.<section>:measure``, which may write tables into ``out``."""
    save(list(MEASURES[config.section](config, inputs, out, context)), out / LINES)
