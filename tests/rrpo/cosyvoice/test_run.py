"""End to end on the stand-in: from labelled tokens through reward model, DiffRO and RRPO to an llm.pt that loads."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from saved_tensors import saved_bytes
from typer.testing import CliRunner

from rrpo.arms import arm as named_arm
from rrpo.config import COMBINATIONS, OFF, FinetuneConfig, OptimizeConfig, RewardModelConfig
from rrpo.cosyvoice import layout, run, standin, tokens
from rrpo.cosyvoice.__main__ import Training, app, chosen, settings_of
from rrpo.cosyvoice.config import CosyVoiceConfig, LoraConfig, SupervisedConfig
from rrpo.cosyvoice.fsq import FsqDigits
from rrpo.cosyvoice.paper import PAPER, Measured, describe, describe_hours, measure, memory
from rrpo.cosyvoice.policy import BLANK, CosyVoice2Policy
from rrpo.cosyvoice.reward import LabelledFrames, log_probs, mine_samples, split, train_reward_model
from rrpo.cosyvoice.run import train
from rrpo.cosyvoice.supervised import loss, supervise
from rrpo.cosyvoice.table import compared
from rrpo.errors import InputError
from rrpo.judges.config import RecogniserConfig
from rrpo.models.ensemble import RewardEnsemble, load_reward_model
from rrpo.optimizers import OPTIMIZERS
from rrpo.pipeline.errors import DivergedError, Interrupted
from rrpo.pipeline.stages import Context
from rrpo.regularizers.controls import CONTROLS

CONFIG = CosyVoiceConfig(
    reward_model=RewardModelConfig(dim=16, layers=1, heads=2, subsample=2),
    pretrain=FinetuneConfig(steps=60, batch=16, lr=3e-3, regularizers=OFF),
    finetune=FinetuneConfig(steps=10, batch=16, regularizers=OFF),
    recogniser=RecogniserConfig(dim=8, steps=2, batch=4),
    optimize=OptimizeConfig(
        steps=40,
        batch=16,
        lr=1e-2,
        relaxation="probabilities",
        warmup=0,
        beta=0.001,
        content_weight=0.0,
        checkpoints=(0,),
        eval_prompts=20,
        final_prompts=20,
    ),
    precision="fp32",
    max_tokens=8,
)
QUICK = replace(CONFIG, pretrain=replace(CONFIG.pretrain, steps=2))
"""Reward models that need not be good."""
ONE_UPDATE = replace(QUICK, optimize=replace(QUICK.optimize, steps=1))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = standin.write(tmp_path_factory.mktemp("cosyvoice2"), eos=5.0, spread=0.3)
    standin.write_corpus(folder / "tokens.jsonl")
    return folder


@pytest.mark.parametrize("arm", ["diffro", "rrpo"])
def test_the_proxy_rises_and_the_saved_policy_is_upstreams(release: Path, tmp_path: Path, arm: str) -> None:
    messages: list[str] = []
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "manifest.jsonl").write_text("decoded samples of an earlier run")
    scalars = train(
        release,
        release / "tokens.jsonl",
        tmp_path,
        replace(CONFIG, finetune=replace(CONFIG.finetune, regularizers=named_arm(arm).regularizers)),
        tell=messages.append,
    )
    assert scalars["rm_accuracy"] > 0.8
    assert scalars["end_proxy_logprob"] > scalars["start_proxy_logprob"] + 0.5
    assert scalars["start_kl_token"] == pytest.approx(0.0, abs=1e-5)
    assert scalars["end_kl_token"] > 0.01
    assert any("KL" in line for line in messages)
    assert json.loads((tmp_path / "scalars.json").read_text()) == scalars
    assert json.loads((tmp_path / "settings.json").read_text())["corpus"]["digest"]
    assert not (tmp_path / "audio" / "manifest.jsonl").exists()
    assert compared([tmp_path]).index.tolist() == [f"{tmp_path.name} ({arm})"]
    curves = pd.read_parquet(tmp_path / "curves.parquet")
    assert len(curves) == 40
    assert {"reward_loss", "kl_utterance", "kl_token", "grad_norm"} <= set(curves)
    qwen_config = json.loads((tmp_path / "policy" / BLANK / "config.json").read_text())
    written = torch.load(tmp_path / "policy" / "llm.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == layout.expected_shapes(qwen_config)
    stored = torch.load(release / "llm.pt", weights_only=True)
    assert not torch.equal(written["speech_embedding.weight"], stored["speech_embedding.weight"])
    assert CosyVoice2Policy.load(tmp_path / "policy").max_tokens == 8
    samples = torch.load(tmp_path / "utt2speech_token.pt", weights_only=True)
    assert all(0 <= token < 6561 for row in samples.values() for token in row)


def test_low_rank_updates_and_the_content_reward(release: Path, tmp_path: Path) -> None:
    """Three steps: only adapted layers change, the adapter is written, and the recognizer's loss is not constant."""
    optimize = replace(CONFIG.optimize, steps=3, content_weight=0.5, relaxation="gumbel")
    config = replace(QUICK, lora=LoraConfig(rank=2, targets=("v_proj",)), optimize=optimize)
    scalars = train(release, release / "tokens.jsonl", tmp_path, config)
    assert scalars["end_content_loss"] > 0
    stored, written = (torch.load(p / "llm.pt", weights_only=True) for p in (release, tmp_path / "policy"))
    changed = {name for name in stored if not torch.equal(stored[name], written[name])}
    assert changed == {f"llm.model.model.layers.{i}.self_attn.v_proj.weight" for i in range(2)}
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    train(release, release / "tokens.jsonl", tmp_path, replace(config, lora=None))
    assert not (tmp_path / "adapter").exists(), "of the earlier run"


