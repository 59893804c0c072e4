"""`recover`: a short distillation of a pruned model from its original."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from graphprune.cli.output import log, show, show_json
from graphprune.cli.parameters import Json, ModelPath, NumberOfSamples, OutPath, Seed
from graphprune.cli.progress import stages
from graphprune.converters.recovery import RecoverResult
from graphprune.converters.recovery import recover as run
from graphprune.converters.recovery.options import AUGMENTATIONS, LOSSES, MINUTES, PRECISIONS
from graphprune.report import SCHEMA_VERSION


def recover(
    model: ModelPath,
    out: OutPath,
    reference: Annotated[
        Path, typer.Option(metavar="REF", help="The model that was pruned.", show_default=False)
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE.npz",
            help="Samples: arrays named as the model's inputs; labels are optional.",
            show_default=False,
        ),
    ],
    samples: NumberOfSamples = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="How long training may take.", show_default=f"{MINUTES:g}, without --epochs"),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="How often each sample is seen.")] = None,
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = 2e-3,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 64,
    loss: Annotated[str, typer.Option(help=f"{', '.join(LOSSES)}: how outputs are compared.")] = "auto",
    temperature: Annotated[float, typer.Option(help="Of the softmax in kl.")] = 4.0,
    label_weight: Annotated[
        float, typer.Option(help="Share of the labels' cross-entropy, where there are labels.")
    ] = 0.1,
    hidden: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|auto", help="A tensor in between to learn as well. [repeatable]"),
    ] = None,
    hidden_weight: Annotated[float, typer.Option(help="Of these in the loss.")] = 1.0,
    mix: Annotated[float, typer.Option(help="Share of batches whose samples are mixed.")] = 0.5,
    augment: Annotated[
        str | None, typer.Option(metavar="KIND,…", help=f"For pictures: {','.join(AUGMENTATIONS)}.")
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of the samples that nothing is fitted to.")] = 0.1,
    patience: Annotated[
        int, typer.Option(help="Stop after so many of 20 looks at them without anything better.")
    ] = 10,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    precision: Annotated[str, typer.Option(help=f"{' or '.join(PRECISIONS)}, while training.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Of torch and onnxruntime; 0: their own choice.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the run's state there now and then.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Trains a pruned model for some minutes to answer as its original does; needs torch."""
    with stages("recovering") as progress:
        result = run(
            model, out, reference=reference, data=data, samples=samples, epochs=epochs, minutes=minutes,
            batch_size=batch_size, lr=lr, weight_decay=weight_decay, loss=loss, temperature=temperature,
            label_weight=label_weight, hidden=hidden or (), hidden_weight=hidden_weight, mix=mix,
            augment=augment.split(",") if augment else (), held_out=held_out, patience=patience,
            precision=precision, device=device, threads=threads, seed=seed, checkpoint=checkpoint,
            resume=resume, progress=progress,
        )  # fmt: skip
    if json:
        show_json({"schema_version": SCHEMA_VERSION, **result.to_json()})
        return
    show(standings(result), *footer(result))
    for note in result.notes:
        log(f"note: {note}")


def standings(result: RecoverResult) -> Table:
    """Held-out samples before and after."""
    table = Table(title=f"{result.held_out} held-out samples")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    before, after = result.before, result.after
    for name, error in before.error.items():
        row = f"relative squared error of '{name}'"
        table.add_row(row, f"{error:.3g}", f"{after.error[name]:.3g}")
    for name, share in before.agreement.items():
        row = f"first choice of '{name}' is the reference's"
        table.add_row(row, f"{share:.1%}", f"{after.agreement[name]:.1%}")
    if before.accuracy is not None and after.accuracy is not None:
        table.add_row("first choice is the label", f"{before.accuracy:.1%}", f"{after.accuracy:.1%}")
    table.add_row("loss", *(f"{loss:.3g}" for loss in result.loss))
    return table


def footer(result: RecoverResult) -> list[str]:
    """What was done."""
    kinds = ", ".join(f"'{name}' as {kind}" for name, kind in result.kinds.items())
    lines = [
        f"{result.steps} steps, {result.epochs:.3g} epochs of {result.fitted} samples, "
        f"{result.seconds:.0f} s; {result.trained} parameters; {kinds}"
    ]
    if result.hidden:
        lines.append(f"learned in between: {', '.join(result.hidden)}")
    if result.ignored:
        lines.append(f"not learned, since they are no real numbers: {', '.join(result.ignored)}")
    if result.output is not None:
        lines.append(f"written: {result.output}")
    return lines
