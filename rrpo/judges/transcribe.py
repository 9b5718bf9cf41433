"""The stage ``transcribe``: phone error rate of the last checkpoint's samples, by the judge's recogniser alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rrpo.codec import Codec
from rrpo.corpus.prompts import load_prompts
from rrpo.judges.config import TranscribeConfig
from rrpo.judges.metrics import phone_error_rate
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.samples import Samples, decoded
from rrpo.stages import Context


def build(config: TranscribeConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Writes ``scalars.json`` with ``end_phone_error_rate``."""
    prompts = load_prompts(inputs["eval_prompts"])
    samples = Samples.load(inputs["samples"], len(prompts))
    last = samples.at(samples.steps[-1])
    codec = Codec.load(inputs["codec"], context.device)
    F, lengths = decoded(last, codec, prompts)
    said = Recogniser.load(inputs["recogniser"], context.device).transcribe(F, lengths)
    rate = phone_error_rate(said, [prompt.phones for prompt in last.of(prompts)])
    (out / "scalars.json").write_text(json.dumps({"end_phone_error_rate": rate}))
