"""``python -m rrpo.cosyvoice train MODEL TOKENS --out OUT``: CosyVoice2 under the project's reward models and optimisers.

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

from rrpo.commands import Plugin, refusing, start
from rrpo.config import ArmConfig, RegularizerConfig
from rrpo.errors import InputError
from rrpo.plugins import Choice

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
Model = Annotated[Path, typer.Argument(help="Folder of CosyVoice2-0.5B: llm.pt and CosyVoice-BlankEN.")]
Out = Annotated[Path, typer.Option(help="Where the result goes.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="bf16 (by autocast) or fp32.")]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="Gradient checkpointing: less memory, a third more time for updates.")
]


@contextmanager
def resumable() -> Iterator[None]:
    """As `refusing`; Ctrl-C is told what is kept."""
    try:
        with refusing():
            yield
    except KeyboardInterrupt:
        print("Stopped. The optimisation's checkpoints are kept; the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130) from None


def given(**options: Any) -> dict[str, Any]:
    """Those that are not left out."""
    return {name: value for name, value in options.items() if value is not None}


def regularizers_of(name: str) -> RegularizerConfig:
    """Those of an arm that is named after them.

    Raises:
        InputError: The arm is none, or changes more than its regularisers.
    """
    from rrpo.arms import BASE, arm

    found = arm(name)
    if found != ArmConfig(regularizers=found.regularizers):
        raise InputError(
            "an arm of this command is named by its regularisers alone",
            got=name,
            fix=f"use {BASE}, or regularisers joined by _; other arms run by python -m ablations.run --grid paper",
        )
    return found.regularizers


def chosen(text: str) -> Choice:
    """The optimiser ``NAME[:OPTION=VALUE,...]``."""
    from rrpo.optimizers import OPTIMIZERS

    name, _, rest = text.partition(":")
    options: dict[str, Any] = dict(entry.partition("=")[::2] for entry in rest.split(",") if entry)
    for key, value in options.items():
        with suppress(ValueError):  # a word is text
            options[key] = json.loads(value)
    return OPTIMIZERS.choice(name, **options)


@app.command()
def check(model: Model) -> None:
    """Load a release and say whether it has CosyVoice2's layout."""
    with resumable():
        from rrpo.cosyvoice.policy import CosyVoice2Policy

        policy = CosyVoice2Policy.load(model)
        weights = sum(parameter.numel() for parameter in policy.parameters())
        types = ", ".join(sorted({str(found).removeprefix("torch.") for found in policy.types.values()}))
        print(f"{model}: CosyVoice2's layout, {len(policy.types) + 1} tensors, {weights / 1e6:.1f} M weights, {types}")


@app.command()
def standin(out: Annotated[Path, typer.Argument(help="Folder to write.")]) -> None:
    """Write a tiny folder with a release's files and keys and random weights, to try commands on."""
    from rrpo.cosyvoice.standin import write, write_corpus

    write(out, eos=6.0)
    write_corpus(out / "tokens.jsonl")
    print(f"{out}: llm.pt, CosyVoice-BlankEN and tokens.jsonl; nothing to conclude from")


@app.command()
def extract(
    onnx: Annotated[Path, typer.Argument(help="speech_tokenizer_v2.onnx.")],
    manifest: Annotated[Path, typer.Argument(help="JSON-lines manifest of labelled audio, as --manifest takes it.")],
    out: Annotated[Path, typer.Option(help="The .jsonl of labelled tokens to write.")],
) -> None:
    """Turn a manifest of labelled audio into labelled speech tokens, which `train` reads."""
    with resumable():
        from rrpo.corpus.manifest import read_manifest
        from rrpo.cosyvoice import tokens
        from rrpo.cosyvoice.extraction import SpeechTokenizer, extract

        asked = {utterance.id: utterance for utterance in read_manifest(manifest, None)}
        audio = {name: Path(utterance.audio) for name, utterance in asked.items() if utterance.audio is not None}
        found = extract(SpeechTokenizer(onnx), audio, print)
        tokens.write_labelled(out, [(asked[name], row) for name, row in found.items()])
        print(f"{out}: {len(found)} of {len(asked)} utterances")


@app.command()
def table(runs: Annotated[list[Path], typer.Argument(help="Folders that `train` wrote.")]) -> None:
    """Compare finished runs: what reward model and held-out judge say before and after, and at what KL."""
    with resumable():
        from rrpo.cosyvoice.table import lines

        print(*lines(runs), sep="\n")


@app.command()
def train(
    model: Model,
    tokens: Annotated[Path, typer.Argument(help="Labelled speech tokens: a folder, .parquet or .jsonl.")],
    out: Out,
    arm: Annotated[
        str, typer.Option(help="Regularisers of the reward model: diffro (none), ls, adv, ls_adv, or a plugin's.")
    ] = "ls_adv",
    optimizer: Annotated[
        str,
        typer.Option(
            help="What turns roll-outs into updates: diffro, reinforce, grpo, emo-dpo, or a plugin's; with options as in "
            "emo-dpo:pairs=samples."
        ),
    ] = "diffro",
    plugin: Plugin = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the policy.")] = None,
    batch: Annotated[int | None, typer.Option(help="Roll-outs an update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's rate for the policy.")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the KL to the start.")] = None,
    content: Annotated[float | None, typer.Option(help="Weight of the character recogniser's loss.")] = None,
    reward_steps: Annotated[int | None, typer.Option(help="Updates of plain reward-model training.")] = None,
    sft_steps: Annotated[int | None, typer.Option(help="Updates of supervised fine-tuning before.")] = None,
    robust_steps: Annotated[int | None, typer.Option(help="Updates of robust fine-tuning.")] = None,
    lora: Annotated[int, typer.Option(help="Rank of low-rank updates; 0 trains all weights.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(help="Longest roll-out, 25 tokens a second.")] = None,
    micro: Annotated[int | None, typer.Option(help="Roll-outs a forward; the gradient is accumulated.")] = None,
    recompute: Recompute = False,
    best_of: Annotated[
        int, typer.Option(min=1, help="Of so many samples of an evaluation prompt the best by the reward counts.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    precision: Precision = "bf16",
    device: Device = "cpu",
) -> None:
    """Train a token reward model, optimise the policy on it, and write an llm.pt that CosyVoice2 reads."""
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
        bool, typer.Option("--measure", help="Time one step of random weights at full size here.")
    ] = False,
    micro: Annotated[int | None, typer.Option(help="Roll-outs a forward. Default: the batch.")] = None,
    lora: Annotated[int, typer.Option(help="Rank of low-rank updates; 0 trains all weights.")] = 0,
    recompute: Recompute = False,
    gpus: Annotated[int, typer.Option(min=1, help="That share each batch.")] = 1,
    precision: Precision = "bf16",
) -> None:
    """Say what the profile `paper` needs: every setting with its source, memory by formula, hours where a step was measured."""
    with resumable():
        from rrpo.cosyvoice import paper
        from rrpo.cosyvoice.standin import FULL

        sizes: dict[str, Any] = {"micro": micro, "rank": lora, "precision": precision, "recompute": recompute}
        print(*paper.describe(**sizes, gpus=gpus), sep="\n", flush=True)
        step = None
        if measure:
            config = replace(paper.PAPER.optimize, content_weight=0.0)
            step = paper.measure(config, FULL, device=device, **sizes)
        print(*paper.tell(step, gpus), sep="\n")


def main() -> None:
    """Entry point."""
    start(app, "rrpo.cosyvoice")


if __name__ == "__main__":
    main()
