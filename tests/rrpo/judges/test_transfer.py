"""The transfer matrix on stored tokens of a tiny world: its pairs, and the effect of a shared reward model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from drawn import samples_of

from rrpo.config import RewardModelConfig
from rrpo.corpus.config import EMOTIONS, AudioConfig
from rrpo.corpus.prompts import load_prompts
from rrpo.judges import transfer
from rrpo.judges.config import NoSettings
from rrpo.judges.samples import Samples, decoded
from rrpo.models.codec import Codec
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context


def test_every_pair_is_evaluated_at_the_last_checkpoint(stages: dict[str, Path], tmp_path: Path) -> None:
    prompts = load_prompts(stages["prompts"])
    codec = Codec.load(stages["codec"])
    rng = np.random.default_rng(0)

    def samples(step: int, count: int) -> Samples:
        return samples_of(step, rng.integers(0, codec.vocabulary, (count, 12)).tolist())

    (tmp_path / "sft").mkdir()
    samples(0, len(prompts)).save(tmp_path / "sft")
    inputs = {"eval_prompts": stages["prompts"], "codec": stages["codec"], "sft_samples": tmp_path / "sft"}
    for index, arm in enumerate(("a", "b", "c")):
        torch.manual_seed(min(index, 1))  # the reward models of b and c are one
        for kind in ("samples", "model"):
            inputs[f"{kind} {arm}"] = tmp_path / f"{kind}-{arm}"
            inputs[f"{kind} {arm}"].mkdir()
        model = RewardModel(RewardModelConfig(dim=8, layers=1, heads=2), EMOTIONS, AudioConfig().n_mels, 1e-5)
        model.save(inputs[f"model {arm}"])
        Samples.concatenate([samples(0, 3), samples(7, len(prompts))]).save(inputs[f"samples {arm}"])
    out = tmp_path / "out"
    out.mkdir()
    transfer.build(NoSettings(), inputs, out, Context())

    table = pd.read_parquet(out / transfer.TABLE).set_index(["samples_of", "judged_by"])
    assert len(table) == 9
    targets = torch.tensor([EMOTIONS.index(prompt.emotion) for prompt in prompts])
    for arm in ("a", "b", "c"):
        last = Samples.load(inputs[f"samples {arm}"], len(prompts)).at(7)
        start = Samples.load(inputs["sft_samples"], len(prompts))
        for judge in ("a", "b", "c"):
            model = RewardModel.load(inputs[f"model {judge}"])
            log_probs = [model(*decoded(samples, codec, prompts)).log_softmax(1) for samples in (start, last)]
            accuracy = [float((opinion.argmax(1) == targets).float().mean()) for opinion in log_probs]
            row = table.loc[(arm, judge)]
            assert np.allclose(row[["start_accuracy", "accuracy"]].to_numpy(float), accuracy)
            assert np.isclose(row["logprob"], float(log_probs[1].gather(1, targets[:, None]).mean()), atol=1e-5)
    assert (table.xs("b", level="judged_by")["logprob"] == table.xs("c", level="judged_by")["logprob"]).all()
    assert table.loc[("a", "a"), "logprob"] != table.loc[("a", "b"), "logprob"]
