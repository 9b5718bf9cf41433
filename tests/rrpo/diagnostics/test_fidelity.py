"""Stage ``fidelity``: the gradient's predicted changes for swapped tokens against the actual ones."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.config import PolicyConfig, RewardModelConfig
from rrpo.corpus.config import AudioConfig
from rrpo.diagnostics import fidelity
from rrpo.judges.config import FidelityConfig, JudgeConfig
from rrpo.judges.emotion import Judge
from rrpo.masking import valid_mask
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy, Rollout
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.matching import TABLE
from rrpo.optimizers.rollout import Prompts
from rrpo.pipeline.stages import Context

CODES, MELS = 6, 3
CONFIG = FidelityConfig(prompts=5, one_draws=3, many_draws=2, share=0.5, seed=4)
LENGTHS = torch.tensor([7, 1, 4, 10, 5])
ROLLOUT = Rollout(
    tokens=torch.randint(CODES, (5, 10), generator=torch.Generator().manual_seed(0)) * valid_mask(LENGTHS, 10),
    lengths=LENGTHS,
    ended=torch.ones(5, dtype=torch.bool),
)
PROMPTS = Prompts(
    torch.ones(5, 2, dtype=torch.long), torch.zeros(5, dtype=torch.long), torch.tensor([0, 1, 2, 0, 1]), [()] * 5
)


NAMES = [f"rm_fidelity_{kind}_{whose}" for kind in ("one", "many") for whose in ("own", "val")]


class LinearCodec:
    """Decodes to frames that are linear in the tokens' rows."""

    vocabulary = CODES
    table = torch.randn(CODES, MELS, generator=torch.Generator().manual_seed(1))

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        rows = tokens if tokens.is_floating_point() else functional.one_hot(tokens, CODES).float()
        F = (rows @ self.table).repeat_interleave(2, 1)
        return F * valid_mask(2 * lengths, F.shape[1])[..., None], 2 * lengths


class TablePolicy:
    """Logits that are the same at every position; eos is always the most likely."""

    codes = CODES
    row = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, 0.3, 20.0])

    def logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        return self.row.expand(len(tokens), tokens.shape[1] + 1, -1)


