"""Torch functions of the ONNX operators, by family; importing this enters them all.

How to add an operator: one function in its family's file, one case in ``tests/torch_op_cases.py``.
``tests/converters/torch_graph/test_operators.py`` compares its values with onnxruntime and its gradient with
finite differences.
"""

from __future__ import annotations

from graphprune.converters.torch_graph.operators import (
    attention,
    contraction,
    control_flow,
    conv,
    elementwise,
    indexing,
    logic,
    movement,
    norm,
    pooling,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "attention",
    "contraction",
    "control_flow",
    "conv",
    "elementwise",
    "indexing",
    "logic",
    "movement",
    "norm",
    "pooling",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]
