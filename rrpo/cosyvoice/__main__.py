"""Command line for training CosyVoice2: ``python -m rrpo.cosyvoice train MODEL TOKENS --out OUT``.

Exit status: 0 when done, 2 for bad input, 130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rrpo.commands import Plugin, exit_on_input_error, start
from rrpo.config import ArmConfig, RegularizerConfig
from rrpo.errors import InputError
from rrpo.plugins import Choice

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Train and optimize CosyVoice2's language model on labelled speech tokens.",
)
Model = Annotated[Path, typer.Argument(help="Folder of CosyVoice2-0.5B: llm.pt and CosyVoice-BlankEN.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="bf16 (by autocast) or fp32.")]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="Gradient checkpointing: less memory, a third more time per update.")
]


@contextmanager
def resumable() -> Iterator[None]:
    """Handle errors like `exit_on_input_error`; on Ctrl-C, print that the command can be resumed."""
    try:
        with exit_on_input_error():
            yield
    except KeyboardInterrupt:
        print("Stopped. Checkpoints of the optimization are kept; run the same command to resume.", file=sys.stderr)
        raise typer.Exit(130) from None


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def regularizers_of(name: str) -> RegularizerConfig:
    """Return the regularizers of an arm named after them.

    Raises:
        InputError: The arm does not exist, or changes more than regularizers.
    """
    from rrpo.arms import BASE, arm

    config = arm(name)
    if config != ArmConfig(regularizers=config.regularizers):
        raise InputError(
            "this command accepts only arms that differ in their regularizers",
            got=name,
            fix=f"use {BASE}, or regularizers joined by _; run other arms with python -m ablations.run --grid paper",
        )
    return config.regularizers


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
    with resumable():
        from rrpo.cosyvoice.policy import CosyVoice2Policy

        policy = CosyVoice2Policy.load(model)
        weights = sum(parameter.numel() for parameter in policy.parameters())
        types = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in policy.types.values()}))
        print(f"{model}: CosyVoice2's layout, {len(policy.types) + 1} tensors, {weights / 1e6:.1f} M weights, {types}")


@app.command()
def standin(out: Annotated[Path, typer.Argument(help="Folder to write.")]) -> None:
    """Write a tiny stand-in for a release, with its files and keys and random weights, to try the commands."""
    from rrpo.cosyvoice.standin import write, write_corpus

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
    with resumable():
        from rrpo.corpus.manifest import read_manifest
        from rrpo.cosyvoice import tokens
        from rrpo.cosyvoice.extraction import SpeechTokenizer, extract

        utterances = {utterance.id: utterance for utterance in read_manifest(manifest, None)}
        audio = {name: Path(utterance.audio) for name, utterance in utterances.items() if utterance.audio is not None}
        extracted = extract(SpeechTokenizer(onnx), audio, print)
        tokens.write_labelled(out, [(utterances[name], row) for name, row in extracted.items()])
        print(f"{out}: {len(extracted)} of {len(utterances)} utterances")


@app.command()
def table(runs: Annotated[list[Path], typer.Argument(help="Output folders of `train`.")]) -> None:
    """Compare finished runs: accuracy by reward model and held-out judge before and after, and the KL."""
    with resumable():
        from rrpo.cosyvoice.table import lines

        print(*lines(runs), sep="\n")


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
    with resumable():
        from rrpo.corpus.manifest import read_manifest
        from rrpo.cosyvoice import tokens
        from rrpo.cosyvoice.audio import CosyVoiceDecoder
        from rrpo.cosyvoice.audio import decode as decode_samples

        samples = tokens.load(run)
        if recordings is not None:
            recorded = {utterance.id: list(utterance.tokens) for utterance in tokens.read(recordings).utterances}
            samples = {name: recorded[name] for name in samples if name in recorded}
        folder = run / ("audio" if recordings is None else "recordings")
        decoded = decode_samples(CosyVoiceDecoder(model), samples, read_manifest(manifest, None), folder, print)
        print(f"{folder}: {len(decoded)} samples and their manifest")


@app.command()
def judge(
    tokens: Annotated[Path, typer.Argument(help="Labelled speech tokens on which the runs were trained.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of the same utterances' audio.")],
    runs: Annotated[list[Path], typer.Argument(help="Output folders of `train`, decoded by `decode`.")],
    steps: Annotated[int | None, typer.Option(help="Updates of the audio judge. Default: 400.")] = None,
    device: Device = "cpu",
) -> None:
    """Judge decoded samples on audio: emotion by a judge trained on recordings, phone errors by Whisper, DNSMOS."""
    with resumable():
        from rrpo.cosyvoice.judging import TRAINING, lines
        from rrpo.cosyvoice.judging import judge as judge_runs
        from rrpo.pipeline.stages import Context

        config = replace(TRAINING, **given(steps=steps))
        rows = list(judge_runs(tokens, manifest, runs, config, Context(device=device), print))
        print(*lines(rows), sep="\n")


@app.command()
def train(
    model: Model,
    tokens: Annotated[Path, typer.Argument(help="Labelled speech tokens: a folder, .parquet or .jsonl.")],
    out: Out,
    arm: Annotated[
        str,
        typer.Option(
            help="Regularizers of the reward model: rrpo (all), diffro (none), ls, ls_adv, ..., or a plugin's."
        ),
    ] = "rrpo",
    optimizer: Annotated[
        str,
        typer.Option(
            help="Optimizer: diffro, reinforce, grpo, emo-dpo, or a plugin's, with options as in emo-dpo:pairs=samples."
        ),
    ] = "diffro",
    plugin: Plugin = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates of the policy. Default of this and the next six: see `plan`.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Roll-outs per update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam for the policy.")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the KL to the supervised policy.")] = None,
    content: Annotated[float | None, typer.Option(help="Weight of the character recognizer's loss.")] = None,
    reward_steps: Annotated[int | None, typer.Option(help="Updates of plain reward-model training.")] = None,
    sft_steps: Annotated[
        int | None, typer.Option(help="Updates of supervised fine-tuning before the optimization.")
    ] = None,
    robust_steps: Annotated[int | None, typer.Option(help="Updates of robust fine-tuning of the reward model.")] = None,
    lora: Annotated[int, typer.Option(help="Rank of low-rank updates; 0 trains all weights.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(help="Maximum roll-out length in tokens (25 per second).")] = None,
    micro: Annotated[int | None, typer.Option(help="Roll-outs per forward pass; gradients are accumulated.")] = None,
    recompute: Recompute = False,
    best_of: Annotated[
        int, typer.Option(min=1, help="Evaluate the best by reward of this many samples per evaluation prompt.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    precision: Precision = "bf16",
    device: Device = "cpu",
) -> None:
    """Train a reward model of tokens, optimize the policy on it, and write an llm.pt for CosyVoice2."""
    with resumable():
        from rrpo.cosyvoice.config import LoraConfig
        from rrpo.cosyvoice.paper import PAPER
        from rrpo.cosyvoice.run import train
        from rrpo.pipeline.stages import Context

        optimize = given(steps=steps, batch=batch, lr=lr, beta=beta, content_weight=content)
        config = replace(
            PAPER,
            regularizers=regularizers_of(arm),
            pretrain=replace(PAPER.pretrain, seed=seed, **given(steps=reward_steps)),
            finetune=replace(PAPER.finetune, seed=seed, **given(steps=robust_steps)),
            supervised=replace(PAPER.supervised, seed=seed, **given(steps=sft_steps)),
            recogniser=replace(PAPER.recogniser, seed=seed),
            optimize=replace(PAPER.optimize, seed=seed, optimizer=chosen(optimizer), **optimize),
            lora=LoraConfig(rank=lora, seed=seed) if lora else None,
            precision=precision,
            recompute=recompute,
            best_of=best_of,
            **given(max_tokens=max_tokens),
        )
        context = Context(device=device, micro=micro, checkpoints=out / "checkpoints")
        train(model, tokens, out, config, context=context, tell=print)


@app.command()
def plan(
    device: Device = "cpu",
    measure: Annotated[
        bool, typer.Option("--measure", help="Time one step on this machine, with random weights at full size.")
    ] = False,
    micro: Annotated[int | None, typer.Option(help="Roll-outs per forward pass. Default: the batch.")] = None,
    lora: Annotated[int, typer.Option(help="Rank of low-rank updates; 0 trains all weights.")] = 0,
    recompute: Recompute = False,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share each batch.")] = 1,
    precision: Precision = "bf16",
) -> None:
    """Print the plan of the profile `paper`: settings with sources, memory by formula, and hours if a step is measured."""
    with resumable():
        from rrpo.cosyvoice import paper
        from rrpo.cosyvoice.standin import FULL

        sizes: dict[str, Any] = {"micro": micro, "rank": lora, "precision": precision, "recompute": recompute}
        print(*paper.describe(**sizes, gpus=gpus), sep="\n", flush=True)
        step = None
        if measure:
            config = replace(paper.PAPER.optimize, content_weight=0.0)
            step = paper.measure(config, FULL, device=device, **sizes)
        print(*paper.describe_hours(step, gpus), sep="\n")


def main() -> None:
    """Entry point of the command line."""
    start(app, "rrpo.cosyvoice")


if __name__ == "__main__":
    main()
