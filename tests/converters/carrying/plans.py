"""Plans and models for tests of carrying, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.model import Model, load
from graphprune.plan import GroupPlan, ParameterPlan, Plan

Array = np.ndarray[Any, Any]


def plan_of(
    model: Model,
    cuts: Mapping[str, Mapping[int, Sequence[int]]],
    uses: Mapping[str, list[str]] | None = None,
    groups: Mapping[str, list[str]] | None = None,
) -> Plan:
    """A plan that keeps these positions.

    Args:
        model: whose constants they are.
        cuts: constant -> axis -> kept positions; ``name#1`` for further entries of the same constant.
        uses: entry -> the uses it is for.
        groups: entry -> ids of its groups.
    """
    entries = []
    for key, axes in cuts.items():
        name = key.split("#")[0]
        tensor = model.ir.graph.initializers[name].const_value
        assert tensor is not None
        for axis, keep in axes.items():
            size = int(tensor.shape.numpy()[axis])
            entries.append(
                ParameterPlan(
                    name, axis, size, list(keep), (uses or {}).get(key), (groups or {}).get(key, ["g"])
                )
            )
    group = GroupPlan("g", "channels", True, 8, [0, 1])
    return Plan(model.sha256, {}, {}, [group], entries)


def changed(pruned: Model, **values: Array) -> Model:
    """The model with other numbers in some constants; dots in their names as double underscores."""
    copy = load(pruned.to_proto())
    for name, array in values.items():
        dotted = name.replace("__", ".")
        value = copy.ir.graph.initializers[dotted]
        assert value.const_value is not None
        numbers = np.ascontiguousarray(array.astype(value.const_value.numpy().dtype))
        value.const_value = ir.Tensor(numbers, name=dotted)
    return copy


def noisy(pruned: Model, seed: int = 0) -> Model:
    """The model with noise in all of its constants, and biases where layers had none."""
    rng = np.random.default_rng(seed)
    copy = load(pruned.to_proto())
    graph = copy.ir.graph
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point() and tensor.size > 1:
            array = tensor.numpy()
            noise = rng.standard_normal(array.shape)
            value.const_value = ir.Tensor(
                (array * (1 + 0.1 * noise) + 0.01).astype(array.dtype), name=value.name
            )
    for node in graph:
        weight = node.inputs[1] if len(node.inputs) == 2 and node.op_type in ("Conv", "Gemm") else None
        if weight is not None and weight.const_value is not None:
            name = f"{weight.name}/bias"
            numbers = rng.standard_normal(int(weight.const_value.shape.numpy()[0])).astype(np.float32)
            bias = ir.Value(
                name=name,
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=ir.Shape(numbers.shape),
                const_value=ir.Tensor(numbers, name=name),
            )
            graph.register_initializer(bias)
            node.resize_inputs(3)
            node.replace_input_with(2, bias)
    return copy
