"""Is a model valid, and does it do what another one does?"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphprune.archive_sizes import require_archive_size, require_arrays
from graphprune.compare import Difference as Difference
from graphprune.compare import Feeds as Feeds
from graphprune.compare import compare_outputs, run, session
from graphprune.errors import ModelError, UsageError, ValidationError
from graphprune.feasible_inputs import feasible_inputs
from graphprune.fed import FedSession
from graphprune.foreign import runnable
from graphprune.model import Model
from graphprune.parts import is_big
from graphprune.runtime import session_options
from graphprune.shapes.trace import trace
from graphprune.storage.streaming import Stream
from graphprune.widened import HALVES


def validate(
    model: Model, *, in_session: bool = True, stream: Stream | None = None, big: bool = False
) -> None:
    """onnx.checker with full shape inference, and an onnxruntime session as users open it.

    Operators that onnxruntime does not know are left out of the session.

    Args:
        model: what to check.
        in_session: False: leave out the session, which takes longer than all the rest of a cut, and with it
            the weights, which the checker has no use for.
        stream: of the model, if there is one already.
        big: leave the weights out, since they are more than should be in memory.

    Raises:
        ValidationError: one of them refuses the model.
    """
    if not in_session and _is_known_to_onnx(model):
        try:
            onnx.checker.check_model((stream or Stream(model.ir)).skeleton(), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            pass  # the checks on the whole model decide: an operator may insist on a constant
        else:
            return
    if big or is_big(model):
        _require_fit(stream or Stream(model.ir))
        return
    if _is_known_to_onnx(model):
        try:
            onnx.checker.check_model(model.to_proto(), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            message = "onnx.checker refuses the model"
            raise ValidationError(message, because=" ".join(str(error).split())[:400]) from error
    session(runnable(model), optimize=True)


def _require_fit(stream: Stream) -> None:
    """What can be said of a model without its weights: onnx.checker, where it knows all operators.

    An operator may insist on a constant, so onnxruntime, which takes inputs in their place, is asked as well.
    """
    skeleton = stream.skeleton()
    try:
        onnx.checker.check_model(skeleton, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        try:
            FedSession(skeleton, {}, session_options())
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            message = "onnxruntime refuses the model"
            raise ValidationError(message, because=" ".join(str(error).split())[:400]) from error


def _is_known_to_onnx(model: Model) -> bool:
    """Can onnx judge the model?  onnxruntime's optimizer puts operators of its own in the default domain."""
    nodes = model.ir.graph.all_nodes()
    return all(node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type) for node in nodes)


def load_feeds(path: str | Path) -> dict[str, npt.NDArray[np.generic]]:
    """Arrays of an ``.npz`` file, by input name.  Pickled objects are refused.

    Raises:
        ModelError: the file can't be read.
    """
    message = f"cannot read the data file '{path}'"
    hint = "an .npz of arrays named as the inputs"
    try:
        require_archive_size(path)
        with Path(path).open("rb") as file:  # numpy leaves a file open that it can't read
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ModelError(message, because="it holds one array without a name", hint=hint)
            return require_arrays({name: archive[name] for name in archive.files})
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, RuntimeError) as error:
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
        ValidationError: the models have different signatures, or one does not run.
    """
    _require_same_signature(reference, model)
    if data is None:
        dims: Mapping[str, int] = trace(reference).dims
        feeds: Feeds = feasible_inputs(runnable(reference), [dims], seed)[0]
    else:
        feeds = load_feeds(data) if isinstance(data, (str, Path)) else data
        missing = [
            v.name for v in reference.ir.graph.inputs if v.name not in feeds and not v.is_initializer()
        ]
        if missing:
            message = f"the data lack the input '{missing[0]}'"
            raise UsageError(message, because=f"they hold {', '.join(feeds) or 'nothing'}")
    try:
        expected = run(reference, _cast(reference, feeds))
    except ValidationError as error:
        if data is None:
            raise
        message = "the reference does not run on these data"
        hint = "arrays of the inputs' types and sizes"
        raise ModelError(message, where=error.where, because=error.because, hint=hint) from error
    return compare_outputs(expected, run(model, _cast(model, feeds)))


def _cast(model: Model, feeds: Feeds) -> Feeds:
    """Floating-point numbers in the types that a model takes."""
    types = {v.name: v.dtype for v in model.ir.graph.inputs}
    found = dict(feeds)
    for name, array in feeds.items():
        kind = types.get(name)
        if kind is not None and kind.is_floating_point() and array.dtype.kind in "fV":
            found[name] = array.astype(kind.numpy())
    return found


def _require_same_signature(reference: Model, model: Model) -> None:
    """Inputs of the same names, types and fixed sizes; outputs are compared when they have been computed."""
    others = {value.name: value for value in model.ir.graph.inputs}
    for value in reference.ir.graph.inputs:
        other = others.get(value.name)
        if value.is_initializer():
            continue  # a default that a caller may replace, and nobody has to
        if other is None or not _takes_the_same(value, other):
            message = f"the models have different signatures: input '{value.name}' is " + (
                f"{_described(value)} and {_described(other)}" if other is not None else "in one of them only"
            )
            hint = "models of one signature; `prune` itself verifies a cut that changes it"
            raise ValidationError(message, because="they can't be fed alike", hint=hint)


def _takes_the_same(value: ir.Value, other: ir.Value) -> bool:
    if value.dtype is not None and other.dtype is not None and value.dtype != other.dtype:
        both = (value.dtype, other.dtype)
        if not all(kind in HALVES or kind == ir.DataType.FLOAT for kind in both):
            return False  # numbers of fewer digits are cast
    if value.shape is None or other.shape is None:
        return True
    sizes = zip(value.shape, other.shape, strict=False)
    known = [(a, b) for a, b in sizes if isinstance(a, int) and isinstance(b, int)]
    return len(value.shape) == len(other.shape) and all(a == b for a, b in known)


def _described(value: ir.Value) -> str:
    dtype = "" if value.dtype is None else value.dtype.name.lower()
    shape = [] if value.shape is None else [d if isinstance(d, int) else d.value or "?" for d in value.shape]
    return f"{dtype}[{', '.join(map(str, shape))}]"
