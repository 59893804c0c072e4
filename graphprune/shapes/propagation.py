"""Carry concrete shapes through a graph where onnx's own data propagation gives up.

It gives up at the first op on sizes that it doesn't follow (Range, a division, a Where), and
everything behind that stays unknown. Here shape arithmetic is computed as it is met, and every op
left open is inferred again with the values at hand.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.runtime import Fragment, array_proto, evaluate, infer_by_session
from graphprune.shapes.bodies import infer_bodies
from graphprune.shapes.inference import SMALL_ELEMENTS, Inferred, Skeleton
from graphprune.shapes.shape_ops import compute
from graphprune.shapes.shape_values import subgraphs
from graphprune.storage.constants import is_constant

# A runtime session is opened for arithmetic on so few numbers only: more are a mask or a table.
FEW_ELEMENTS = 16


class Propagation:
    """Shapes and small values of a graph, from what inference found on.

    Attributes:
        shapes: of the tensors, by name; complete unless an op can't be inferred.
        types: element types.
        values: what shape arithmetic computes, where that is at most `SMALL_ELEMENTS` elements.
        others: names of values that are no tensors.
        structural: nodes that compute from sizes and constants alone.
    """

    def __init__(self, model: ir.Model, skeleton: Skeleton, found: Inferred) -> None:
        self.shapes = {n: shape for n in found.axes if (shape := found.shape(n)) is not None}
        self.types = dict(found.types)
        self.values: dict[str, np.ndarray] = {}
        self.others = found.others
        self._model = model
        self._opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
        self.structural = skeleton.structural
        self._constants = skeleton.constants
        self._ir_version = model.ir_version or 8

    def run(self) -> None:
        """Fill in `shapes` and `values` as far as possible.

        Raises:
            EvaluationError: shape arithmetic fails under these sizes.
        """
        self.walk(self._model.graph)

    def walk(self, graph: ir.Graph) -> None:
        """The same for the nodes of the graph, or of a body whose inputs are known.

        Raises:
            EvaluationError: shape arithmetic fails under these sizes.
        """
        for node in graph:
            if node in self.structural:
                self._compute(node)
            if subgraphs(node):
                infer_bodies(self, node, self._model.opset_imports[""])
            elif not self._is_done(node):
                self._infer(node)

    def array(self, value: ir.Value) -> np.ndarray | None:
        """What ``value`` is known to hold, if that is small."""
        if is_constant(value):
            return self._constants.get(value.name or "")
        return self.values.get(value.name or "")

    def _is_done(self, node: ir.Node) -> bool:
        names = [value.name for value in node.outputs if value.name]
        return all(name in self.shapes or name in self.others for name in names)

    def _compute(self, node: ir.Node) -> None:
        """Compute a node of shape arithmetic, if its inputs are known and its outputs are small."""
        if node.op_type in {"Shape", "Size"} and self._read_size(node):
            return
        names = [value.name for value in node.outputs if value.name]
        if any(prod(self.shapes.get(name, ())) > SMALL_ELEMENTS for name in names):
            return
        arrays = [None if value is None else self.array(value) for value in node.inputs]
        for value, array in zip(node.inputs, arrays, strict=True):
            if value is not None and array is None:
                return
        results = compute(node, arrays)
        if results is not None:
            for value, array in zip(node.outputs, results, strict=False):
                self._note(value.name or "", array)
            return
        if max((array.size for array in arrays if array is not None), default=0) > FEW_ELEMENTS:
            return
        tensors = {
            value.name or "": ir.Tensor(array, name=value.name)
            for value, array in zip(node.inputs, arrays, strict=True)
            if value is not None and array is not None
        }
        fragment = Fragment([node], tensors, self._model.opset_imports, self._ir_version)
        for name, array in evaluate(fragment, names, refuse=True).items():
            self._note(name, array)

    def _note(self, name: str, array: np.ndarray) -> None:
        dtype = ir.DataType.from_numpy(array.dtype)
        self.shapes[name] = array.shape
        if array.size <= SMALL_ELEMENTS and self.types.setdefault(name, dtype) == dtype:
            self.values[name] = array

    def _read_size(self, node: ir.Node) -> bool:
        """Note the result of a Shape or Size node, if the shape it reads is known."""
        source, name = node.inputs[0], node.outputs[0].name or ""
        shape = self.shapes.get(source.name or "") if source is not None else None
        if shape is None:
            return False
        if node.op_type == "Size":
            self.values[name] = np.asarray(prod(shape), np.int64)
        else:
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
            self.values[name] = np.asarray(shape[start:end], np.int64)
        self.shapes[name] = self.values[name].shape
        self.types[name] = ir.DataType.INT64
        return True

    def _infer(self, node: ir.Node) -> None:
        """Infer one node from the shapes and values of its inputs."""
        inputs = [value for value in node.inputs if value is not None and value.name]
        if any(v.name not in self.types or v.name not in self.shapes for v in inputs):
            return
        kinds = {v.name or "": (self.types[v.name or ""], self.shapes[v.name or ""]) for v in inputs}
        arrays = {value.name or "": self.array(value) for value in inputs}
        values = {name: array for name, array in arrays.items() if array is not None}
        # onnxruntime has operators of its own, one of them in the default domain.
        if node.domain != "" or not onnx.defs.has(node.op_type, self._model.opset_imports[""], ""):
            opsets = self._model.opset_imports
            for name, (dtype, shape) in infer_by_session(node, kinds, values, opsets).items():
                self.types[name], self.shapes[name] = dtype, shape
            return
        schema = onnx.defs.get_schema(node.op_type, self._model.opset_imports[""], "")
        types = {name: _type(*kind) for name, kind in kinds.items()}
        data = {name: array_proto(a, name) for name, a in values.items()}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, ir.serde.serialize_node(node), types, data, opset_imports=self._opsets
            )
        except Exception:  # inference refuses these inputs; running the op will tell why
            return
        for name, kind in found.items():
            dims = kind.tensor_type.shape.dim
            if kind.tensor_type.elem_type:
                self.types[name] = ir.DataType(kind.tensor_type.elem_type)
            has_shape = kind.tensor_type.HasField("shape")
            if has_shape and all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
                self.shapes[name] = tuple(dim.dim_value for dim in dims)


def _type(dtype: ir.DataType, shape: tuple[int, ...]) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(int(dtype), shape)
