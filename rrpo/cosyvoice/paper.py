"""The profile ``paper``: RRPO's setting on CosyVoice2-0.5B as far as known, the source of each value, and the resources needed.

HIGH, MED: how sure we are of a value that we know from notes on a publication. *declared*: no source gives it. Memory is computed
from sizes; hours are only given where a step was measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rrpo.config import OFF, FinetuneConfig, OptimizeConfig, RewardModelConfig
from rrpo.cosyvoice import layout
from rrpo.cosyvoice.config import CosyVoiceConfig, LoraConfig, SupervisedConfig
from rrpo.judges.config import RecogniserConfig

UTTERANCES, BATCH = 10_000, 32
PAPER = CosyVoiceConfig(
    reward_model=RewardModelConfig(dim=512, layers=6, heads=8, subsample=2),
    pretrain=FinetuneConfig(steps=3 * UTTERANCES // BATCH, batch=BATCH, lr=1e-4, regularizers=OFF),
    finetune=FinetuneConfig(steps=3 * UTTERANCES // BATCH, batch=BATCH, lr=1e-5),
    recogniser=RecogniserConfig(dim=256, steps=5 * UTTERANCES // BATCH, batch=BATCH),
    supervised=SupervisedConfig(steps=3 * UTTERANCES // BATCH, batch=BATCH),
    optimize=OptimizeConfig(
        steps=UTTERANCES // BATCH,
        batch=BATCH,
        lr=1e-5,
        warmup=0,
        beta=0.1,
        tau=(2.0, 1.0, 0.8),
        emotion_weight=0.5,
        content_weight=5.0,
        checkpoints=(0, 78, 156),
    ),
)
"""Settings of the arm ``rrpo``; other arms differ only in the regularizers of the reward model."""
SOURCES: Mapping[str, tuple[str, str]] = {
    "utterances": (f"{UTTERANCES:,} of one speaker, five emotions", "RRPO, MED; the corpus is yours"),
    "epsilon": (f"{PAPER.finetune.regularizers.epsilon:g}", "RRPO, MED"),
    "mixup": (
        f"all utterances, {PAPER.finetune.regularizers.mix_db_low:g} to {PAPER.finetune.regularizers.mix_db_high:g} dB",
        "range: arXiv 2512.04551; on tokens, which have no energies, in our form",
    ),
    "alpha, epsilon_adv": ("0.5, 0.5", "RRPO, MED"),
    "reward model's rate": (f"{PAPER.finetune.lr:g}", "RRPO, MED, on a pre-trained speech encoder"),
    "reward model's network": ("6 layers of 512 on FSQ digits", "declared; RRPO's recognizes emotion in audio"),
    "reward model's updates": (f"{PAPER.pretrain.steps} plain at 1e-4, {PAPER.finetune.steps} robust", "declared"),
    "supervised fine-tuning": (
        f"{PAPER.supervised.steps} updates at {PAPER.supervised.lr:g}, the same utterances",
        "RRPO uses the same for SFT, reward model and optimization, MED; rate: CosyVoice2's recipe, HIGH; updates declared",
    ),
    "tau": ("2, 1, 0.8 in equal parts", "HPRO (2606.28249), MED"),
    "policy's rate": (f"{PAPER.optimize.lr:g}, Adam", "HPRO, MED; CosyVoice2's GRPO recipe: 1e-6"),
    "beta": (f"{PAPER.optimize.beta:g}, KL summed over an utterance", "DiffRO (2507.05911), MED; RRPO's is unknown"),
    "reward weights": ("emotion 0.5, content 5", "HPRO, MED; content here: CTC of characters from tokens"),
    "batch": (f"{BATCH} roll-outs", "CosyVoice2's GRPO recipe, HIGH; RRPO's is unknown"),
    "updates": (
        f"{PAPER.optimize.steps}, as many roll-outs as utterances; two passes over the half for training",
        "declared; RRPO's is unknown",
    ),
    "longest roll-out": (f"{PAPER.max_tokens} tokens", "CosyVoice2's GRPO recipe, HIGH"),
    "precision": (f"{PAPER.precision}, weights and optimizer in float32", "declared"),
    "hardware": ("8 x A800", "RRPO, MED; the plan below is for this code, on one GPU"),
}
"""Setting -> (value, source)."""
SPEECH, TEXT = 200, 40
"""Tokens of a roll-out (8 s) and of a prompt assumed by plan and measurement; declared."""
GIB = 2**30


def memory(
    config: Mapping[str, int], *, rows: int, rank: int, precision: str, recompute: bool = False
) -> dict[str, int]:
    """Compute the GPU memory in bytes by formula, for ``rows`` roll-outs per forward pass of `SPEECH` tokens after `TEXT`.

    - ``weights``: policy and reference, float32; ``gradients`` and ``adam`` (two moments): of the trained weights, float32.
    - ``copies``: fused copies of the layers' weights in the compute type, kept for the gradient.
    - ``activations``, kept for the gradient per position and layer: 2 D values in float32 (inputs of the norms), and 5 D + 2 D_kv
      + 4 F values in the compute type (inputs of the projections, queries, keys, values, attention output, gate, its SiLU, up,
      their product). With ``recompute``, these are kept for the last layer and the layer being recomputed, and D float32 values
      for each other layer.
    - ``logits``: about ten float32 values per position and code (logits, reference, softmax, KL, Gumbel noise, relaxed tokens).
    - ``total``: the sum, without fragmentation and the allocator's cache.
    """
    shapes = {name: shape for name, shape in layout.expected_shapes(config).items() if name != layout.HEAD}
    adapted = [shape for name, shape in shapes.items() if name.endswith("_proj.weight")]
    total = sum(map(math.prod, shapes.values()))
    trained = sum(rank * sum(shape) for shape in adapted) if rank else total
    dim, layers = config["hidden_size"], config["num_hidden_layers"]
    kv_dim = dim // config["num_attention_heads"] * config["num_key_value_heads"]
    byte = 2 if precision == "bf16" else 4
    position = 4 * 2 * dim + byte * (5 * dim + 2 * kv_dim + 4 * config["intermediate_size"])
    kept = 2 * position + (layers - 1) * 4 * dim if recompute else layers * position
    needed = {
        "weights": 2 * 4 * total,
        "gradients": 4 * trained,
        "adam": 8 * trained,
        "copies": byte * sum(map(math.prod, adapted)),
        "activations": rows * (SPEECH + TEXT + 2) * kept,
        "logits": rows * (SPEECH + 1) * (layout.CODES + 1) * 4 * 10,
    }
    return needed | {"total": sum(needed.values())}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Timing of an optimization step on this machine, after a warm-up step."""

    rollout: float
    """Seconds to sample the batch."""
    update: float
    """Seconds for forward passes, gradient and Adam's step."""
    peak: int
    """Peak of allocated GPU memory, bytes; 0 on a CPU."""
    device: str
    """Name of the device."""

    @property
    def step(self) -> float:
        """Seconds per step."""
        return self.rollout + self.update


