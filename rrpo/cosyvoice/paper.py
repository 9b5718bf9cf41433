"""The profile ``paper``: RRPO's setting on CosyVoice2-0.5B as far as it is known, each value with its source, and what it needs.

HIGH, MED: how sure we are of a value that we know from notes on a publication. *declared*: no source gives it. Memory is computed
from sizes; hours are only given where a step was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

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
"""Regularisers of the arm ``ls_adv``; others differ in the reward model's regularisers alone."""
SOURCES: Mapping[str, tuple[str, str]] = {
    "utterances": (f"{UTTERANCES:,} of one speaker, five emotions", "RRPO, MED; the corpus is yours"),
    "epsilon": (f"{PAPER.finetune.regularizers.epsilon:g}", "RRPO, MED"),
    "mixup": ("off", "RRPO mixes (Eq. 3); tokens have no energies, so it cannot be done on them"),
    "alpha, epsilon_adv": ("0.5, 0.5", "RRPO, MED"),
    "reward model's rate": (f"{PAPER.finetune.lr:g}", "RRPO, MED, on a pre-trained speech encoder"),
    "reward model's network": (
        "6 layers of 512 on FSQ digits",
        "declared; RRPO's is a speech emotion recogniser on audio",
    ),
    "reward model's updates": (f"{PAPER.pretrain.steps} plain at 1e-4, {PAPER.finetune.steps} robust", "declared"),
    "supervised fine-tuning": (
        f"{PAPER.supervised.steps} updates at {PAPER.supervised.lr:g}, the same utterances",
        "RRPO uses the same for SFT, reward model and optimisation, MED; rate: CosyVoice2's recipe, HIGH; updates declared",
    ),
    "tau": ("2, 1, 0.8 in equal parts", "HPRO (2606.28249), MED"),
    "policy's rate": (f"{PAPER.optimize.lr:g}, Adam", "HPRO, MED; CosyVoice2's GRPO recipe: 1e-6"),
    "beta": (f"{PAPER.optimize.beta:g}, KL summed over an utterance", "DiffRO (2507.05911), MED; RRPO's is unknown"),
    "reward weights": ("emotion 0.5, content 5", "HPRO, MED; content here: CTC of characters from tokens"),
    "batch": (f"{BATCH} roll-outs", "CosyVoice2's GRPO recipe, HIGH; RRPO's is unknown"),
    "updates": (f"{PAPER.optimize.steps}, one pass over the utterances", "declared; RRPO's is unknown"),
    "longest roll-out": (f"{PAPER.max_tokens} tokens", "CosyVoice2's GRPO recipe, HIGH"),
    "precision": (f"{PAPER.precision}, weights and optimiser in float32", "declared"),
    "hardware": ("8 x A800", "RRPO, MED; the plan below is for this code, on one GPU"),
}
"""Setting -> value and where it is from."""
SPEECH, TEXT = 200, 40
"""Tokens of a roll-out (8 s) and of a prompt that plan and measurement assume; declared."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the GPU while a batch is differentiated."""

    weights: int
    """Policy and reference, float32."""
    gradients: int
    """Float32, of what is trained."""
    adam: int
    """Two moments, float32."""
    copies: int
    """Of the layers' weights, fused and in the compute type, kept for the gradient."""
    activations: int
    """Of the layers, kept for the gradient."""
    logits: int
    """Of all that has a value for each code."""

    @property
    def total(self) -> int:
        """All of it; fragmentation and the allocator's cache come on top."""
        return self.weights + self.gradients + self.adam + self.copies + self.activations + self.logits


def memory(config: Mapping[str, int], *, rows: int, rank: int, precision: str, recompute: bool = False) -> Memory:
    """By formula, for ``rows`` roll-outs a forward of `SPEECH` tokens after `TEXT`.

    Kept for the gradient per position and layer: 2 D values in float32 (what the norms divide), and in the compute type
    5 D + 2 D_kv + 4 F (inputs of the projections, queries, keys, values, what is attended to, gate, its SiLU, up, their product).
    With ``recompute`` that is kept of the last layer and of the one that is computed anew; of the others D values in float32.
    For each code about ten float32 values a position (logits, reference, softmax, KL, Gumbel noise, relaxed tokens).
    """
    numbers = {name: _size(shape) for name, shape in layout.expected_shapes(config).items() if name != layout.HEAD}
    total = sum(numbers.values())
    adapted = {name: shape for name, shape in layout.expected_shapes(config).items() if name.endswith("_proj.weight")}
    trained = sum(rank * sum(shape) for shape in adapted.values()) if rank else total
    dim, feed, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    pairs = dim // config["num_attention_heads"] * config["num_key_value_heads"]
    byte = 2 if precision == "bf16" else 4
    position = 4 * 2 * dim + byte * (5 * dim + 2 * pairs + 4 * feed)
    return Memory(
        weights=2 * 4 * total,
        gradients=4 * trained,
        adam=8 * trained,
        copies=byte * sum(_size(shape) for shape in adapted.values()),
        activations=rows
        * (SPEECH + TEXT + 2)
        * (2 * position + (layers - 1) * 4 * dim if recompute else layers * position),
        logits=rows * (SPEECH + 1) * (layout.CODES + 1) * 4 * 10,
    )


