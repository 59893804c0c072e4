"""From a set of removed units to a smaller model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis, Use
from graphprune.axes_kept import Keep, Keeps, touches
from graphprune.deaths import Deaths
from graphprune.garbage import no_collection
from graphprune.model import Model
from graphprune.names import unique_name
from graphprune.rewrite.context import RepairContext
from graphprune.rewrite.declared import repair_declared
from graphprune.rewrite.operands import bypass_layers, drop_operands
from graphprune.rewrite.pieces import drop_empty_pieces
from graphprune.rewrite.registry import REPAIRS
from graphprune.rewrite.sizes import CutSizes
from graphprune.storage.slices import Sliced
from graphprune.storage.unused import remove_unused

Removed = npt.NDArray[np.bool_]
#: Makes the changed copy of a constant: (tensor, masks per axis, new name) -> tensor.
Changer = Callable[[ir.TensorProtocol, Keep, str], ir.TensorProtocol]


@no_collection()
def cut(analysis: Analysis, removed: Removed) -> Model:
    """The model without the removed units.

    Args:
        analysis: of the model; not changed.
        removed: ``[len(algebra)]`` mask over units.

    Returns:
        A new model; weights are sliced lazily when they are read or written.
    """
    keeps, deaths = Keeps(analysis, removed), Deaths(analysis)
    living = deaths.living(removed)
    source = analysis.model
    model = Model(source.ir.clone(), data_files=source.data_files, stamps=source.stamps)
    graph = model.ir.graph
    nodes = dict(zip(analysis.model.ir.graph.all_nodes(), graph.all_nodes(), strict=True))
    slice_parameters(analysis, keeps, nodes, take, living=living)
    sizes = CutSizes(analysis.trace, keeps)
    for old, new in nodes.items():
        if living is None or old in living:
            repair_node(sizes, keeps, old, new)
    if living is not None:
        # In this order: the layer's input may be a sum that loses its branch.
        bypass_layers(nodes, deaths.bypassed(removed))
        drop_operands(nodes, [(n, i) for n, i in deaths.dropped(removed) if n in living])
    for value in _values(graph):
        _shrink_shape(analysis, keeps, value)
    remove_unused(model.ir)
    if drop_empty_pieces(model.ir, sizes):
        remove_unused(model.ir)
    return model


def repair_node(sizes: CutSizes, keeps: Keeps, old: ir.Node, new: ir.Node) -> None:
    """Brings a node's attributes and shape inputs in line with its shrunken axes."""
    keep_in = [keeps.of_input(old, i) for i in range(len(old.inputs))]
    keep_out = [keeps.of_output(old, i) for i in range(len(old.outputs))]
    keep_index = [keeps.of_index(old, i) for i in range(len(old.inputs))]
    if not any(touches(k) for k in (*keep_in, *keep_out, keep_index)):
        return
    opset = keeps.analysis.model.ir.opset_imports.get(old.domain, 1)
    function = REPAIRS.find(old.domain, old.op_type, opset)
    declaration = keeps.analysis.declarations.find(old)
    if declaration is not None:
        function = partial(repair_declared, declaration)
    if function is not None:
        function(RepairContext(new, opset, keep_in, keep_out, sizes, keep_index))


def slice_parameters(
    analysis: Analysis,
    keeps: Keeps,
    nodes: Mapping[ir.Node, ir.Node],
    change: Changer,
    include: Callable[[Use], bool] = lambda use: True,
    living: Collection[ir.Node] | None = None,
) -> None:
    """Gives every use of a constant its changed copy; uses that keep the same share one.

    The constant keeps its name if all its uses by living nodes agree, so plans and users find it again.
    """
    # All constants stand in the main graph, those that bodies read as well; so does the first node.
    graph = next((node.graph for node in nodes.values()), None)
    by_value: dict[ir.Value, list[tuple[ir.Node, int, Keep]]] = {}
    for (node, i), use in analysis.uses.items():
        if living is not None and node not in living:
            continue
        keep = keeps.of_use(use)
        if touches(keep) and include(use):
            by_value.setdefault(use.value, []).append((node, i, keep))
    for value, changed in by_value.items():
        variants: dict[tuple[bytes, ...], ir.Value] = {}
        users = [node for node, _ in value.uses() if living is None or node in living]
        everywhere = len(changed) == len(users) and not value.is_graph_output()
        for node, i, keep in changed:
            key = tuple(b"" if m is None else m.tobytes() for m in keep)
            if key not in variants:
                in_place = everywhere and not variants
                assert isinstance(graph, ir.Graph)
                old = nodes[node].inputs[i]
                assert old is not None
                variants[key] = _variant(graph, old, value, keep, change, in_place=in_place)
            nodes[node].replace_input_with(i, variants[key])


def _variant(
    graph: ir.Graph, old: ir.Value, value: ir.Value, keep: Keep, change: Changer, *, in_place: bool
) -> ir.Value:
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
    kept = {d: mask for d, mask in enumerate(keep) if mask is not None}
    return Sliced(tensor, kept, name, cache=in_memory(tensor))


def in_memory(tensor: ir.TensorProtocol) -> bool:
    """Is the tensor held in memory anyway, so that a slice of it may be kept there too?"""
    return not isinstance(tensor, (ir.ExternalTensor, ir.LazyTensor))


def _values(graph: ir.Graph) -> list[ir.Value]:
    inputs = [value for each in (graph, *graph.subgraphs()) for value in each.inputs]
    return [*inputs, *(value for node in graph.all_nodes() for value in node.outputs)]


def _shrink_shape(analysis: Analysis, keeps: Keeps, value: ir.Value) -> None:
    """Writes new sizes into the recorded shape of a value; one that was never true goes."""
    traced = analysis.trace.shapes.get(value.name or "")
    if value.shape is not None and traced is not None and value.producer() is not None:
        declared = value.shape.dims
        if len(declared) != len(traced) or any(
            isinstance(d, int) and d != n for d, n in zip(declared, traced, strict=True)
        ):
            value.shape = None
            return
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
