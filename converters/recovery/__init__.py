"""`recover`: a short distillation of a pruned model from its original, on unlabelled samples.

The ONNX graph itself is trained (:func:`graphprune.converters.to_torch`): neither the framework that the
model came from nor its code is needed, only torch.  The original, in onnxruntime, says what is right for each
sample; trained weights go back into the file by the names of its initializers.  What docs/recover.md tells a
user is built from:

* ``options.py``, ``result.py``: what goes in, what comes out;
* ``batches.py``, ``augment.py``: which samples, in what order, and what is done to them;
* ``tensors.py``, ``outputs.py``, ``labels.py``: what is learned, and what kind of numbers that is;
* ``answers.py``, ``torch_answers.py``: the original's answers;
* ``losses.py``, ``schedule.py``, ``training.py``, ``checkpoint.py``: the training;
* ``written.py``, ``run.py``: weights back into the file, and the whole.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable
from pathlib import Path

from graphprune.converters.recovery.options import Options
from graphprune.converters.recovery.result import RecoverResult
from graphprune.converters.recovery.tensors import require_alike
from graphprune.converters.source import missing

from graphprune.calibration.hidden_batch import as_run
from graphprune.calibration.samples import SampleSource, load_samples
from graphprune.errors import UsageError
from graphprune.model import Source, load
from graphprune.progress import Progress, silent
from graphprune.storage.workspace import reserved_if_any
from graphprune.storage.writing import data_file, require_apart, require_writable

__all__ = ["RecoverResult", "recover", "require_torch"]


def require_torch() -> None:
    """Is torch installed?

    Raises:
        ModelError: it is not.
    """
    package = "torch"
    if importlib.util.find_spec(package) is None:
        raise missing(package, package)


def recover(
    model: Source,
    out: str | Path | None = None,
    *,
    reference: Source,
    data: SampleSource,
    samples: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    batch_size: int = 64,
    lr: float = 2e-3,
    weight_decay: float = 0.0,
    loss: str = "auto",
    temperature: float = 4.0,
    label_weight: float = 0.1,
    hidden: Collection[str] = (),
    hidden_weight: float = 1.0,
    mix: float = 0.5,
    augment: Collection[str] = (),
    held_out: float = 0.1,
    patience: int = 10,
    precision: str = "float32",
    device: str = "cpu",
    threads: int = 0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> RecoverResult:
    """Trains a pruned model until it answers as its original does.

    The best weights on held-out samples are kept; if nothing gets better, the model stays as it is.

    Args:
        model: the pruned model; never changed.
        out: the file to write; None: the model is in the result only.
        reference: the original.
        data: samples: an ``.npz``, arrays by input name, or batches of them; ``labels`` are optional.
        samples: use the first so many.
        epochs: how often every sample is seen. With it alone, a run is repeatable on a CPU.
        minutes: how long training may take (20 if neither is given). The learning rate follows the clock.
        batch_size: samples per step.
        lr: the highest learning rate, in units of each tensor's root mean square (AdamW; up from zero, then
            down along a cosine).
        weight_decay: of AdamW.
        loss: ``kl`` compares all outputs as logits, ``error`` by relative squared error; ``auto`` tells from
            the reference's answers.
        temperature: of the softmax in ``kl``.
        label_weight: share of the labels' cross-entropy, where the data have labels.
        hidden: names of tensors in between to learn as well, of the same shape in both; ``auto`` finds some.
        hidden_weight: of these in the loss.
        mix: share of batches whose samples are mixed with each other, where inputs are measurements.
        augment: ``flip`` and ``shift``, for pictures.
        held_out: share of the samples that nothing is fitted to (512 at most); they choose the best weights.
        patience: stop after so many of 20 looks at the held-out samples without anything better.
        precision: ``float32``, or ``bfloat16`` for convolutions and matrix products while training.
        device: ``cpu`` or ``cuda``.
        threads: of torch and onnxruntime; 0: their own choice.
        seed: of everything random.
        checkpoint: a file for the run's state, written some 20 times.
        resume: go on from the checkpoint; the result is that of a run without interruption.
        progress: is told how far it is: ``progress("recovering", 120, 1000)``.

    Raises:
        UsageError: an option makes no sense, a hidden tensor can't be learned, or a file to write is one
            that is read.
        CalibrationError: the data don't fit the model.
        ModelError: torch or the device is missing, the reference is of another model, there is nothing to
            train, or the checkpoint is of another run.
        ValidationError: the result does not compute what was trained; nothing is written.
    """
    options = Options(
        epochs=epochs, minutes=minutes, batch_size=batch_size, lr=lr, weight_decay=weight_decay, loss=loss,
        temperature=temperature, label_weight=label_weight, hidden=tuple(hidden), hidden_weight=hidden_weight,
        mix=mix, augment=tuple(augment), held_out=held_out, patience=patience, precision=precision,
        device=device, threads=threads, seed=seed,
    )  # fmt: skip
    if resume and checkpoint is None:
        message = "there is no checkpoint to resume from"
        raise UsageError(message, hint="--checkpoint FILE, as in the run that was interrupted")
    require_torch()
    for path in (out, checkpoint):
        if path is not None:
            require_writable(Path(path))
    pruned, original = load(model), load(reference)
    _require_apart(out, checkpoint, (model, reference, data), pruned.data_files | original.data_files)
    require_alike(pruned, original)
    given = as_run(pruned, load_samples(data, pruned, samples), threads)
    from graphprune.converters.recovery.run import Files, run

    written, saved = (None if path is None else Path(path) for path in (out, checkpoint))
    files = Files(written, saved, resume)
    with reserved_if_any(out):
        return run(pruned, original, given, options, files, progress)


def _require_apart(
    out: str | Path | None, checkpoint: str | Path | None, given: Iterable[object], data_files: Iterable[Path]
) -> None:
    """Neither the result nor the checkpoint replaces what the run reads."""
    written = [Path(path) for path in (out, checkpoint) if path is not None]
    if out is not None:
        written.append(data_file(Path(out)))
    require_apart(written, [*(Path(each) for each in given if isinstance(each, (str, Path))), *data_files])
