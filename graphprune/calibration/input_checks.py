"""Does an array fit a model's input?  Every check says what was expected, and what was found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.errors import CalibrationError
from graphprune.sample_inputs import table_rows

Array = npt.NDArray[np.generic]
_CHUNK = 1 << 22


def fitted(value: ir.Value, array: Array, where: str) -> Array:
    """``array`` in the input's type, once its type and numbers are found right.

    Args:
        value: the input.
        array: the data, of any shape.
        where: the source, for errors.

    Raises:
        CalibrationError: the type can't be cast without loss of meaning, a number is not finite, or an
            index lies outside its table.
    """
    array = _cast(value, array, where)
    if _is_float(array.dtype):
        _require_finite(value, array, where)
    elif array.dtype.kind in "iu" and array.size:
        rows = table_rows(value)
        low, high = int(array.min()), int(array.max())
        if rows is not None and not -rows <= low <= high < rows:
            message = f"calibration input '{value.name}' holds the index {high if high >= rows else low}"
            because = f"it looks up a table of {rows} rows"
            raise CalibrationError(message, where=where, because=because, hint=f"indices 0 to {rows - 1}")
    return array


def require_axes(
    value: ir.Value, shape: tuple[int, ...], symbols: dict[str, tuple[str, int]], where: str, *, skip: int = 0
) -> None:
    """Rank and fixed sizes of one input; a symbol must have one size everywhere.

    Args:
        value: the input.
        shape: of the data, as the model would get them.
        symbols: sizes that symbols have so far and the input that gave them; grows.
        where: the source, for errors.
        skip: first axes that are not looked at, since they count samples.
    """
    if value.shape is None:
        return
    if len(shape) != len(value.shape):
        message = f"calibration input '{value.name}' has {len(shape)} axes instead of {len(value.shape)}"
        because = f"the model takes {described(value)}, found {list(shape)}"
        hint = "one array per input, its first axis counts the samples"
        raise CalibrationError(message, where=where, because=because, hint=hint)
    for axis, (expected, found) in enumerate(zip(value.shape, shape, strict=True)):
        if axis < skip:
            continue
        if not isinstance(expected, int):
            if not expected.value:
                continue
            size, owner = symbols.setdefault(str(expected.value), (str(value.name), found))[::-1]
            because = f"'{expected.value}' is {size} in input '{owner}'"
            expected = size
        else:
            because = f"the model takes {described(value)}, found {list(shape)}"
        if expected != found:
            message = f"axis {axis} of calibration input '{value.name}' is {found} instead of {expected}"
            hint = "samples of the size that the model was made for"
            raise CalibrationError(message, where=where, because=because, hint=hint)


def described(value: ir.Value) -> str:
    """Type and shape of an input, as in ``float[batch, 3, 32, 32]``."""
    dtype = "" if value.dtype is None else value.dtype.name.lower()
    if value.shape is None:
        return dtype
    return f"{dtype}[{', '.join(str(d) if isinstance(d, int) else d.value or '?' for d in value.shape)}]"


def require_known(names: Mapping[str, object], inputs: Mapping[str, object], where: str) -> None:
    """Every input has data, and there is nothing else."""
    missing = [name for name in inputs if name not in names]
    extra = [name for name in names if name not in inputs]
    if missing:
        message = f"the calibration data lack the input {_quoted(missing)}"
        because = f"they hold {_quoted(names) or 'no arrays'}"
        hint = f"arrays named {_quoted(inputs)}"
        if len(missing) == len(extra) == 1:
            hint = f"rename '{extra[0]}' to '{missing[0]}'"
        raise CalibrationError(message, where=where, because=because, hint=hint)
    if extra:
        message = f"the model has no input {_quoted(extra)}"
        because = f"its inputs are {_quoted(inputs)}; only 'labels' may stand beside them"
        raise CalibrationError(message, where=where, because=because, hint=f"leave out {_quoted(extra)}")


def _quoted(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _is_float(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))  # numpy calls extensions 'V'


def _cast(value: ir.Value, array: Array, where: str) -> Array:
    if value.dtype is None:
        return array
    wanted = value.dtype.numpy()
    if array.dtype == wanted:
        return array
    message = f"calibration input '{value.name}' holds {array.dtype.name} instead of {wanted.name}"
    if value.dtype == ir.DataType.STRING or not (array.dtype.kind in "iub" or _is_float(array.dtype)):
        because = "samples are numbers"
        raise CalibrationError(message, where=where, because=because, hint=f"an array of {wanted.name}")
    if _is_float(wanted) and _is_float(array.dtype):
        with np.errstate(over="ignore"):  # what becomes infinite is found by the next check
            return array.astype(wanted)
    if _is_float(wanted):
        because = (
            "bytes are mostly data that were not prepared as the model expects them (scaled, normalised)"
        )
        hint = "prepare them, then .astype('float32')"
        raise CalibrationError(message, where=where, because=because, hint=hint)
    if _is_float(array.dtype):
        because = "fractions would be lost"
        raise CalibrationError(message, where=where, because=because, hint=f"an array of {wanted.name}")
    cast = array.astype(wanted)
    if not np.array_equal(cast, array):
        because = f"not all of its numbers fit into {wanted.name}"
        raise CalibrationError(message, where=where, because=because, hint=f"an array of {wanted.name}")
    return cast


def _require_finite(value: ir.Value, array: Array, where: str) -> None:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        good = np.isfinite(chunk)
        if not good.all():
            index = np.unravel_index(start + int(np.argmin(good)), array.shape)
            message = f"calibration input '{value.name}' holds {chunk[np.argmin(good)]}"
            because = f"first at {[int(i) for i in index]}; moments of such samples would be no numbers"
            raise CalibrationError(message, where=where, because=because, hint="leave out these samples")
