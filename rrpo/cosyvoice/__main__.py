"""Command line for training CosyVoice2: ``python -m rrpo.cosyvoice train MODEL TOKENS --out OUT``.

Exit status: 0 when done, 1 if a training failed, 2 for bad input, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rrpo.commands import Plugin, option, options_of, paced, program, training
from rrpo.config import ArmConfig, RegularizerConfig
from rrpo.cosyvoice.config import PRECISIONS, CosyVoiceConfig, LoraConfig
from rrpo.cosyvoice.paper import PAPER
from rrpo.errors import InputError, choose, positive, writable
from rrpo.plugins import Choice

if TYPE_CHECKING:
    from rrpo.corpus.manifest import Utterance

app, main = program(
    "rrpo.cosyvoice",
    no_args_is_help=True,
    help="Train and optimize CosyVoice2's language model on labelled speech tokens.",
)
Model = Annotated[Path, typer.Argument(help="Folder of CosyVoice2-0.5B: llm.pt and CosyVoice-BlankEN.")]
Device = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")]
REMEDIES = {
    "diverged": "if the optimization of the policy diverged, give a lower --lr; everything is then trained anew",
    "oom": "give a smaller --micro to resume; or --recompute, or --lora, with which everything is trained anew",
    "disk": "free space, and give the same command to resume",
}
"""What to do about a failure of a training, by its kind."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Options of how a policy is computed."""

    lora: int = option("Options", 0)
    """Rank of low-rank updates; 0 trains all weights."""
    micro: int | None = option("Options", None)
    """Roll-outs per forward pass; gradients are accumulated. Default: the batch on a GPU, 8 on the CPU. If given, also the
    utterances per forward pass of supervised fine-tuning."""
    recompute: bool = option("Options", False, flag="--recompute")
    """Gradient checkpointing: less memory, a third more time per update."""
    precision: str = option("Options", PAPER.precision)
    """bf16 (by autocast) or fp32."""
    device: Device = "cpu"


@dataclass(frozen=True, kw_only=True)
class Training(Resources):
    """The options of `train`."""

    model: Model
    tokens: Annotated[Path, typer.Argument(help="Labelled speech tokens: a folder, .parquet or .jsonl.")]
    out: Path = option("Options", ...)
    """Folder of the results."""
    arm: str = option("Options", "rrpo")
    """Regularizers of the reward model: rrpo (all), diffro (none), ls, ls_adv, ..., or a plugin's."""
    optimizer: str = option("Options", "diffro")
    """Optimizer: diffro, reinforce, grpo, emo-dpo, or a plugin's, with options as in emo-dpo:pairs=samples."""
    plugin: Plugin = None
    steps: int = option("Options", PAPER.optimize.steps)
    """Updates of the policy."""
    batch: int = option("Options", PAPER.optimize.batch)
    """Roll-outs per update."""
    lr: float = option("Options", PAPER.optimize.lr)
    """Learning rate of Adam for the policy."""
    beta: float = option("Options", PAPER.optimize.beta)
    """Weight of the KL to the supervised policy."""
    content: float = option("Options", PAPER.optimize.content_weight)
    """Weight of the character recognizer's loss."""
    reward_steps: int = option("Options", PAPER.pretrain.steps)
    """Updates of plain reward-model training."""
    sft_steps: int = option("Options", PAPER.supervised.steps)
    """Updates of supervised fine-tuning before the optimization."""
    robust_steps: int = option("Options", PAPER.finetune.steps)
    """Updates of robust fine-tuning of the reward model."""
    max_tokens: int = option("Options", PAPER.max_tokens)
    """Maximum roll-out length in tokens (25 per second)."""
    best_of: int = option("Options", 1)
    """Evaluate the best by reward of this many samples per evaluation prompt."""
    seed: int = option("Options", 0)
    """Random seed."""


@dataclass(frozen=True, kw_only=True)
class Planning(Resources):
    """The options of `plan`."""

    measure: bool = option("Options", False, flag="--measure")
    """Time one step on this machine, with random weights at full size."""
    gpus: int = option("Options", 1)
    """GPUs that share each batch."""


def regularizers_of(name: str) -> RegularizerConfig:
    """Return the regularizers of an arm named after them.

    Raises:
        InputError: The arm does not exist, or changes more than regularizers.
    """
    from rrpo.arms import BASE, arm

    config = arm(name)
    if config != ArmConfig(regularizers=config.regularizers):
        fix = f"use {BASE}, or regularizers joined by _; run other arms with python -m ablations.run --grid paper"
        raise InputError("this command accepts only arms that differ in their regularizers", got=name, fix=fix)
    return config.regularizers


