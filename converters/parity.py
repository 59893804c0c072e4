"""Is the exported file the same function as its source, on the same input?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from graphprune.converters.widening import runnable

from graphprune.errors import ModelError, ValidationError

# A right export of a float32 network stays below 1e-5 of the output's scale; a wrong epsilon or the
# other form of GELU makes more than 1e-4.  The 16-bit types leave 11 and 8 bits to begin with, and
# their files are run with more digits than the source has.
RELATIVE = {"bfloat16": 5e-2, "float16": 2e-2, "float32": 1e-4, "float64": 1e-4}
ABSOLUTE = 1e-6
BFLOAT16 = "bfloat16"
#: Codes by which torch sets a part of its messages in bold.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """What was compared.

    Attributes:
        max_abs_diff: the greatest difference over all outputs.
        scale: the greatest value it is to be seen against.
        zeros: outputs of which the source gave nothing but zeros: a wrong file may give them as well.
    """

    max_abs_diff: float
    scale: float
    zeros: tuple[str, ...] = ()


def session(file: Path) -> ort.InferenceSession:
    """A quiet CPU session.

    Raises:
        ModelError: onnxruntime refuses the file.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        # Without a second try, which onnxruntime would announce on stdout.
        return ort.InferenceSession(str(file), options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        what = f"onnxruntime refuses the converted model '{file.name}'"
        raise ModelError(what, because=first_line(error)) from error


def run(file: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The file's outputs by name; feeds that the file has no input for are left out.

    Raises:
        ModelError: onnxruntime refuses the file or the inputs.
    """
    with runnable(file) as opened_file:
        return _run(session(opened_file), file, feeds)


def _run(opened: ort.InferenceSession, file: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    wanted = [value.name for value in opened.get_inputs()]
    missing = [name for name in wanted if name not in feeds]
    if missing:
        what = f"the converted model '{file.name}' has inputs that its source lacks"
        raise ModelError(what, because=", ".join(missing))
    try:
        results = opened.run(None, {name: _fed(feeds[name]) for name in wanted})
    except Exception as error:
        what = f"the converted model '{file.name}' does not run on another batch size"
        raise ModelError(what, because=first_line(error)) from error
    return {value.name: result for value, result in zip(opened.get_outputs(), results, strict=True)}


def check(expected: Sequence[Array], found: Mapping[str, Array], *, where: str) -> Parity:
    """Compares the source's outputs with the file's, in order.

    Raises:
        ValidationError: they differ in number, shape or value.
        ModelError: the source gives nothing to compare with.
    """
    if len(expected) != len(found):
        what = f"the source gives {len(expected)} outputs and the converted model {len(found)}"
        hint = "let the source return plain tensors (for example by turning a cache off)"
        raise ValidationError(what, where=where, hint=hint)
    worst, scale = 0.0, 0.0
    zeros = []
    for want, (name, got) in zip(expected, found.items(), strict=True):
        if want.shape != got.shape:
            because = f"shape {list(want.shape)} became {list(got.shape)}"
            _refuse(name, because, where)
        numbers = want.astype(np.float32) if want.dtype.name == BFLOAT16 else want
        if want.size and not np.isfinite(numbers).any():
            what = f"output '{name}' of the source has no finite value on random input"
            raise ModelError(what, where=where, because="nothing can be compared with it")
        size = float(np.max(np.abs(numbers), initial=0, where=np.isfinite(numbers)))
        diff = _difference(numbers, got)
        floating = np.issubdtype(numbers.dtype, np.floating)
        allowed = RELATIVE.get(want.dtype.name, 1e-4) * size + ABSOLUTE if floating else 0.0
        if not diff <= allowed:
            because = f"it is off by up to {diff:.3g} (values up to {size:.3g}; {allowed:.1g} is allowed)"
            _refuse(name, because, where)
        worst, scale = max(worst, diff), max(scale, size)
        if want.size and not numbers.any():
            zeros.append(name)
    return Parity(worst, scale, tuple(zeros))


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, at most 300 characters."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _fed(array: Array) -> Array:
    """The Python binding of onnxruntime knows no bfloat16; such a file runs as a copy in float32."""
    return array.astype(np.float32) if array.dtype.name == BFLOAT16 else array


def _difference(want: Array, got: Array) -> float:
    """Greatest absolute difference; infinite where one side alone is not finite."""
    if want.size == 0:
        return 0.0
    if want.dtype == np.bool_:
        return float(np.any(want != got))
    a, b = want.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(gap), np.inf, gap)))


def _refuse(name: str, because: str, where: str) -> None:
    what = f"output '{name}' of the converted model is not what the source computes"
    hint = "the other exporter, or another opset; nothing was written"
    raise ValidationError(what, where=where, because=because, hint=hint)
