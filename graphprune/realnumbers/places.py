"""Where the numbers of a stand-in are kept in the file: as integers, or in a type of fewer digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.quantization import real_weights

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Place:
    """One constant of the file that a constant of the stand-in stands for.

    Attributes:
        key: ``OUTPUT_NAME:INPUT_INDEX`` of the node that reads it in the file.
        axes: for each axis of the stand-in's constant, that of the file's constant.
        repeat: positions of the stand-in for each one of the file, by axis of the stand-in.
    """

    key: str
    axes: tuple[int, ...]
    repeat: tuple[int, ...]


@dataclass
class Places:
    """All of them.

    Attributes:
        by_name: by the name of the stand-in's constant.
        is_quantized: is one of them written as integers?
        is_recast: did casts go that stand between layers, or weights that are cast?
    """

    by_name: dict[str, Place] = field(default_factory=dict)
    is_quantized: bool = False
    is_recast: bool = False


def constant(
    graph: ir.Graph, name: str, shape: tuple[int, ...], read: Callable[[], npt.NDArray[np.float32]]
) -> ir.Value:
    """A constant in float32 that is computed whenever it is read."""
    tensor = ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(read(), np.float32), name=name),
        dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), name=name,
    )  # fmt: skip
    value = ir.Value(
        name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def numbers_at(node: ir.Node, i: int) -> npt.NDArray[np.float32]:
    """What the constant at an input stands for.

    Args:
        node: of the file's graph.
        i: which input.
    """
    value = node.inputs[i]
    assert value is not None
    assert value.const_value is not None
    array = value.const_value.numpy()
    real = real_weights(node, i, array)
    return np.asarray(array if real is None else real, np.float32)
