"""When something unexpected happens: is it the model that is wrong?

Every step relies on what a valid model is, and checking all of that beforehand would take longer than most
steps.  So onnx and onnxruntime are asked when it is too late: if they refuse the file as well, the error is
the file's and says what they have against it; if they don't, it is ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from graphprune.errors import GraphPruneError, ModelError
from graphprune.foreign import RUNTIME_DOMAINS
from graphprune.runtime import session_options

P = ParamSpec("P")
R = TypeVar("R")

#: Larger files are not asked about: a second opinion must not take long.
_MOST_BYTES = 1 << 30
#: Of symbolic axes; a model that runs at none of them is said to run nowhere.
_SIZES = (1, 2, 3, 4, 7, 8, 32, 128, 224)
_MOST_ELEMENTS = 1 << 24


def answering_for_models(function: Callable[P, R]) -> Callable[P, R]:
    """Turns an unexpected error into a `ModelError` if one of the arguments is an invalid ONNX file."""

    @functools.wraps(function)
    def answering(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (GraphPruneError, MemoryError):
            raise
        except Exception as error:
            for path in _files([*args, *kwargs.values()]):
                because = why_invalid(path)
                if because is not None:
                    what = f"'{path}' is no valid model"
                    hint = "export the model again, and check it: onnx.checker.check_model"
                    raise ModelError(what, because=because, hint=hint) from error
            raise

    return answering


def _files(arguments: list[Any]) -> Iterator[Path]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from _files(argument)
        elif isinstance(argument, (str, Path)):
            path = Path(argument)
            try:
                if path.is_file() and path.stat().st_size < _MOST_BYTES:
                    yield path
            except (OSError, ValueError):  # no path at all
                continue


def why_invalid(path: Path) -> str | None:
    """What onnx or onnxruntime has against a file; None if nothing, or if it is no ONNX file."""
    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node or not model.opset_import:
            return None
    except Exception:  # binary, text and JSON parsers have no common base class
        return None
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker's own class, inference's, and those of what they call
        return f"onnx.checker: {_short(error)}"
    if not {node.domain for node in model.graph.node} <= RUNTIME_DOMAINS:
        return None
    try:
        runner = ort.InferenceSession(str(path), session_options(threads=1), ["CPUExecutionProvider"])
        return _why_not_run(runner)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        return f"onnxruntime: {_short(error)}"


def _why_not_run(runner: ort.InferenceSession) -> str | None:
    """What onnxruntime says at the first of some sizes of symbolic axes; None if it runs at one of them."""
    first: str | None = None
    for size in _SIZES:
        try:
            given = {value.name: _made_up(value, size) for value in runner.get_inputs()}
        except TypeError:  # no input for a file of numbers
            return None
        try:
            runner.run(None, given)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            first = first or f"onnxruntime can't run it either: {_short(error)}"
        else:
            return None
    return first


def _made_up(value: ort.NodeArg, size: int) -> npt.NDArray[np.generic]:
    """Random numbers for floats, zeros for integers (an index that every table has), true for booleans.

    Raises:
        TypeError: it takes no numbers, or too many.
    """
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))  # TypeError: no such type
    shape = [n if isinstance(n, int) else size for n in value.shape]
    if prod(shape) > _MOST_ELEMENTS:
        message = f"{shape} is too large"
        raise TypeError(message)
    if dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.full(shape, dtype.kind == "b", dtype)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