def settings_of(options: Training) -> CosyVoiceConfig:
    """Return the profile `paper` with the options of `train`.

    Raises:
        InputError: An option is out of its range.
    """
    seed = options.seed
    try:
        return replace(
            PAPER,
            pretrain=replace(PAPER.pretrain, seed=seed, steps=options.reward_steps),
            finetune=replace(
                PAPER.finetune, seed=seed, steps=options.robust_steps, regularizers=regularizers_of(options.arm)
            ),
            supervised=replace(PAPER.supervised, seed=seed, steps=options.sft_steps),
            recogniser=replace(PAPER.recogniser, seed=seed),
            optimize=replace(
                PAPER.optimize,
                seed=seed,
                optimizer=chosen(options.optimizer),
                steps=options.steps,
                batch=options.batch,
                lr=options.lr,
                beta=options.beta,
                content_weight=options.content,
            ),
            lora=lora_of(options, seed),
            precision=options.precision,
            recompute=options.recompute,
            best_of=options.best_of,
            max_tokens=options.max_tokens,
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError("an option is out of its range", got=error, fix="give a value in that range") from None


def lora_of(options: Resources, seed: int = 0) -> LoraConfig | None:
    """Return the low-rank updates that the options ask for. Raise InputError for a rank below zero."""
    return LoraConfig(rank=positive("--lora", options.lora), seed=seed) if options.lora else None


def micro_of(options: Resources) -> int | None:
    """Return the roll-outs per forward pass. Raise InputError if there are fewer than one."""
    return options.micro if options.micro is None else positive("--micro", options.micro)


def chosen(text: str) -> Choice:
    """Parse the optimizer ``NAME[:OPTION=VALUE,...]``."""
    from rrpo.optimizers import OPTIMIZERS

    name, _, rest = text.partition(":")
    options: dict[str, Any] = dict(entry.partition("=")[::2] for entry in rest.split(",") if entry)
    for key, value in options.items():
        with suppress(ValueError):  # keep values that are not JSON as strings
            options[key] = json.loads(value)
    return OPTIMIZERS.choice(name, **options)


@app.command()
def check(model: Model) -> None:
    """Load a release and check that it has CosyVoice2's layout."""
    from rrpo.cosyvoice.policy import CosyVoice2Policy

    policy = CosyVoice2Policy.load(model)
    weights = sum(parameter.numel() for parameter in policy.parameters())
    types = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in policy.types.values()}))
    print(f"{model}: CosyVoice2's layout, {len(policy.types) + 1} tensors, {weights / 1e6:.1f} M weights, {types}")


@app.command()
def standin(out: Annotated[Path, typer.Argument(help="Folder to write.")]) -> None:
    """Write a tiny stand-in for a release, with its files and keys and random weights, to try the commands."""
    from rrpo.cosyvoice.standin import write, write_corpus

    writable(out, what="the stand-in cannot be written there", fix="give another folder")
    write(out, eos=6.0)
    write_corpus(out / "tokens.jsonl")
    print(f"{out}: llm.pt, CosyVoice-BlankEN and tokens.jsonl; random weights, for trying the commands only")


@app.command()
def extract(
    onnx: Annotated[Path, typer.Argument(help="speech_tokenizer_v2.onnx.")],
    manifest: Annotated[Path, typer.Argument(help="JSON-lines manifest of labelled audio, from rrpo.corpus import.")],
    out: Annotated[Path, typer.Option(help="File of labelled tokens to write (.jsonl).")],
) -> None:
    """Convert a manifest of labelled audio to labelled speech tokens, the input of `train`."""
    from rrpo.corpus.manifest import read_manifest
    from rrpo.cosyvoice import tokens
    from rrpo.cosyvoice.extraction import SpeechTokenizer, extract

    utterances, tokenizer, report = read_manifest(manifest, None), SpeechTokenizer(onnx), paced(print)

    def others(present: Collection[str]) -> Iterable[tuple[Utterance, list[int]]]:
        if present:
            print(f"{len(present)} utterances were extracted before")
        return extract(tokenizer, (u for u in utterances if u.id not in present), print, report)

    with onnx.open("rb") as model, manifest.open("rb") as lines:
        source = " ".join(hashlib.file_digest(file, "sha256").hexdigest() for file in (model, lines))
    count = tokens.write_labelled(out, others, source)
    print(f"{out}: {count} of {len(utterances)} utterances")


