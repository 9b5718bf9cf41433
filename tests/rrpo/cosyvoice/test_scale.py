"""Accumulation, recomputation and several processes: results equal those of one process with the whole batch."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from saved_tensors import saved_bytes

from rrpo.config import OFF, FinetuneConfig, OptimizeConfig, RewardModelConfig
from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice import standin
from rrpo.cosyvoice.config import CosyVoiceConfig, SupervisedConfig
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.optimise import cheapest, optimise
from rrpo.cosyvoice.paper import memory
from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.cosyvoice.reward import NoContent
from rrpo.cosyvoice.run import train
from rrpo.errors import InputError
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers import OPTIMIZERS
from rrpo.optimizers.base import Batch
from rrpo.optimizers.parallel import Processes
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import compute_rewards
from rrpo.packages import present

EMOTIONS = ("angry", "happy")
CHILD = """
import pickle, sys
from pathlib import Path
from rrpo.cosyvoice.run import train
from rrpo.pipeline.stages import Context

model, corpus, out, config = map(Path, sys.argv[1:])
context = Context(checkpoints=out / "checkpoints", checkpoint_seconds=0.0)
train(model, corpus, out, pickle.loads(config.read_bytes()), context=context)
"""
CONFIG = OptimizeConfig(
    steps=2, batch=8, lr=1e-3, warmup=0, beta=0.01, content_weight=0.0, checkpoints=(), eval_prompts=4, final_prompts=4
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.write(tmp_path_factory.mktemp("cosyvoice2"), eos=5.0, spread=0.3)


def models_of(release: Path, *, micro: int | None = None, precision: str = "fp32", recompute: bool = False) -> Models:
    policy, reference = (
        CosyVoice2Policy.load(release, max_tokens=8, precision=precision, recompute=recompute) for _ in range(2)
    )
    codec = FsqDigits()
    torch.manual_seed(0)
    reward = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2, subsample=2), EMOTIONS, 8, codec.audio.floor)
    reward.eval().requires_grad_(False)
    return Models(policy, reference.requires_grad_(False), reward, NoContent(), codec, reward, micro)  # type: ignore[arg-type]


def prompts_of(models: Models) -> Prompts:
    examples = [
        Prompt(id=str(i), text="the cat " * (1 + i % 3), phones=(), speaker="", emotion=EMOTIONS[i % 2])
        for i in range(8)
    ]
    return Prompts.prepare(examples, models.policy, models.codec, EMOTIONS)


def trained(models: Models, config: OptimizeConfig = CONFIG) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    prompts = prompts_of(models)
    trajectory = optimise(models, prompts, prompts, config)
    return {name: value.detach() for name, value in models.policy.state_dict().items()}, trajectory.curves  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "steps"), [("diffro", 2), ("grpo", 1)])
def test_accumulated_gradients_are_those_of_the_whole_batch(release: Path, name: str, steps: int) -> None:
    config = replace(CONFIG, steps=steps, optimizer=OPTIMIZERS.choice(name))
    full, accumulated = (trained(models_of(release, micro=micro), config)[1] for micro in (8, 3))
    for a, b in zip(full, accumulated, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-5), key


def test_layers_that_are_computed_once_more_give_the_same_gradient(release: Path) -> None:
    plain, recomputed = (trained(models_of(release, recompute=recompute)) for recompute in (False, True))
    assert plain[1] == recomputed[1]
    assert all(torch.equal(plain[0][name], recomputed[0][name]) for name in plain[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputing_keeps_what_the_formula_says(tmp_path: Path, precision: str) -> None:
    """Autograd keeps the inputs of the layers; the formula also counts one complete layer."""
    sizes = {
        **standin.TINY,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
    }
    policy = CosyVoice2Policy.load(standin.write(tmp_path, sizes), precision=precision, recompute=True)
    plain, less = (
        memory(policy.description, rows=2, rank=0, precision=precision, recompute=recompute)
        for recompute in (False, True)
    )
    assert saved_bytes(policy) < less["activations"] + less["copies"], (
        "without the layer that the gradient computes anew"
    )
    assert less["activations"] < 0.65 * plain["activations"]


def test_the_best_of_n_is_each_prompts_cheapest_sample(release: Path) -> None:
    models = models_of(release)
    prompts = prompts_of(models)
    noises = [torch.rand(8, 8, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    rollouts = [models.policy.sample(prompts.prefix, noise) for noise in noises]
    costs = torch.stack(
        [compute_rewards(models, Batch(0, prompts, rollout), CONFIG).cost(CONFIG) for rollout in rollouts]
    )
    best = cheapest(models, prompts, noises, CONFIG)
    torch.testing.assert_close(compute_rewards(models, Batch(0, prompts, best), CONFIG).cost(CONFIG), costs.amin(0))
    for row, k in enumerate(costs.argmin(0).tolist()):
        n = int(best.lengths[row])
        assert best.tokens[row, :n].tolist() == rollouts[k].tokens[row, : int(rollouts[k].lengths[row])].tolist()


def test_processes_divide_prompts_with_all_their_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row r of k samples of m prompts belongs to prompt r % m."""
    single = Processes("cpu")
    assert single.numbers(4, 2) is None
    two = [Processes("cpu") for _ in range(2)]
    for rank, process in enumerate(two):
        process.count, process.rank = 2, rank
    assert [process.numbers(4, 2) for process in two] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    with pytest.raises(InputError, match="divide among"):
        two[0].numbers(3, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("rrpo.optimizers.parallel.present", lambda name: False)
    with pytest.raises(InputError, match="not installed"):
        Processes.join("cpu")


@pytest.mark.long
@pytest.mark.skipif(not present("accelerate"), reason="accelerate is not installed")
def test_two_processes_on_gloo_learn_what_one_does(release: Path, tmp_path: Path) -> None:
    corpus = standin.write_corpus(tmp_path / "tokens.jsonl")
    short = FinetuneConfig(steps=4, batch=8, regularizers=OFF)
    config = CosyVoiceConfig(
        reward_model=RewardModelConfig(dim=16, layers=1, heads=2, subsample=2),
        pretrain=short,
        finetune=short,
        supervised=SupervisedConfig(steps=1, batch=4),
        optimize=CONFIG,
        precision="fp32",
        max_tokens=6,
    )
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    arguments = [str(path) for path in (release, corpus, tmp_path / "two", tmp_path / "config")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    two = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments], env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}
        )
        for rank in ("0", "1")
    ]
    try:
        train(release, corpus, tmp_path / "one", config)
        assert [process.wait(280) for process in two] == [0, 0]
    finally:
        for process in two:
            process.kill()
    curves = [pd.read_parquet(tmp_path / name / "curves.parquet") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*curves, rtol=1e-3, atol=1e-5)
    weights = [torch.load(tmp_path / name / "policy" / "llm.pt", weights_only=True) for name in ("one", "two")]
    start = torch.load(release / "llm.pt", weights_only=True)
    for name in start:
        moved = (weights[0][name] - start[name]).norm()
        assert (weights[0][name] - weights[1][name]).norm() <= 0.02 * moved + 1e-6, name