def linear(F: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
    return (F * (1.0 + target[:, None, None])).flatten(1).sum(1)


def curved(F: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
    return F.square().flatten(1).sum(1)


def constant(F: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
    return 0 * F.flatten(1).sum(1) - 1.5


def table_of(
    own: fidelity.Opinion, val: fidelity.Opinion, config: FidelityConfig = CONFIG, micro: int | None = None
) -> pd.DataFrame:
    return fidelity.changes(TablePolicy(), LinearCodec(), own, val, PROMPTS, ROLLOUT, config, micro)  # type: ignore[arg-type]


def test_a_reward_linear_in_the_tokens_is_predicted_exactly() -> None:
    table = table_of(linear, linear)
    np.testing.assert_allclose(table["predicted"], table["own"], atol=1e-5)
    assert table["own"].abs().max() > 0.1
    assert fidelity.correlations(table) == pytest.approx(dict.fromkeys(NAMES, 1.0))


def test_a_judge_of_the_opposite_opinion_has_correlation_minus_one() -> None:
    correlations = fidelity.correlations(table_of(linear, lambda *arguments: -linear(*arguments)))
    assert correlations == pytest.approx({name: 1.0 if name.endswith("own") else -1.0 for name in NAMES})


def test_the_change_is_the_swapped_less_the_sampled_and_the_prediction_stops_at_first_order() -> None:
    """R = |F|^2: swapping one code for another changes it by 2 (|new|^2 - |old|^2); the prediction is 4 old (new - old)."""
    table = table_of(curved, curved)
    one = table[table["kind"] == "one"]
    assert (one["own"] - one["predicted"] > 0).all()  # the remainder, 2 |new - old|^2
    assert max(fidelity.correlations(table).values()) < 0.999


def test_a_constant_reward_model_has_no_correlation() -> None:
    assert fidelity.correlations(table_of(constant, linear)) == {}
    assert set(fidelity.correlations(table_of(linear, constant))) == {name for name in NAMES if name.endswith("own")}


def test_every_kind_and_draw_of_every_sample_has_its_row() -> None:
    table = table_of(linear, linear)
    assert len(table.drop_duplicates(["kind", "prompt", "draw"])) == len(table) == 5 * (3 + 2)
    for kind, prompt, swapped in zip(table["kind"], table["prompt"], table["swapped"], strict=True):
        assert swapped == (1 if kind == "one" else {0: 4, 1: 1, 2: 2, 3: 5, 4: 2}[prompt])  # halves go to the even


def test_noise_is_keyed_by_seed_and_draw_and_a_micro_batch_changes_nothing() -> None:
    table = table_of(linear, curved)
    pd.testing.assert_frame_equal(table, table_of(linear, curved))
    pd.testing.assert_frame_equal(table, table_of(linear, curved, micro=2))
    assert not np.allclose(table["own"], table_of(linear, curved, replace(CONFIG, seed=5))["own"])
    single_swaps = table[table["kind"] == "one"].pivot(index="prompt", columns="draw", values="own")
    assert not np.allclose(single_swaps[0], single_swaps[1])
    fewer = table_of(linear, curved, replace(CONFIG, one_draws=1))
    subset = table[(table["kind"] == "many") | (table["draw"] == 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(subset, fewer)


def swapped(count: list[int], u_position: Tensor, u_code: Tensor) -> Tensor:
    logits = TablePolicy.row[:CODES].expand(5, 10, CODES)
    return fidelity.swap(ROLLOUT.tokens, LENGTHS, logits, torch.tensor(count), u_position, u_code)


def test_swaps_respect_lengths_and_are_always_other_codes() -> None:
    noise = torch.Generator().manual_seed(3)
    counts = [3, 1, 0, 10, 5]
    for _ in range(20):
        new = swapped(counts, torch.rand(5, 10, generator=noise), torch.rand(5, 10, generator=noise))
        moved = new != ROLLOUT.tokens
        assert moved.sum(1).tolist() == counts
        assert not (moved & ~valid_mask(LENGTHS, 10)).any()
        assert ((new >= 0) & (new < CODES)).all()


def test_new_codes_follow_the_policy_without_the_sampled_code() -> None:
    """Evenly spaced uniforms: each code gets its share of the renormalized distribution."""
    n = 10_000
    tokens = torch.full((n, 1), 4)
    logits = TablePolicy.row[:CODES].expand(n, 1, CODES)
    code = (torch.arange(n) + 0.5)[:, None] / n
    ones = torch.ones(n, dtype=torch.long)
    new = fidelity.swap(tokens, ones, logits, ones, torch.rand(n, 1), code)
    p = TablePolicy.row[:CODES].exp()
    p[4] = 0
    torch.testing.assert_close(torch.bincount(new[:, 0], minlength=CODES) / n, p / p.sum(), atol=2e-4, rtol=0)


def test_positions_are_those_of_the_smallest_uniforms() -> None:
    u_position = torch.linspace(0.9, 0.1, 10).expand(5, 10)  # falling: the last ones are chosen
    moved = swapped([2, 1, 2, 2, 2], u_position, torch.full((5, 10), 0.5)) != ROLLOUT.tokens
    assert [row.nonzero()[:, 0].tolist() for row in moved] == [[5, 6], [0], [2, 3], [8, 9], [3, 4]]


def test_pearson_by_hand() -> None:
    assert fidelity.pearson(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert math.isnan(fidelity.pearson(np.array([1.0, 2.0]), np.array([0.0, 0.0])))
    assert math.isnan(fidelity.pearson(np.array([1.0, np.nan]), np.array([0.0, 1.0])))


def test_both_opinions_are_log_probabilities_of_the_target() -> None:
    torch.manual_seed(5)
    F, lengths, target = torch.randn(3, 12, 8), torch.tensor([12, 4, 9]), torch.tensor([2, 0, 1])
    model = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), ("a", "b", "c"), 8, 1e-5).eval()
    judge = Judge(JudgeConfig(dim=16), ("a", "b", "c"), AudioConfig(n_mels=8)).eval()
    for network, opinion in ((model, fidelity.reward_of(model)), (judge, fidelity.gold_of(judge))):
        expected = network.log_probs(F, lengths)[range(3), target]
        torch.testing.assert_close(opinion(F, lengths, target), expected)


@pytest.fixture
def inputs(tmp_path: Path, toy_codec: Path) -> dict[str, Path]:
    """Untrained models of every kind, and six prompts."""
    torch.manual_seed(2)
    emotions = ("angry", "happy", "sad")
    folders = {name: tmp_path / name for name in ("policy", "reward_model", "val", "eval_prompts")}
    for folder in folders.values():
        folder.mkdir()
    symbols = [*Policy.SPECIALS, *(f"<{e}>" for e in emotions), "<anna>", "<ben>", "a", "b"]
    config = PolicyConfig(dim=16, layers=1, heads=2, max_tokens=12)
    Policy(config, symbols, Codec.load(toy_codec).vocabulary).save(folders["policy"])
    RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), emotions, 8, 1e-5).save(folders["reward_model"])
    Judge(JudgeConfig(dim=16), emotions, AudioConfig(n_mels=8)).save(folders["val"])
    rows = [
        {
            "id": str(i),
            "text": "ab",
            "phones": ("a", "b"),
            "speaker": ("anna", "ben")[i % 2],
            "emotion": emotions[i % 3],
        }
        for i in range(6)
    ]
    (folders["eval_prompts"] / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {**folders, "codec": toy_codec}


def built(inputs: dict[str, Path], out: Path, context: Context) -> tuple[dict[str, float], pd.DataFrame]:
    out.mkdir()
    fidelity.build(CONFIG, inputs, out, context)
    return json.loads((out / "scalars.json").read_text()), pd.read_parquet(out / TABLE)


def test_the_stage_writes_four_correlations_and_the_swaps(inputs: dict[str, Path], tmp_path: Path) -> None:
    scalars, table = built(inputs, tmp_path / "out", Context())
    assert set(scalars) == set(NAMES)
    assert all(-1 <= value <= 1 for value in scalars.values())
    assert sorted(table["prompt"].unique()) == [0, 1, 2, 3, 4]
    assert list(table) == ["kind", "prompt", "draw", "swapped", "predicted", "own", "val"]
    again, same = built(inputs, tmp_path / "again", Context(micro=2))
    assert again == pytest.approx(scalars, abs=1e-3)
    np.testing.assert_allclose(same["own"], table["own"], atol=1e-5)
    np.testing.assert_array_equal(same["swapped"], table["swapped"])


def test_reward_models_of_a_seed_are_asked_of_the_same_swaps(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The judge's results on the same swaps are bit-identical."""
    other = tmp_path / "other"
    other.mkdir()
    torch.manual_seed(9)
    RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), ("angry", "happy", "sad"), 8, 1e-5).save(other)
    first, second = (
        built({**inputs, "reward_model": model}, tmp_path / name, Context())[1]
        for name, model in (("x", inputs["reward_model"]), ("y", other))
    )
    np.testing.assert_array_equal(first["val"], second["val"])
    assert not np.allclose(first["own"], second["own"])