SEVERAL = replace(
    QUICK,
    finetune=replace(QUICK.finetune, steps=2),
    optimize=replace(QUICK.optimize, steps=3, content_weight=0.5),
    supervised=SupervisedConfig(steps=2, batch=4),
    rounds=1,
)
"""Eight trainings: the reward model, judge, recognizer and supervised fine-tuning, then two of fine-tuning and optimization."""
UPDATES = 4 * 2 + 2 * (2 + 3)


@pytest.fixture(scope="module")
def whole(release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The scalars and weights of `SEVERAL` without an interruption."""
    out = tmp_path_factory.mktemp("whole")
    scalars = train(release, release / "tokens.jsonl", out, SEVERAL)
    return scalars, torch.load(out / "policy" / "llm.pt", weights_only=True)


@pytest.mark.parametrize("updates", [1, 2, 7, 8, 10, 13, 15, UPDATES])
def test_a_stopped_run_goes_on_after_its_last_update(
    release: Path, whole: tuple[dict[str, float], dict[str, torch.Tensor]], tmp_path: Path, updates: int
) -> None:
    """Stopped within a training and at its end: no update is repeated, and the policy is the same, bit for bit."""
    done: list[int] = []

    def run_until(stop: int) -> dict[str, float]:
        context = Context(
            checkpoints=tmp_path / "checkpoints",
            checkpoint_seconds=1e9,
            stop=lambda: len(done) == stop - 1,
            report=lambda step, total: done.append(step),
        )
        return train(release, release / "tokens.jsonl", tmp_path / "out", SEVERAL, context=context)

    with pytest.raises(Interrupted):
        run_until(updates)
    done.append(0)  # the update at which it stopped, which is saved but not reported
    assert run_until(0) == whole[0]
    assert len(done) == UPDATES
    weights = torch.load(tmp_path / "out" / "policy" / "llm.pt", weights_only=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole[1].items())
    assert not list((tmp_path / "checkpoints").rglob("*.ckpt"))


def test_what_the_policy_cannot_use_is_refused_before_any_training(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*arguments: Any, **options: Any) -> None:
        pytest.fail("a reward model is trained")

    monkeypatch.setattr(run, "train_reward_model", trained)
    bored, corpus = tmp_path / "bored.jsonl", release / "tokens.jsonl"
    bored.write_text(corpus.read_text().replace("happy", "bored"))
    with pytest.raises(InputError, match=r"no word for an emotion\n  got: 'bored'"):
        train(release, bored, tmp_path / "out", QUICK)
    (tmp_path / BLANK).symlink_to(release / BLANK)
    with pytest.raises(InputError, match=r"there is no llm\.pt"):
        train(tmp_path, corpus, tmp_path / "out", QUICK)


def test_the_folder_of_checkpoints_is_named_by_the_content_of_the_corpus(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path | None] = []

    def finish(start: object, out: Path, config: CosyVoiceConfig, context: Context, *rest: object) -> dict[str, float]:
        folders.append(context.checkpoints)
        return {}

    monkeypatch.setattr(run, "begin", lambda *arguments: SimpleNamespace(models=dict))
    monkeypatch.setattr(run, "finish", finish)
    first, moved = standin.write_corpus(tmp_path / "tokens.jsonl"), standin.write_corpus(tmp_path / "moved.jsonl")
    context = Context(checkpoints=tmp_path / "checkpoints")
    for corpus in (first, moved):
        train(release, corpus, tmp_path / "out", QUICK, context=context)
    first.write_text(first.read_text().replace("happy", "angry"))
    train(release, first, tmp_path / "out", QUICK, context=context)
    assert folders[0] == folders[1] != folders[2]


def test_parts_share_no_text() -> None:
    row = {"speaker": "a", "emotion": "sad", "tokens": (1,)}
    many = [tokens.TokenUtterance(id=str(i), text=f"text {i // 3}", **row) for i in range(60)]
    parts = split(many, (0.5, 0.3, 0.2), seed=0)
    assert sorted(u.id for part in parts for u in part) == sorted(u.id for u in many)
    texts = [{u.text for u in part} for part in parts]
    assert [len(part_texts) for part_texts in texts] == [10, 6, 4]
    assert len(set.union(*texts)) == 20
    with pytest.raises(ValueError, match="too few texts"):
        split(many[:3], (0.5, 0.5), seed=0)


def test_the_first_utterances_of_a_part_represent_it() -> None:
    """The corpus lists one emotion after the other, as an import does; half a part still has both in about equal shares."""
    row = {"speaker": "a", "tokens": (1,)}
    emotions = ["angry"] * 100 + ["sad"] * 100
    many = [tokens.TokenUtterance(id=str(i), text=f"text {i}", emotion=e, **row) for i, e in enumerate(emotions)]
    for part in split(many, (0.5, 0.5), seed=0):
        first = [utterance.emotion for utterance in part[:50]]
        assert 15 <= first.count("angry") <= 35


@pytest.mark.parametrize("name", [*CONTROLS, "rrpo"])
def test_every_regulariser_trains_a_reward_model(release: Path, name: str) -> None:
    data = LabelledFrames.of(tokens.read(release / "tokens.jsonl"), FsqDigits())
    config = replace(CONFIG.finetune, steps=2, regularizers=named_arm(name).regularizers)
    plain, robust = (
        train_reward_model(data, ("angry", "happy", "sad"), variant, model=CONFIG.reward_model)
        for variant in (replace(config, regularizers=OFF), config)
    )
    assert torch.isfinite(log_probs(robust, data)).all()
    assert not torch.equal(log_probs(robust, data), log_probs(plain, data))


@pytest.fixture(scope="module")
def single(release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The scalars of one update by a single reward model."""
    return train(release, release / "tokens.jsonl", tmp_path_factory.mktemp("single"), ONE_UPDATE)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_several_reward_models_are_combined(
    release: Path, single: dict[str, float], tmp_path: Path, combination: str
) -> None:
    config = replace(ONE_UPDATE, members=2, combination=combination)
    folders = ("one", "one", "two") if combination == "mean" else ("one", "two")
    results = [train(release, release / "tokens.jsonl", tmp_path / name, config) for name in folders]
    assert all(result == results[0] for result in results), "also when a folder is written again"
    model = load_reward_model(tmp_path / "one" / "reward_model")
    assert isinstance(model, RewardEnsemble) == (combination != "weights")
    assert single["end_proxy_logprob"] != results[0]["end_proxy_logprob"]


def test_samples_that_fool_the_reward_model_are_added_with_the_judges_label() -> None:
    """Of four answers, two fool it; the more confident one comes first, and an empty answer counts as none."""
    codec, emotions = FsqDigits(), ("happy", "sad")
    row = {"text": "a", "speaker": "b"}
    utterances = [tokens.TokenUtterance(id=name, emotion="sad", tokens=(1,), **row) for name in "abcde"]
    samples = [[3], [5], [7], [9], []]
    proxy, judge = Table(emotions, {3: 0.6, 5: 0.9, 7: 0.2, 9: 0.8}), Table(emotions, {3: 0.1, 5: 0.2, 7: 0.1, 9: 0.9})
    fooling = mine_samples(utterances, samples, proxy, judge, codec, limit=5)
    assert [(utterance.id, utterance.emotion, utterance.tokens) for utterance in fooling] == [
        ("mined-b", "happy", (5,)),
        ("mined-a", "happy", (3,)),
    ]
    assert [utterance.id for utterance in mine_samples(utterances, samples, proxy, judge, codec, limit=1)] == [
        "mined-b"
    ]
    assert mine_samples(utterances[4:], samples[4:], proxy, judge, codec, limit=5) == []


class Table(torch.nn.Module):
    """P(sad) by the first token."""

    def __init__(self, emotions: tuple[str, ...], sad: dict[int, float]) -> None:
        super().__init__()
        self.emotions, self.sad = emotions, sad

    def log_probs(self, F: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        ids, _ = FsqDigits().encode(F, lengths)
        p = torch.tensor([self.sad[token] for token in ids[:, 0].tolist()])
        return torch.stack([1 - p, p], 1).log()


def test_an_iterated_reward_model_starts_every_policy_from_sft(release: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    config = replace(CONFIG, rounds=1, optimize=replace(CONFIG.optimize, steps=4))
    twice = train(release, release / "tokens.jsonl", tmp_path / "twice", config, tell=messages.append)
    once = train(release, release / "tokens.jsonl", tmp_path / "once", replace(config, rounds=0))
    (line,) = (line for line in messages if line.startswith("round 1 of 1:"))
    assert int(line.split()[4]) > 0
    assert twice["start_val_logprob"] == once["start_val_logprob"], "the same SFT policy"
    assert twice["start_proxy_logprob"] != once["start_proxy_logprob"], "another reward model"


def test_memory_by_hand_and_a_plan_that_says_what_was_not_measured() -> None:
    """Two float32 copies of the weights; gradients and Adam take 12 bytes per trained weight; rank 2 trains (rows + columns) x
    2."""
    numbers = sum(torch.Size(s).numel() for n, s in layout.expected_shapes(standin.FULL).items() if n != layout.HEAD)
    full = memory(standin.FULL, rows=32, rank=0, precision="bf16")
    assert (full["weights"], full["gradients"] + full["adam"]) == (8 * numbers, 12 * numbers)
    small = memory(standin.FULL, rows=32, rank=2, precision="bf16")
    assert small["gradients"] == 4 * 24 * 2 * (4 * 896 + 2 * (896 + 128) + 3 * (896 + 4864))
    assert (
        small["activations"]
        == full["activations"]
        == 2 * memory(standin.FULL, rows=16, rank=0, precision="bf16")["activations"]
    )
    printed = [*describe(micro=None, rank=0, precision="bf16"), *describe_hours(None)]
    assert any("hours: not measured" in line for line in printed)
    assert any(f"{full['total'] / 2**30:.1f} GiB" in line for line in printed)
    low_rank = list(describe(micro=4, rank=2, precision="bf16", recompute=True))
    trained_first = memory(standin.FULL, rows=4, rank=0, precision="bf16", recompute=True)
    first = trained_first["total"] - 4 * numbers
    assert any(f"on 4 utterances per pass: {first / 2**30:.1f} GiB" in line for line in low_rank), "without a reference"
    assert f"more than {first / 2**30:.0f} GiB" in low_rank[-1], "which is more than the optimization needs"


def test_hours_of_a_measured_step() -> None:
    """312 updates of 36 s are 3.12 hours; 6,400 tokens in 10 s and in 26 s."""
    printed = list(describe_hours(Measured(rollout=10.0, update=26.0, peak=0, device="CPU")))
    assert printed[-1].startswith("hours: 3.12 per arm for 312 updates")
    assert "640 tokens per second" in printed[1]
    assert "246 tokens per second" in printed[2]
    config = OptimizeConfig(batch=2, content_weight=0.0)
    step = measure(config, standin.TINY, device="cpu", micro=1, rank=2, precision="fp32", tokens=4, steps=1)
    assert step.step > 0


def test_what_the_layers_keep_for_the_gradient_is_the_formulas(tmp_path: Path) -> None:
    sizes = {**standin.TINY, "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
    for precision in ("fp32", "bf16"):
        policy = CosyVoice2Policy.load(standin.write(tmp_path, sizes), precision=precision)
        needed = memory(policy.description, rows=2, rank=0, precision=precision)
        assert saved_bytes(policy) == pytest.approx(needed["activations"] + needed["copies"], rel=0.1)


def test_the_commands_say_what_they_do(release: Path, tmp_path: Path) -> None:
    """A stand-in is written, checked and trained on; errors end with status 2."""
    run, tiny, out = CliRunner().invoke, str(tmp_path / "tiny"), str(tmp_path / "out")
    assert run(app, ["standin", tiny]).exit_code == 0
    assert "31 tensors" in run(app, ["check", tiny]).output
    arguments = (
        f"train {tiny} {tiny}/tokens.jsonl --out {out} --batch 2 --content 0 --max-tokens 4 --precision fp32".split()
    )
    result = run(
        app,
        [
            *arguments,
            *["--arm", "diffro", "--steps", "1", "--reward-steps", "1", "--robust-steps", "0", "--sft-steps", "1"],
        ],
    )
    assert result.exit_code == 0, result.output
    compared = run(app, ["table", out]).output
    assert "out (diffro)" in compared
    assert "KL/token" in compared
    assert run(app, ["check", str(tmp_path)]).exit_code == 2
    for wrong, words in (
        (["--lr", "0"], "lr must be in"),
        (["--batch", "30", "--optimizer", "grpo"], "multiple of 4"),
        (["--device", "gpu"], "no device of that name"),
        (["--sft-steps", "-1"], "steps must be in [0, inf)"),
        (["--max-tokens", "0"], "max_tokens must be in [1, inf)"),
        (["--best-of", "0"], "best_of must be in [1, inf)"),
        (["--precision", "fp16"], "precision must be one of fp32, bf16"),
        (["--lora", "-8"], "--lora must be positive"),
        (["--micro", "0"], "--micro must be positive"),
        (["--out", f"{tiny}/llm.pt"], "the folder of the results cannot be written"),
    ):
        result = run(app, [*arguments, *wrong])
        assert (result.exit_code, words in result.output) == (2, True), result.output
    for wrong, words in (
        (["--precision", "fp16"], "no precision of that name"),
        (["--lora", "-8"], "--lora must be positive"),
        (["--micro", "-1"], "--micro must be positive"),
        (["--gpus", "0"], "--gpus must be positive"),
    ):
        result = run(app, ["plan", *wrong])
        assert (result.exit_code, words in result.output) == (2, True), result.output
    assert run(app, ["table", str(tmp_path)]).exit_code == 2
    assert run(app, [*arguments, "--arm", "sft"]).exit_code == 2
    assert "not measured" in run(app, ["plan"]).output


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            DivergedError("loss"),
            "failed (diverged): DivergedError: loss\nfix: if the optimization of the policy diverged",
        ),
        (RuntimeError("CUDA out of memory"), "fix: give a smaller --micro to resume; or --recompute"),
        (OSError(errno.ENOSPC, "No space left"), "fix: free space, and give the same command to resume"),
        (TypeError("x"), "failed (bug): TypeError: x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_training_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("rrpo.cosyvoice.run.train", failing)
    result = CliRunner().invoke(app, ["train", str(tmp_path), str(tmp_path), "--out", str(tmp_path)])
    assert (result.exit_code, words in result.output) == (1, True), result.output


def test_a_training_that_is_stopped_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rrpo.cosyvoice.run.train", stopped)
    result = CliRunner().invoke(app, ["train", str(tmp_path), str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 130, result.output
    assert "Checkpoints are kept; run the same command to resume." in result.output


def test_options_become_the_settings_of_every_part() -> None:
    files: dict[str, Any] = {"model": Path("m"), "tokens": Path("t"), "out": Path("o")}
    assert settings_of(Training(**files)) == replace(
        PAPER, supervised=replace(PAPER.supervised, seed=0), lora=None, best_of=1
    )
    given = {"seed": 7, "steps": 3, "batch": 8, "lr": 3e-4, "beta": 0.2, "content": 0.5, "optimizer": "grpo:samples=4"}
    given |= {"reward_steps": 11, "robust_steps": 12, "sft_steps": 13, "max_tokens": 99, "best_of": 3}
    made = settings_of(Training(**files, **given, arm="ls", lora=4, recompute=True, precision="fp32"))
    seeded = (made.pretrain, made.finetune, made.supervised, made.recogniser, made.optimize, made.lora)
    assert [part.seed for part in seeded if part] == [7] * 6
    assert (made.optimize.steps, made.optimize.batch, made.optimize.lr, made.optimize.beta) == (3, 8, 3e-4, 0.2)
    assert (made.optimize.content_weight, made.optimize.optimizer) == (0.5, OPTIMIZERS.choice("grpo", samples=4))
    assert (made.pretrain.steps, made.finetune.steps, made.supervised.steps) == (11, 12, 13)
    assert (made.max_tokens, made.best_of, made.recompute, made.precision) == (99, 3, True, "fp32")
    assert made.finetune.regularizers == named_arm("ls").regularizers
    assert made.lora == LoraConfig(rank=4, seed=7)


def test_progress_is_told_while_it_trains(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrpo.cosyvoice.__main__.paced", lambda write: write)
    arguments = (
        f"train {release} {release}/tokens.jsonl --out {tmp_path} --batch 2 --content 0 --max-tokens 4 --precision fp32"
    )
    steps = "--arm diffro --steps 2 --reward-steps 3 --robust-steps 0 --sft-steps 1"
    result = CliRunner().invoke(app, [*arguments.split(), *steps.split()])
    assert result.exit_code == 0, result.output
    for line in ("update 3 of 3", "update 1 of 1", "update 2 of 2"):
        assert f"  {line}" in result.output.splitlines()


@pytest.mark.parametrize("name", ["reinforce", "grpo"])
def test_optimisers_that_need_rollouts_alone_run_on_it(release: Path, tmp_path: Path, name: str) -> None:
    optimize = replace(CONFIG.optimize, steps=2, optimizer=OPTIMIZERS.choice(name))
    scalars = train(release, release / "tokens.jsonl", tmp_path, replace(QUICK, optimize=optimize))
    assert scalars["end_kl_token"] > 0


def parallel_corpus(path: Path) -> Path:
    """Write a corpus with every text in three emotions."""
    rows = [json.loads(line) for line in standin.write_corpus(path).read_text("utf-8").splitlines()]
    lines = (json.dumps(row | {"text": f"the cat {index // 3}"}) for index, row in enumerate(rows))
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.mark.parametrize("options", [{}, {"pairs": "samples", "texts": 8, "candidates": 2}])
def test_preferences_are_pairs_of_the_corpus_or_of_samples(
    release: Path, tmp_path: Path, options: dict[str, str | int]
) -> None:
    choice = OPTIMIZERS.choice("emo-dpo", **options)
    config = replace(QUICK, optimize=replace(QUICK.optimize, steps=2, optimizer=choice))
    train(release, parallel_corpus(tmp_path / "tokens.jsonl"), tmp_path / "out", config)
    curves = pd.read_parquet(tmp_path / "out" / "curves.parquet")
    assert {"dpo", "sft", "preferred"} <= set(curves)
    count = config.optimize.batch * curves["dpo"].iloc[0] / math.log(2)  # of pairs with a better y+: no change yet
    assert count == pytest.approx(round(count), abs=1e-3)
    assert round(count) in (range(1, 17) if options else [16])


def test_best_of_n_raises_the_proxy_without_an_update(release: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, optimize=replace(CONFIG.optimize, steps=0))
    one, four = (
        train(release, release / "tokens.jsonl", tmp_path / str(n), replace(config, best_of=n)) for n in (1, 4)
    )
    assert four["end_proxy_logprob"] > one["end_proxy_logprob"] + 0.1


def test_an_optimiser_is_chosen_with_its_options() -> None:
    assert chosen("emo-dpo:pairs=samples,texts=8") == OPTIMIZERS.choice("emo-dpo", pairs="samples", texts=8)
    assert chosen("diffro") == OPTIMIZERS.choice("diffro")


def test_the_kl_is_to_the_supervised_policy(release: Path, tmp_path: Path) -> None:
    """Cross-entropy falls from nearly ln 6562, and the KL is 0 before the first update."""
    config = replace(ONE_UPDATE, supervised=SupervisedConfig(steps=10, batch=16, lr=1e-2))
    scalars = train(release, release / "tokens.jsonl", tmp_path, config)
    assert scalars["sft_last_loss"] < scalars["sft_first_loss"] - 0.5
    assert scalars["start_kl_token"] == pytest.approx(0.0, abs=1e-5)
    assert scalars["end_kl_token"] > 0


def test_supervised_training_by_micro_batches_is_the_same(release: Path) -> None:
    utterances = tokens.read(release / "tokens.jsonl")[:7]
    settings = SupervisedConfig(steps=3, batch=7, lr=1e-3)
    trained = {micro: CosyVoice2Policy.load(release) for micro in (None, 3)}
    losses = {m: supervise(policy, utterances, settings, Context(micro=m)) for m, policy in trained.items()}
    assert losses[3] == pytest.approx(losses[None], rel=1e-3), "the third loss is that of the updates before it"
    assert losses[3][2] < losses[3][0] - 0.01
    assert all(weight.grad is None for weight in trained[3].parameters()), "gradients are gigabytes"


def test_cross_entropy_is_the_mean_of_the_sampled_positions(release: Path) -> None:
    """Two utterances of 1 and 2 tokens: the mean over their 2 + 3 predictions, computed one by one."""
    policy = CosyVoice2Policy.load(release)
    row = {"speaker": "a", "emotion": "sad"}
    two = [tokens.TokenUtterance(id=str(i), text="the cat" * (i + 1), tokens=(5, 7)[: i + 1], **row) for i in range(2)]
    losses = [float(loss(policy, [utterance]).detach()) for utterance in two]
    assert float(loss(policy, two).detach()) == pytest.approx((2 * losses[0] + 3 * losses[1]) / 5, rel=1e-5)
    logits = policy.logits(policy.prompt_ids([two[0].prompt]), torch.tensor([[5]]))[0].log_softmax(-1).detach()
    assert losses[0] == pytest.approx(-float(logits[0, 5] + logits[1, 6561]) / 2, rel=1e-5)