@app.command()
def table(runs: Annotated[list[Path], typer.Argument(help="Output folders of `train`.")]) -> None:
    """Compare finished runs: accuracy by reward model and held-out judge before and after, and the KL."""
    from rrpo.cosyvoice.table import compared, render

    print(render(compared(runs)))


@app.command()
def decode(
    model: Model,
    run: Annotated[Path, typer.Argument(help="Output folder of `train`.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of the labelled audio that was converted by `extract`.")],
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Labelled tokens: decode the recordings' own tokens instead, the best that the decoder can do."
        ),
    ] = None,
) -> None:
    """Decode a run's samples to audio with an installed CosyVoice, into RUN/audio (or RUN/recordings)."""
    from rrpo.corpus.manifest import read_manifest
    from rrpo.cosyvoice import tokens
    from rrpo.cosyvoice.audio import CosyVoiceDecoder
    from rrpo.cosyvoice.audio import decode as decode_samples

    samples = tokens.load(run)
    if recordings is not None:
        recorded = {utterance.id: list(utterance.tokens) for utterance in tokens.read(recordings)}
        samples = {name: recorded[name] for name in samples if name in recorded}
    folder = run / ("audio" if recordings is None else "recordings")
    with training("Stopped. Decoded samples are kept; run the same command to continue."):
        decoded = decode_samples(CosyVoiceDecoder(model), samples, read_manifest(manifest, None), folder, print)
    print(f"{folder}: {len(decoded)} samples and their manifest")


@app.command()
def judge(
    tokens: Annotated[Path, typer.Argument(help="Labelled speech tokens on which the runs were trained.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of the same utterances' audio.")],
    runs: Annotated[list[Path], typer.Argument(help="Output folders of `train`, decoded by `decode`.")],
    steps: Annotated[int, typer.Option(help="Updates of the audio judge.")] = 400,
    device: Device = "cpu",
) -> None:
    """Judge decoded samples on audio: emotion by a judge trained on recordings, phone errors by Whisper, DNSMOS."""
    from rrpo.api import resolve_device
    from rrpo.cosyvoice.judging import TRAINING
    from rrpo.cosyvoice.judging import judge as judge_runs
    from rrpo.cosyvoice.table import render
    from rrpo.pipeline.stages import Context

    report = paced(print)
    context = Context(device=resolve_device(device), report=lambda done, total: report(f"  {done} of {total}"))
    config = replace(TRAINING, steps=positive("--steps", steps))
    with training("Stopped. Nothing is kept of a judgement; run the same command to repeat it.", REMEDIES):
        print(render(judge_runs(tokens, manifest, runs, config, context, print)))


@app.command()
@options_of(Training)
def train(**values: Any) -> None:
    """Train a reward model of tokens, optimize the policy on it, and write an llm.pt for CosyVoice2."""
    options = Training(**values)
    with training("Stopped. Checkpoints are kept; run the same command to resume.", REMEDIES):
        from rrpo.api import resolve_device
        from rrpo.cosyvoice.run import train
        from rrpo.pipeline.stages import Context

        config, report = settings_of(options), paced(print)
        context = Context(
            device=resolve_device(options.device),
            report=lambda done, total: report(f"  update {done} of {total}"),
            micro=micro_of(options),
            checkpoints=options.out / "checkpoints",
        )
        train(options.model, options.tokens, options.out, config, context=context, tell=print)


@app.command()
@options_of(Planning)
def plan(**values: Any) -> None:
    """Print the plan of the profile `paper`: settings with sources, memory by formula, and hours if a step is measured."""
    from rrpo.api import resolve_device
    from rrpo.cosyvoice import paper
    from rrpo.cosyvoice.standin import FULL

    options = Planning(**values)
    device = resolve_device(options.device) if options.measure else options.device
    lora, precision = lora_of(options), choose("precision", options.precision, PRECISIONS)
    sizes: dict[str, Any] = {"rank": lora.rank if lora else 0, "micro": micro_of(options)}
    sizes |= {"precision": precision, "recompute": options.recompute}
    print(*paper.describe(gpus=positive("--gpus", options.gpus), **sizes), sep="\n", flush=True)
    config = replace(PAPER.optimize, content_weight=0.0)
    with training("Stopped.", {"oom": "give a smaller --micro, --recompute or --lora"}):
        step = paper.measure(config, FULL, device=device, **sizes) if options.measure else None
    print(*paper.describe_hours(step, options.gpus), sep="\n")


if __name__ == "__main__":
    main()
