"""Which values are shape arithmetic: made of sizes and constants alone, or read as a shape."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from graphprune.storage.constants import is_constant, is_widened

# Inputs that an op reads as sizes, axes, offsets or counts, not as data.
SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}

# Their results are not determined by their inputs.
RANDOM = frozenset({
    "Bernoulli", "Dropout", "Multinomial",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip

# Their results are sequences or optionals: no array holds them.
NO_TENSOR = frozenset({
    "Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence",
})  # fmt: skip

# Small quantized weights and biases are as constant as sizes are, and have to stay what they are.
QUANTIZED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})

_NOT_STRUCTURAL = RANDOM | NO_TENSOR | QUANTIZED


def shape_inputs(graph: ir.Graph) -> set[str]:
    """Names of the values that some op of the main graph reads as a shape, offset or count."""
    found: set[str] = set()
    for node in graph:
        if node.domain != "":
            continue
        for index in SHAPE_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and value.name:
                found.add(value.name)
    return found


def structural_nodes(graph: ir.Graph) -> dict[ir.Node, None]:
    """Nodes whose results depend on sizes and constants alone, not on what the tensors hold.

    They start at Shape and Size, or are computed from nothing but constants.  Those inside bodies are
    among them: the trace knows the shape of a body's value only when every run of the body agrees.
    """
    found: dict[ir.Node, None] = {}
    _find_structural(graph, found)
    return found


def _find_structural(graph: ir.Graph, found: dict[ir.Node, None]) -> None:
    for node in graph:
        bodies = subgraphs(node)
        for body in bodies:
            _find_structural(body, found)
        if bodies or node.domain != "" or node.op_type in _NOT_STRUCTURAL or is_widened(node):
            continue
        if node.op_type in {"Shape", "Size"} or all(
            value is None or value.producer() in found or is_constant(value) for value in node.inputs
        ):
            found[node] = None


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Bodies that a control flow node holds."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.data.values():  # the plain dict: this is asked of every node, often
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, through its bodies as well."""
    yield from (value for value in node.inputs if value is not None)
    yield from outer_values(node)


def outer_values(node: ir.Node) -> list[ir.Value]:
    """Values of the enclosing graph that the bodies of ``node`` read."""
    used: dict[ir.Value, None] = {}
    if not node.attributes:
        return []
    for body in subgraphs(node):
        own: set[ir.Value] = {*body.inputs, *body.initializers.values()}
        for inner in ir.traversal.RecursiveGraphIterator(body):
            own.update(inner.outputs)
            for nested in subgraphs(inner):
                own.update([*nested.inputs, *nested.initializers.values()])
            used.update((value, None) for value in inner.inputs if value is not None)
        used.update((value, None) for value in body.outputs)
        for value in [value for value in used if value in own]:
            del used[value]
    return list(used)