def measure(
    config: OptimizeConfig,
    sizes: Mapping[str, int],
    *,
    device: str,
    micro: int | None,
    rank: int,
    precision: str,
    recompute: bool = False,
    tokens: int = SPEECH,
    steps: int = 2,
    now: Callable[[], float] | None = None,
) -> Measured:
    """Time ``steps`` steps with random weights of these ``sizes`` and ``tokens`` per roll-out. ``now`` replaces the clock."""
    import torch

    from rrpo.corpus.prompts import Prompt
    from rrpo.cosyvoice import standin
    from rrpo.cosyvoice.fsq import FsqDigits
    from rrpo.cosyvoice.optimise import TokenMeter, with_reference
    from rrpo.cosyvoice.policy import CosyVoice2Policy
    from rrpo.models.reward_model import RewardModel
    from rrpo.optimizers.loop import take_step
    from rrpo.optimizers.registry import OPTIMIZERS
    from rrpo.optimizers.rollout import Prompts
    from rrpo.optimizers.scoring import roll_out

    def clock() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    now = now or clock

    with TemporaryDirectory() as folder:
        standin.write(Path(folder), dict(sizes), eos=-1e4, spread=0.02)
        policy = CosyVoice2Policy.load(
            Path(folder), device, precision=precision, max_tokens=tokens, recompute=recompute
        )
    codec, emotions = FsqDigits(device), ("angry", "happy")
    reward = RewardModel(PAPER.reward_model, emotions, codec.codebook.shape[1], codec.audio.floor).to(device)
    reward.eval().requires_grad_(False)
    models = with_reference(policy, LoraConfig(rank=rank) if rank else None, reward, reward, codec, micro=micro)
    examples = [
        Prompt(id=str(i), text="the " * 8, phones=(), speaker="", emotion=emotions[i % 2]) for i in range(config.batch)
    ]
    prompts = Prompts.prepare(examples, policy, codec, emotions)
    method = OPTIMIZERS.create(config.optimizer)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-7, fused=True)
    state = method.start(models, prompts, config, {})
    seconds: list[tuple[float, float]] = []
    for step in range(1 + steps):
        start = now()
        batch = roll_out(models, prompts, config, step)
        middle = now()
        take_step(models, method, state, batch, optimizer, config, TokenMeter)
        seconds.append((middle - start, now() - middle))
    rollout, update = (sum(column[1:]) / steps for column in zip(*seconds, strict=True))
    on_gpu = device != "cpu"
    return Measured(
        rollout=rollout,
        update=update,
        peak=torch.cuda.max_memory_allocated() if on_gpu else 0,
        device=torch.cuda.get_device_name() if on_gpu else "CPU",
    )