def _size(shape: tuple[int, ...]) -> int:
    found = 1
    for side in shape:
        found *= side
    return found


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One optimisation step on this machine, after one that is not counted."""

    rollout: float
    """Seconds of sampling the batch."""
    update: float
    """Seconds of forward passes, gradient and Adam's step."""
    peak: int
    """Bytes that were allocated at most on a GPU; 0 on a CPU."""
    device: str
    """Its name."""

    @property
    def step(self) -> float:
        """Seconds."""
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
    """Times ``steps`` steps on random weights of these ``sizes`` by ``now``, else by the clock; ``tokens`` a roll-out."""
    import torch

    from rrpo.corpus.prompts import Prompt
    from rrpo.cosyvoice import standin
    from rrpo.cosyvoice.fsq import FsqDigits
    from rrpo.cosyvoice.lora import adapt
    from rrpo.cosyvoice.policy import CosyVoice2Policy
    from rrpo.cosyvoice.reward import NoContent
    from rrpo.judges.emotion import Judge
    from rrpo.judges.recogniser import Recogniser
    from rrpo.models.reward_model import RewardModel
    from rrpo.optimizers.base import Batch
    from rrpo.optimizers.registry import OPTIMIZERS
    from rrpo.optimizers.rollout import Models, Prompts
    from rrpo.optimizers.scoring import roll_out

    def clock() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    now = now or clock

    with TemporaryDirectory() as folder:
        standin.write(Path(folder), dict(sizes), eos=-1e4, spread=0.02)
        policy, reference = (
            CosyVoice2Policy.load(Path(folder), device, precision=precision, max_tokens=tokens, recompute=recompute)
            for _ in range(2)
        )
    if rank:
        adapt(policy, LoraConfig(rank=rank))
    codec, emotions = FsqDigits(device), ("angry", "happy")
    reward = RewardModel(PAPER.reward_model, emotions, codec.codebook.shape[1], codec.audio.floor).to(device)
    models = Models(
        policy=policy,
        reference=reference.requires_grad_(False),
        reward_model=reward.eval().requires_grad_(False),
        recogniser=cast(Recogniser, NoContent()),
        codec=codec,
        val=cast(Judge, reward),
        micro=micro,
    )
    asked = [
        Prompt(id=str(i), text="the " * 8, phones=(), speaker="", emotion=emotions[i % 2]) for i in range(config.batch)
    ]
    prompts = Prompts.prepare(asked, policy, codec, emotions)
    method = OPTIMIZERS.create(config.optimizer)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-7, fused=True)
    state = method.start(models, prompts, config, {})
    seconds: list[tuple[float, float]] = []
    for step in range(1 + steps):
        start = now()
        batch: Batch = roll_out(models, prompts, config, step)
        middle = now()
        for losses in method.updates(models, batch, config, state):
            optimizer.zero_grad(set_to_none=True)
            for part in losses:
                part.loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, config.grad_clip)
            optimizer.step()
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
    """The plan as lines of text: settings with their sources, and memory by formula."""
    from rrpo.cosyvoice.standin import FULL

    share = -(-PAPER.optimize.batch // gpus)
    rows, width = min(micro or share, share), max(map(len, SOURCES))
    yield "profile paper: RRPO on CosyVoice2-0.5B, tokens alone"
    for name, (value, source) in SOURCES.items():
        yield f"  {name:<{width}}  {value}  ({source})"
    needed = memory(FULL, rows=rows, rank=rank, precision=precision, recompute=recompute)
    what = f"low-rank updates of rank {rank}" if rank else "all weights"
    yield f"memory by formula, {what} trained, {rows} roll-outs of {SPEECH} tokens a forward, {precision}:"
    for name in ("weights", "gradients", "adam", "copies", "activations", "logits", "total"):
        yield f"  {name:<{width}}  {getattr(needed, name) / GIB:.1f} GiB"
    yield f"GPUs: {gpus} of more than {needed.total / GIB:.0f} GiB an arm, all arms side by side"


def tell(step: Measured | None, gpus: int = 1) -> Iterator[str]:
    """Hours of the plan, from a step of `PAPER`'s batch measured on one GPU; None: that none was measured."""
    if step is None:
        yield "hours: not measured; give --measure on the machine that is to run it"
        return
    batch, updates = PAPER.optimize.batch, PAPER.optimize.steps
    yield f"measured on {step.device}: a step of {batch} roll-outs of {SPEECH} tokens {step.step:.2f} s"
    yield f"  roll-out  {step.rollout:.2f} s, {batch * SPEECH / step.rollout:,.0f} tokens a second"
    yield f"  update    {step.update:.2f} s, {batch * SPEECH / step.update:,.0f} tokens a second"
    yield f"  memory    {step.peak / GIB:.1f} GiB allocated at most" if step.peak else "  memory    not measured"
    shared = f"; on {gpus} GPUs at best {updates * step.step / 3600 / gpus:.2f}, not measured" if gpus > 1 else ""
    hours = f"{updates * step.step / 3600:.2f} an arm for {updates} updates{shared}"
    yield f"hours: {hours}; reward models and evaluation are not measured"
