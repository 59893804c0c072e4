"""A recovery from beginning to end: what is learned, the training, the weights back into the file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from graphprune.converters.recovery.answers import Answers, Asked, kept
from graphprune.converters.recovery.augment import Augmentation, augmentation
from graphprune.converters.recovery.batches import Batch, Order, cut, parts
from graphprune.converters.recovery.labels import labelled_output
from graphprune.converters.recovery.losses import Loss
from graphprune.converters.recovery.options import Options
from graphprune.converters.recovery.outputs import Kind, Standing, Tally, kind_of
from graphprune.converters.recovery.result import RecoverResult
from graphprune.converters.recovery.tensors import Learned, learned
from graphprune.converters.recovery.torch_answers import TorchAsked, require_device
from graphprune.converters.recovery.training import Training
from graphprune.converters.recovery.written import recovered, require_same
from graphprune.converters.torch_graph import to_torch

from graphprune.calibration.samples import Samples
from graphprune.errors import ModelError
from graphprune.model import Model
from graphprune.progress import Progress

Array = npt.NDArray[np.generic]
#: Samples whose answers say what kind of numbers an output holds.
_LOOKED_AT = 256
#: Draws what is done to held-out samples; no run has so many epochs.
_NO_EPOCH = 1 << 31


@dataclass(frozen=True)
class Files:
    """Where a run writes.

    Attributes:
        output: the recovered model.
        checkpoint: the run's state.
        resume: go on from the checkpoint.
    """

    output: Path | None
    checkpoint: Path | None
    resume: bool


def run(
    model: Model, reference: Model, samples: Samples, options: Options, files: Files, progress: Progress
) -> RecoverResult:
    """Recovers ``model``; see `graphprune.converters.recovery.recover` for the errors."""
    require_device(options.device)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(enabled=options.device == "cpu"):
        torch.manual_seed(options.seed)
        try:
            torch.set_num_threads(options.threads or threads)
            return _run(model, reference, samples, options, files, progress)
        finally:
            torch.set_num_threads(threads)


def _run(
    model: Model, reference: Model, samples: Samples, options: Options, files: Files, progress: Progress
) -> RecoverResult:
    fitted, held_out = parts(samples, options.held_out, options.seed)
    order = Order(fitted, options.batch_size, options.seed)
    first = order.at(0)[0]
    few = next(fitted.batches(min(order.size, 2)))
    what = learned(model, reference, few, options.hidden, options.threads)
    changes = augmentation(first.feeds, options.augment, options.mix, fitted.shared)
    asked = Asked(reference, what.names, options.threads)
    kinds = _kinds(asked, fitted, order.size, what, options)
    outputs = {name: kinds[name] for name in what.outputs}
    labelled = labelled_output(first.labels, asked(first.feeds), outputs)
    judges = [(batch, asked(batch.feeds)) for batch in cut(held_out, order.size)]
    changed = [_changed(batch, changes, asked, options.seed, i) for i, (batch, _) in enumerate(judges)]

    module: Any = to_torch(model)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters()):
        module = module.float()
    if not module.initializers:
        message = "there is nothing to train"
        because = "the model has no floating-point weights"
        raise ModelError(message, because=because, hint="recover the model before it is quantized")
    require_same(module, model, judges[0][0].feeds, what.outputs, options.threads)
    module = module.to(options.device)
    for parameter in module.parameters():
        if parameter.ndim == 4:  # convolutions run a fifth faster so
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    answers: Answers = asked if options.device == "cpu" else TorchAsked(reference, what.names, options.device)
    known = None if changes.changes else kept(asked, fitted, order.size, progress)
    loss = Loss(
        outputs, {n: kinds[n] for n in what.hidden}, options.temperature, options.hidden_weight, labelled,
        options.label_weight,
    )  # fmt: skip
    before = _standing(model, judges, outputs, labelled, options.threads)
    training = Training(
        module, loss, order, changes, answers, known, [*judges, *filter(None, changed)], options, progress
    )
    identity = _identity(model, reference, samples, options)
    if files.resume and files.checkpoint is not None:
        training.resume(files.checkpoint, identity)
    state = training.run(files.checkpoint, identity)
    notes = list(state.notes)
    improved = state.weights is not None
    result, after = model, before
    if improved:
        result = recovered(module, model, judges[0][0].feeds, what.outputs, options.threads)
        after = _standing(result, judges, outputs, labelled, options.threads)
    else:
        notes.append("nothing got better on the held-out samples: the weights are as they were")
    if files.output is not None:
        reference.stamps.require_same()
        result.save(files.output, as_loaded=True)
    return RecoverResult(
        model=result,
        output=files.output,
        improved=improved,
        before=before,
        after=after,
        loss=(state.first, state.best),
        history=tuple(state.history),
        kinds={name: kind.name for name, kind in outputs.items()},
        hidden=what.hidden,
        ignored=what.ignored,
        steps=state.step,
        epochs=state.step / order.per_epoch,
        seconds=training.elapsed,
        fitted=len(fitted),
        held_out=len(held_out),
        trained=sum(p.numel() for p in module.initializers.values()),
        notes=tuple(notes),
    )


def _changed(
    batch: Batch, changes: Augmentation, asked: Answers, seed: int, number: int
) -> tuple[Batch, dict[str, Array]] | None:
    """A held-out batch, changed as those are that are learned from; None if nothing is changed.

    A network is sure of samples that it was trained on, and they alone would say little about others.
    """
    feeds, is_labelled = changes(batch.feeds, seed, _NO_EPOCH, number)
    if feeds is batch.feeds:
        return None
    return Batch(feeds, batch.labels if is_labelled else None, batch.mask), asked(feeds)


def _kinds(asked: Answers, fitted: Samples, size: int, what: Learned, options: Options) -> dict[str, Kind]:
    found: dict[str, list[Array]] = {name: [] for name in what.names}
    seen = 0
    for batch in cut(fitted, size):
        for name, array in asked(batch.feeds).items():
            found[name].append(array)
        seen += size
        if seen >= _LOOKED_AT:
            break
    kinds = {}
    for name, arrays in found.items():
        alike = [a for a in arrays if a.ndim and a.shape[1:] == arrays[0].shape[1:]]
        answers = np.concatenate(alike) if alike else np.stack([a for a in arrays if not a.ndim])
        kinds[name] = kind_of(answers, options.loss if name in what.outputs else "error")
    return kinds


def _standing(
    model: Model,
    judges: Sequence[tuple[Batch, dict[str, Array]]],
    kinds: dict[str, Kind],
    labelled: tuple[str, int] | None,
    threads: int,
) -> Standing:
    """By onnxruntime, as the model will be used."""
    asked, tally = Asked(model, tuple(kinds), threads), Tally(kinds, labelled)
    for batch, expected in judges:
        tally.add(expected, asked(batch.feeds), batch.mask, batch.labels)
    return tally.standing()


def _identity(model: Model, reference: Model, samples: Samples, options: Options) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    digest = hashlib.sha256()
    for name, array in sorted(samples.feeds.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    if samples.labels is not None:
        digest.update(np.ascontiguousarray(samples.labels).view(np.uint8).data)
    return {
        "model": model.sha256, "reference": reference.sha256, "data": digest.hexdigest(), **options.fixed(),
    }  # fmt: skip
