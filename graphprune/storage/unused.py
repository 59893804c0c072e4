"""Take out what nothing reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and constants that nothing reads, in place."""
    common.RemoveUnusedNodesPass()(model)
    for node in model.graph.all_nodes():
        if node.op_type == "Loop" and node.domain == "" and len(node.inputs) < 2:
            node.resize_inputs(2)  # the pass drops the empty condition, which the operator must have
