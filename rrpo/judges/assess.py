"""Stage ``assess``: evaluation of a cell's stored samples for a search, or for choosing a regime.

It writes the same table as stage ``score``, without the held-out ``test`` judge; gold is the ``val`` judge, whose predictions
were stored with the samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rrpo.judges.config import AssessConfig
from rrpo.judges.emotion import Judge
from rrpo.judges.recogniser import Recogniser
from rrpo.judges.sample_table import TABLE, Models, by_checkpoint, summary, tabulate
from rrpo.judges.samples import load_samples
from rrpo.models.codec import Codec
from rrpo.pipeline.stages import Context

GOLD = "val"


def build(config: AssessConfig, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write `TABLE`, and ``scalars.json`` with the checkpoints' first and last numbers. Reads the inputs of `tabulate`."""
    samples, prompts = load_samples(inputs)
    models = Models(
        codec=Codec.load(inputs["codec"], context.device),
        recogniser=Recogniser.load(inputs["recogniser"], context.device),
        emotions=Judge.load(inputs[GOLD], context.device).emotions,
        opinions={},
    )
    table = tabulate(samples, prompts, inputs, models, context.report)
    table.to_parquet(out / TABLE, index=False)
    points = by_checkpoint(table, models.emotions, GOLD)
    (out / "scalars.json").write_text(json.dumps(summary(points, GOLD)))
