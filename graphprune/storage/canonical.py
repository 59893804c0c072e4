"""Bring a graph into the one form that everything after it expects.

In canonical form there are no local functions, no Constant nodes, no Identity nodes (but those that
name a graph output), the nodes are in topological order, what can be computed from constants alone is
an initializer under the name it had, and recurrent layers that start from zeros have no initial state.
Names, metadata, and the model's interface stay.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from graphprune.errors import ModelError
from graphprune.shapes.inference import Skeleton
from graphprune.shapes.shape_values import reads, subgraphs
from graphprune.storage.bodies import normalise_bodies
from graphprune.storage.branches import inline_known_branches
from graphprune.storage.constants import loaded, replace_by_constant
from graphprune.storage.fold_constants import fold_constants
from graphprune.storage.function_sizes import require_expandable
from graphprune.storage.zero_states import drop_zero_states

# Since this IR version an initializer need not be listed as an input, and one that is can be
# replaced by the caller.
OVERRIDABLE_SINCE = 4


def canonicalise(model: ir.Model) -> ir.Model:
    """Bring ``model`` into canonical form, in place, and return it.

    An initializer that the graph also declares as an input (from IR version 4 on) stays an input:
    the caller may replace it, so it is no constant. Before that version every initializer had to be
    declared, and none could be replaced: those declarations go, and the IR version rises to 4.

    Raises:
        ModelError: the graph has a cycle, or a function can't be inlined.
    """
    default = model.opset_imports.pop("ai.onnx", None)  # the long name of the default domain
    if default is not None:
        model.opset_imports.setdefault("", default)
    if "" not in model.opset_imports:
        msg = "the model does not say which version of the ONNX operators it uses"
        raise ModelError(msg, because="it imports no default operator set", hint="export it again")
    if model.functions:
        _inline(model)
    if (model.ir_version or 0) < OVERRIDABLE_SINCE:
        common.RemoveInitializersFromInputsPass()(model)
        model.ir_version = OVERRIDABLE_SINCE
    _sort(model)
    _lift_tensors(model.graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    normalise_bodies(model)
    for graph in model.graphs():
        _drop_identities(graph)
    _settle_casts(model)
    fold_constants(model)
    if inline_known_branches(model.graph):
        _lift_tensors(model.graph)
        fold_constants(model)
    drop_zero_states(model.graph)
    _hold_attributes(model)
    return model


def _hold_attributes(model: ir.Model) -> None:
    """Tensors that are left in attributes are written with the graph: no file beside the model has them."""
    for node in model.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
                continue
            if isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, loaded(attribute.value))


def _inline(model: ir.Model) -> None:
    require_expandable(model)
    try:
        common.InlinePass()(model)
    except Exception as error:  # the pass wraps what it met in a class of its own
        msg = "the model's local functions cannot be inlined"
        because = str(error.__cause__ or error).splitlines()[0]
        raise ModelError(msg, because=because, hint="export the model without functions") from error
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]


def _sort(model: ir.Model) -> None:
    if _is_sorted(model.graph, set()):
        return
    try:
        common.TopologicalSortPass()(model)
    except Exception as error:
        msg = "the graph has a cycle"
        because = "some node needs its own output, so the model can't be run"
        raise ModelError(msg, because=because, hint="export the model again") from error


def _is_sorted(graph: ir.Graph, seen: set[ir.Node]) -> bool:
    """Whether every node stands behind those that it reads from, in the bodies as well."""
    for node in graph:
        for value in reads(node):
            producer = value.producer()
            if producer is not None and producer not in seen:
                return False
        if not all(_is_sorted(body, seen) for body in subgraphs(node)):
            return False
        seen.add(node)
    return True


def _lift_tensors(graph: ir.Graph) -> None:
    """Turn Constant nodes that hold a tensor into initializers of the same name.

    The pass that lifts all other kinds does this too, but takes a second for the thousands of them
    that some exporters write.
    """
    for node in graph:
        if node.op_type != "Constant" or node.domain != "" or node.outputs[0].is_graph_output():
            continue
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            replace_by_constant(graph, node.outputs[0], attribute.value)
            graph.remove(node, safe=True)


def _settle_casts(model: ir.Model) -> None:
    """Turn CastLike into the Cast that it is, so that what is cast can be seen to be constant."""
    nodes = [n for n in model.graph if n.op_type == "CastLike" and n.domain == ""]
    types = Skeleton(model).infer({}).types if nodes else {}
    for node in nodes:
        example = node.inputs[1]
        if example is None:
            continue
        dtype = types.get(example.name or "", example.dtype)
        if dtype is None:
            continue
        node.op_type = "Cast"
        node.attributes["to"] = ir.AttrInt64("to", int(dtype))
        node.resize_inputs(1)


def _drop_identities(graph: ir.Graph) -> None:
    """Let consumers of an Identity read its input; one that names a graph output stays."""
    for node in graph:
        if node.op_type != "Identity" or node.domain != "" or node.outputs[0].is_graph_output():
            continue
        source, copy = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        if source.shape is None:
            source.shape = copy.shape
        if source.type is None:
            source.type = copy.type
        copy.replace_all_uses_with(source)
        graph.remove(node, safe=True)
