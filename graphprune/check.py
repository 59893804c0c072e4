"""Is a model valid, and does it do what another one does?"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import onnx

from graphprune.compare import Difference as Difference
from graphprune.compare import Feeds as Feeds
from graphprune.compare import compare_outputs, run, session
from graphprune.errors import ModelError, UsageError, ValidationError
from graphprune.foreign import runnable
from graphprune.model import Model
from graphprune.sample_inputs import sample_inputs
from graphprune.shapes.trace import trace


def validate(model: Model) -> None:
    """onnx.checker with full shape inference, and an onnxruntime session as users open it.

    Operators that onnxruntime does not know are left out of the session.

    Raises:
        ValidationError: one of them refuses the model.
    """
    if model.weight_bytes < 1 << 30:
        try:
            onnx.checker.check_model(model.to_proto(), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            message = "onnx.checker refuses the model"
            raise ValidationError(message, because=" ".join(str(error).split())[:400]) from error
    session(runnable(model), optimize=True)


def load_feeds(path: str | Path) -> dict[str, npt.NDArray[np.generic]]:
    """Arrays of an ``.npz`` file, by input name.  Pickled objects are refused.

    Raises:
        ModelError: the file can't be read.
    """
    message = f"cannot read the data file '{path}'"
    hint = "an .npz of arrays named as the inputs"
    try:
        with Path(path).open("rb") as file:  # numpy leaves a file open that it can't read
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ModelError(message, because="it holds one array without a name", hint=hint)
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        because = " ".join(str(error).split())[:200]
        raise ModelError(message, because=because, hint=hint) from error


def compare_models(
    reference: Model, model: Model, data: Feeds | str | Path | None = None, *, seed: int = 0
) -> list[Difference]:
    """Differences of all outputs on given or random inputs.

    Args:
        reference: what is right.
        model: what is compared.
        data: arrays by input name, or an ``.npz``; random inputs when None.
        seed: of the random inputs.

    Raises:
        UsageError: the data lack an input.
        ModelError: the data can't be read, or do not fit the reference.
        ValidationError: a model does not run, or an output is missing or of another shape.
    """
    if data is None:
        dims: Mapping[str, int] = trace(reference).dims
        feeds: Feeds = sample_inputs(reference, dims, np.random.default_rng(seed))
    else:
        feeds = load_feeds(data) if isinstance(data, (str, Path)) else data
        missing = [
            v.name for v in reference.ir.graph.inputs if v.name not in feeds and not v.is_initializer()
        ]
        if missing:
            message = f"the data lack the input '{missing[0]}'"
            raise UsageError(message, because=f"they hold {', '.join(feeds) or 'nothing'}")
    try:
        expected = run(reference, feeds)
    except ValidationError as error:
        if data is None:
            raise
        message = "the reference does not run on these data"
        hint = "arrays of the inputs' types and sizes"
        raise ModelError(message, where=error.where, because=error.because, hint=hint) from error
    return compare_outputs(expected, run(model, feeds))
