"""Which tensors the pruned model is to learn from the reference: outputs, and what both have in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from graphprune.converters.recovery.answers import Asked
from graphprune.converters.recovery.options import AUTO

from graphprune.errors import ModelError, UsageError
from graphprune.model import Model

Array = npt.NDArray[np.generic]
#: Tensors in between that `auto` takes, at most.
_MOST = 6
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Learned:
    """Names of tensors.

    Attributes:
        outputs: floating-point outputs of both models.
        hidden: tensors in between, of the same name and shape in both.
        ignored: outputs that can't be learned (integers, strings, sequences).
    """

    outputs: tuple[str, ...]
    hidden: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All that are learned."""
        return self.outputs + self.hidden


def require_alike(model: Model, reference: Model) -> None:
    """The two take the same inputs and give the same outputs.

    Raises:
        ModelError: they don't.
    """
    for kind in ("inputs", "outputs"):
        ours, theirs = (
            [v.name or "" for v in getattr(m.ir.graph, kind) if not v.is_initializer()]
            for m in (model, reference)
        )
        if set(ours) != set(theirs):
            message = f"the reference has other {kind} than the model"
            because = f"{', '.join(theirs) or 'none'} instead of {', '.join(ours) or 'none'}"
            hint = "the model that was pruned, with the same names of inputs and outputs"
            raise ModelError(message, because=because, hint=hint)


def learned(
    model: Model,
    reference: Model,
    feeds: Mapping[str, Array],
    hidden: Sequence[str],
    threads: int = 0,
) -> Learned:
    """What can be learned, found by running both on a few samples.

    Args:
        model: pruned.
        reference: original.
        feeds: some samples.
        hidden: names of tensors in between; ``auto`` finds some.
        threads: of onnxruntime.

    Raises:
        ModelError: an output has another shape than the reference's, or there is nothing to learn.
        UsageError: a hidden tensor is not in both models, or not of the same shape.
    """
    values, others = _made(model), _made(reference)
    candidates = list(hidden)
    if AUTO in hidden:
        ends = {v.name for m in (model, reference) for v in m.ir.graph.outputs}
        candidates = [
            n for n, v in values.items() if n in others and v.dtype in (None, *_FLOATS) and n not in ends
        ]
    for name in candidates:
        _require_both(name, values, others)
    outputs = [v for v in model.ir.graph.outputs if _is_real(v) and v.producer() is not None]
    ignored = [v.name or "" for v in model.ir.graph.outputs if v not in outputs]
    names = [v.name or "" for v in outputs]
    asked = list(dict.fromkeys((*names, *candidates)))
    ours, theirs = (_arrays(m, asked, feeds, threads) for m in (model, reference))
    found, expected = _shapes(ours), _shapes(theirs)
    for name in names:
        if found[name] != expected[name]:
            shapes = [list(s or ()) for s in (found[name], expected[name])]
            message = f"output '{name}' has the shape {shapes[0]}, the reference's {shapes[1]}"
            hint = "the model that was pruned, with outputs of the same size"
            raise ModelError(message, because="outputs of other shapes can't be compared", hint=hint)
    if not names:
        message = "the model has no output to learn from"
        raise ModelError(
            message, because=f"{', '.join(ignored) or 'none'}: not one of them is computed and real"
        )
    same = [n for n in candidates if found[n] is not None and found[n] == expected[n] and n not in names]
    if AUTO not in hidden:
        for name in candidates:
            if name not in same:
                message = f"the tensor '{name}' can't be learned"
                sizes = [list(s) if s else "no real numbers" for s in (found[name], expected[name])]
                because = f"it is {sizes[0]} in the model and {sizes[1]} in the reference"
                raise UsageError(
                    message, because=because, hint="--hidden auto, or tensors that did not shrink"
                )
    else:
        count = max(len(array) if array.ndim else 1 for array in feeds.values())
        same = [n for n in same if np.prod((found[n] or (1,))[1:]) > 1 and len(ours[n]) == count]
        same = _spread([n for n in same if not np.array_equal(ours[n], theirs[n])])
    return Learned(tuple(names), tuple(same), tuple(ignored))


def _made(model: Model) -> dict[str, ir.Value]:
    return {v.name: v for node in model.ir.graph for v in node.outputs if v.name}


def _is_real(value: ir.Value) -> bool:
    return value.dtype in _FLOATS


def _require_both(name: str, values: Mapping[str, ir.Value], others: Mapping[str, ir.Value]) -> None:
    for which, known in (("model", values), ("reference", others)):
        if name not in known:
            close = get_close_matches(name, set(values) & set(others), 1)
            message = f"the {which} has no tensor '{name}'"
            hint = f"'{close[0]}'?" if close else "names of nodes' outputs that both models have, or auto"
            raise UsageError(message, hint=hint)


def _arrays(model: Model, names: Sequence[str], feeds: Mapping[str, Array], threads: int) -> dict[str, Array]:
    return Asked(model, [n for n in names if n in _made(model)], threads)(feeds)


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...] | None]:
    """None for what is no array of real numbers."""
    return {
        name: tuple(array.shape) if isinstance(array, np.ndarray) and array.dtype.kind == "f" else None
        for name, array in arrays.items()
    }


def _spread(names: list[str]) -> list[str]:
    """A few of them, from the whole depth of the model."""
    if len(names) <= _MOST:
        return names
    return [names[round(i * (len(names) - 1) / (_MOST - 1))] for i in range(_MOST)]
