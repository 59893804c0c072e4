"""Random inputs that a model accepts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.model import Model
from graphprune.shapes.sizes import Interface

_CARRIES_INDEX = {"Cast", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Flatten", "Transpose"}


def sample_inputs(
    model: Model, dims: Mapping[str, int], rng: np.random.Generator
) -> dict[str, npt.NDArray[np.generic]]:
    """One random array per input, of the sizes that ``dims`` gives its symbolic axes.

    Floats are standard normal.  Integers that index a table are drawn from its range; other integers
    and booleans are ones (masks).
    """
    shapes = Interface(model.ir).shapes(dims)
    feeds: dict[str, npt.NDArray[np.generic]] = {}
    for value in model.ir.graph.inputs:
        name = value.name or ""
        if value.is_initializer() or name not in shapes or value.dtype is None:
            continue
        dtype = value.dtype.numpy()
        if value.dtype.is_floating_point():
            feeds[name] = rng.standard_normal(shapes[name]).astype(dtype)
        elif value.dtype == ir.DataType.BOOL:
            feeds[name] = np.ones(shapes[name], bool)
        else:
            rows = table_rows(value)
            drawn = rng.integers(0, rows, shapes[name]) if rows else np.ones(shapes[name])
            feeds[name] = drawn.astype(dtype)
    return feeds


def table_rows(value: ir.Value) -> int | None:
    """Rows of the smallest table that this input indexes, None if it indexes none."""
    rows: list[int] = []
    todo, seen = [value], set()
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        for node, i in current.uses():
            if node.op_type in _CARRIES_INDEX and i == 0:
                todo.append(node.outputs[0])
            elif node.op_type in ("Gather", "GatherElements") and i == 1:
                table = node.inputs[0]
                axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
                if table is not None and table.const_value is not None:
                    rows.append(int(table.const_value.shape.numpy()[axis]))
    return min(rows, default=None)
