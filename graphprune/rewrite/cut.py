"""From a set of removed units to a smaller model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as common

from graphprune.analysis import Analysis, Use
from graphprune.axes_kept import Keep, Keeps, Mask, touches
from graphprune.model import Model
from graphprune.names import unique_name
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.registry import REPAIRS
from graphprune.rewrite.sizes import CutSizes

Removed = npt.NDArray[np.bool_]
#: Makes the changed copy of a constant: (tensor, masks per axis, new name) -> tensor.
Changer = Callable[[ir.TensorProtocol, Keep, str], ir.TensorProtocol]


def cut(analysis: Analysis, removed: Removed) -> Model:
    """The model without the removed units.

    Args:
        analysis: of the model; not changed.
        removed: ``[len(algebra)]`` mask over units.

    Returns:
        A new model; weights are sliced lazily when they are read or written.
    """
    keeps = Keeps(analysis, removed)
    model = Model(analysis.model.ir.clone(), data_files=analysis.model.data_files)
    graph = model.ir.graph
    nodes = dict(zip(analysis.model.ir.graph, graph, strict=True))
    slice_parameters(analysis, keeps, nodes, take)
    sizes = CutSizes(analysis.trace, keeps)
    for old, new in nodes.items():
        repair_node(sizes, keeps, old, new)
    for value in _values(graph):
        _shrink_shape(analysis, keeps, value)
    common.RemoveUnusedNodesPass()(model.ir)
    return model


def repair_node(sizes: CutSizes, keeps: Keeps, old: ir.Node, new: ir.Node) -> None:
    """Brings a node's attributes and shape inputs in line with its shrunken axes."""
    keep_in = [keeps.of_input(old, i) for i in range(len(old.inputs))]
    keep_out = [keeps.of_output(old, i) for i in range(len(old.outputs))]
    if not any(touches(k) for k in (*keep_in, *keep_out)):
        return
    opset = keeps.analysis.model.ir.opset_imports.get(old.domain, 1)
    function = REPAIRS.find(old.domain, old.op_type, opset)
    if function is not None:
        function(RepairContext(new, opset, keep_in, keep_out, sizes))


def slice_parameters(
    analysis: Analysis,
    keeps: Keeps,
    nodes: Mapping[ir.Node, ir.Node],
    change: Changer,
    include: Callable[[Use], bool] = lambda use: True,
) -> None:
    """Gives every use of a constant its changed copy; uses that keep the same share one.

    The constant keeps its name if all its uses agree, so plans and users find it again.
    """
    by_value: dict[ir.Value, list[tuple[ir.Node, int, Keep]]] = {}
    for (node, i), use in analysis.uses.items():
        keep = keeps.of_use(use)
        if touches(keep) and include(use):
            by_value.setdefault(use.value, []).append((node, i, keep))
    for value, changed in by_value.items():
        variants: dict[tuple[bytes, ...], ir.Value] = {}
        everywhere = len(changed) == len(value.uses()) and not value.is_graph_output()
        for node, i, keep in changed:
            key = tuple(b"" if m is None else m.tobytes() for m in keep)
            if key not in variants:
                in_place = everywhere and not variants
                variants[key] = _variant(nodes[node], i, value, keep, change, in_place=in_place)
            nodes[node].replace_input_with(i, variants[key])


def _variant(
    node: ir.Node, i: int, value: ir.Value, keep: Keep, change: Changer, *, in_place: bool
) -> ir.Value:
    graph, old = node.graph, node.inputs[i]
    assert isinstance(graph, ir.Graph)
    assert old is not None
    assert value.const_value is not None
    base = value.name or "constant"
    name = base if in_place else unique_name(graph, f"{base}/cut")
    tensor = change(value.const_value, keep, name)
    new = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
        doc_string=old.doc_string,
    )
    new.metadata_props.update(old.metadata_props)
    if in_place:
        graph.initializers.pop(base)
    graph.register_initializer(new)
    return new


def take(tensor: ir.TensorProtocol, keep: Keep, name: str) -> ir.TensorProtocol:
    """The kept positions of a tensor, read when needed."""
    index = np.ix_(*(_positions(m, n) for m, n in zip(keep, tensor.shape.numpy(), strict=True)))
    shape = ir.Shape([len(i.reshape(-1)) for i in index])

    def read() -> ir.TensorProtocol:
        return ir.tensor(np.ascontiguousarray(tensor.numpy()[index]), dtype=tensor.dtype, name=name)

    return ir.LazyTensor(read, dtype=tensor.dtype, shape=shape, cache=in_memory(tensor), name=name)


def in_memory(tensor: ir.TensorProtocol) -> bool:
    """Is the tensor held in memory anyway, so that a slice of it may be kept there too?"""
    return not isinstance(tensor, (ir.ExternalTensor, ir.LazyTensor))


def _positions(mask: Mask | None, size: int | ir.SymbolicDim) -> npt.NDArray[np.int64]:
    return np.arange(int(size)) if mask is None else np.flatnonzero(mask)  # type: ignore[arg-type]


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _shrink_shape(analysis: Analysis, keeps: Keeps, value: ir.Value) -> None:
    """Writes new sizes into the recorded shape of a value."""
    axes = analysis.axes.get(value.name or "")
    if axes is None or value.shape is None or len(value.shape) != len(axes):
        return
    masks = [keeps.of(axis) for axis in axes]
    if touches(tuple(masks)):
        # A symbolic size that shrinks (batch times heads) is left open: its name is no longer true.
        value.shape = ir.Shape(
            d if m is None else int(m.sum()) if isinstance(d, int) else None
            for d, m in zip(value.shape.dims, masks, strict=True)
        )
