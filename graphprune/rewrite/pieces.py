"""Split nodes without the pieces of which nothing is left."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.sizes import CutSizes

#: Opset since which Split takes its sizes as an input.
SIZES_AS_INPUT = 13


def drop_empty_pieces(model: ir.Model, sizes: CutSizes) -> bool:
    """Rebuilds each Split that has an empty piece which nobody reads, in place, without that piece.

    Empty pieces would be allowed, but not every runtime takes them.

    Args:
        model: without the readers that died.
        sizes: of the cut.

    Returns:
        Whether there was one; constants of the old node are then left over.
    """
    found = False
    opset = int(model.opset_imports[""])
    for node in [n for n in model.graph.all_nodes() if n.op_type == "Split" and n.domain == ""]:
        context = RepairContext(node, opset, (), (), sizes)
        pieces = context.ints(1) if opset >= SIZES_AS_INPUT else context.attr_ints("split")
        if pieces is None or len(pieces) != len(node.outputs):
            continue
        left = [i for i, v in enumerate(node.outputs) if pieces[i] or v.uses() or v.is_graph_output()]
        if left and len(left) < len(pieces):
            _keep_pieces(context, left, [pieces[i] for i in left])
            found = True
    return found


def _keep_pieces(context: RepairContext, left: list[int], pieces: list[int]) -> None:
    node = context.node
    if context.opset < SIZES_AS_INPUT:
        context.set_attr("split", pieces)
    else:
        context.set_ints(1, pieces, "split")
    new = ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        node.attributes,
        num_outputs=len(left),
        name=node.name,
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    kept = [node.outputs[i] for i in left]
    for value, copy in zip(kept, new.outputs, strict=True):
        copy.doc_string = value.doc_string
        copy.metadata_props.update(value.metadata_props)
    assert isinstance(node.graph, ir.Graph)
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [new], kept, new.outputs)