def describe(*, micro: int | None, rank: int, precision: str, recompute: bool = False, gpus: int = 1) -> Iterator[str]:
    """Yield the lines of the plan: settings with their sources, and memory by formula."""
    from rrpo.cosyvoice.standin import FULL

    share = -(-PAPER.optimize.batch // gpus)
    rows, width = min(micro or share, share), max(map(len, SOURCES))
    yield "profile paper: RRPO on CosyVoice2-0.5B, tokens only"
    for name, (value, source) in SOURCES.items():
        yield f"  {name:<{width}}  {value}  ({source})"
    needed = memory(FULL, rows=rows, rank=rank, precision=precision, recompute=recompute)
    trained = f"low-rank updates of rank {rank}" if rank else "all weights"
    yield f"memory by formula, {trained} trained, {rows} roll-outs of {SPEECH} tokens per forward pass, {precision}:"
    for name, amount in needed.items():
        yield f"  {name:<{width}}  {amount / GIB:.1f} GiB"
    at_once = min(micro or PAPER.supervised.batch, PAPER.supervised.batch)
    sft = memory(FULL, rows=at_once, rank=0, precision=precision, recompute=recompute)
    first = sft["total"] - sft["weights"] // 2  # without a reference
    yield f"  before it, supervised fine-tuning of all weights on {at_once} utterances per pass: {first / GIB:.1f} GiB"
    largest = max(first, needed["total"])
    yield f"GPUs: {gpus} of more than {largest / GIB:.0f} GiB per arm, with all arms in parallel"


def describe_hours(step: Measured | None, gpus: int = 1) -> Iterator[str]:
    """Yield the lines with the hours of the plan, from a step of `PAPER`'s batch measured on one GPU; None: not measured."""
    if step is None:
        yield "hours: not measured; use --measure on the machine that will run it"
        return
    batch, updates = PAPER.optimize.batch, PAPER.optimize.steps
    yield f"measured on {step.device}: {step.step:.2f} s per step of {batch} roll-outs of {SPEECH} tokens"
    yield f"  roll-out  {step.rollout:.2f} s, {batch * SPEECH / step.rollout:,.0f} tokens per second"
    yield f"  update    {step.update:.2f} s, {batch * SPEECH / step.update:,.0f} tokens per second"
    yield f"  memory    {step.peak / GIB:.1f} GiB peak" if step.peak else "  memory    not measured"
    shared = f"; on {gpus} GPUs at best {updates * step.step / 3600 / gpus:.2f}, not measured" if gpus > 1 else ""
    hours = f"{updates * step.step / 3600:.2f} per arm for {updates} updates{shared}"
    yield f"hours: {hours}; reward models and evaluation are not measured"
