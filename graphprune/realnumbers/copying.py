"""The copy of a model in real numbers: float32 throughout, weights dequantized, nothing rounded.

Casts between floating-point types are gone.  A quantization of data is gone too, but where it also cuts off
at zero, as where an exporter has put an activation into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from graphprune.model import Model
from graphprune.names import unique_name
from graphprune.quantization import INTEGER_RANGES, MOVING, QUANTIZED
from graphprune.realnumbers.integer_operators import PLAIN, Code, code_of, is_along_an_axis, scaled
from graphprune.realnumbers.nbits import unpacked
from graphprune.realnumbers.places import Place, Places, constant, numbers_at
from graphprune.shapes.inference import Skeleton
from graphprune.shapes.shape_values import reads
from graphprune.storage.constants import is_constant
from graphprune.widened import HALVES, widened

#: Opset since which the limits of Clip are inputs.
CLIPS_BY_INPUTS = 11
_FLOATS = (ir.DataType.FLOAT, *HALVES)


def has_few_digits(model: Model) -> bool:
    """Is something in the model quantized, or in 16 bits?"""
    graph = model.ir.graph
    constants = (v.const_value for v in graph.initializers.values())
    return any(t is not None and t.dtype in HALVES for t in constants) or any(
        n.op_type in ("DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits")
        or n.op_type.startswith("QLinear")
        for n in graph
    )


def real_copy(model: Model) -> tuple[Model, Places] | None:
    """The copy, and where its constants come from; None if some operator needs the integers.

    Args:
        model: prepared for analysis; unchanged.
    """
    if model.opset < CLIPS_BY_INPUTS and any("Linear" in node.op_type for node in model.ir.graph):
        return None
    copy = Model(widened(model, HALVES).ir.clone(), sha256="0" * 64)
    graph, places = copy.ir.graph, Places()
    nodes = dict(zip(graph.all_nodes(), model.ir.graph.all_nodes(), strict=True))
    _settle_types(copy)
    editor = _Editor(graph, nodes, places)
    for node in list(graph):
        if not editor.visit(node):
            return None
    if any(value in editor.real for value in graph.outputs):
        return None
    for value in editor.passed:
        before = value.producer()
        if before is not None and before.inputs[0] is not None and not value.is_graph_output():
            value.replace_all_uses_with(before.inputs[0])
    for node in reversed(list(graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[value.name or ""]
    return copy, places


def _settle_types(model: Model) -> None:
    """Gives what casts read the type that it has, where the file does not say."""
    unknown = [
        node.inputs[0]
        for node in model.ir.graph
        if node.op_type == "Cast" and node.inputs[0] is not None and node.inputs[0].dtype is None
    ]
    if not unknown:
        return
    axes = {
        v.name or "": tuple(
            n if isinstance(n, int) else str(n.value or f"{v.name}:{d}") for d, n in enumerate(v.shape)
        )
        for v in model.ir.graph.inputs
        if v.shape is not None
    }
    types = Skeleton(model.ir).infer(axes).types
    for value in unknown:
        if (value.name or "") in types:
            value.type = ir.TensorType(types[value.name or ""])


class _Editor:
    """Takes the place of node after node.

    Attributes:
        real: values that were integers, and are real numbers now, with the scale and zero point of then.
        passed: values that are equal to what the node before them reads.
    """

    def __init__(self, graph: ir.Graph, originals: dict[ir.Node, ir.Node], places: Places) -> None:
        self._graph, self._originals, self._places = graph, originals, places
        self.real: dict[ir.Value, Code] = {}
        self.passed: list[ir.Value] = []

    def visit(self, node: ir.Node) -> bool:
        """Edits the graph at one node; False if that can't be done."""
        touched = [value for value in reads(node) if value in self.real]
        op = node.op_type if node.domain in ("", "ai.onnx") else ""
        if op == "Cast":
            return self._cast(node, touched)
        if op == "QuantizeLinear":
            return self._quantize(node)
        if op == "DynamicQuantizeLinear":
            self._pass_on(node.outputs[0], node.inputs[0], (node.outputs[1], node.outputs[2]))
            return True
        if op == "DequantizeLinear":
            return self._dequantize(node, touched)
        if op in ("MatMulInteger", "ConvInteger"):
            return self._integer_product(node)
        if node.op_type == "MatMulNBits":
            self._packed_product(node)
            return True
        if node.op_type in PLAIN:
            return self._plain(node)
        if not touched:
            return True
        if op not in MOVING or (op == "Concat" and len(touched) < len(node.inputs)):
            return False
        if op != "Concat" and (node.inputs[0] is not touched[0] or (op == "Pad" and len(node.inputs) > 2)):
            return False
        code = self.real[touched[0]]
        if is_along_an_axis(code) or any(self.real[value] != code for value in touched):
            return False
        for value in node.outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            self.real[value] = code
        return True

    def _pass_on(self, old: ir.Value, new: ir.Value | None, code: Code | None = None) -> None:
        """Readers of a value read another one, under a name of its own while the graph is edited.

        Its other readers may know the same numbers as integers, or know them as real numbers all along.
        """
        assert new is not None
        self.passed.append(self._replace(old, "Identity", [new], code=code))

    def _replace(
        self, old: ir.Value, op_type: str, inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr] = (), *, code: Code | None = None,
    ) -> ir.Value:  # fmt: skip
        """A node makes a value in place of the one that does, under the same name.

        Of integers, ``code`` is their scale and their zero point.
        """
        anchor = old.producer()
        assert anchor is not None
        new = self._inner(op_type, inputs, old, attributes)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, old.name = old.name, unique_name(self._graph, f"{old.name}/few_digits")
        if code is not None:
            self.real[new] = code
        return new

    def _inner(
        self, op_type: str, inputs: Sequence[ir.Value | None], result: ir.Value,
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:  # fmt: skip
        """A value on the way to ``result``."""
        anchor = result.producer()
        assert anchor is not None
        node = ir.Node("", op_type, list(inputs), list(attributes), num_outputs=1)
        node.outputs[0].name = unique_name(self._graph, f"{result.name}/inner")
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), result.shape
        self._graph.insert_before(anchor, node)
        return node.outputs[0]

    def _stored(self, node: ir.Node, i: int) -> ir.Value:
        """A constant of the stand-in for the one that a node reads."""
        original = self._originals[node]
        value = node.inputs[i]
        assert value is not None
        assert value.const_value is not None
        shape = tuple(int(n) for n in value.const_value.shape.numpy())
        rank = len(shape)
        name = unique_name(self._graph, f"{node.outputs[0].name}/real_{i}")
        key = f"{original.outputs[0].name}:{i}"
        self._places.by_name[name] = Place(key, tuple(range(rank)), (1,) * rank)
        return constant(self._graph, name, shape, partial(numbers_at, original, i))

    def _operand(self, node: ir.Node, i: int) -> ir.Value | None:
        """Data as it is, a constant as the numbers that it stands for; None if it is neither."""
        value = node.inputs[i] if i < len(node.inputs) else None
        if value in self.real:
            code = code_of(node, i + 1, i + 2)
            is_same = node.op_type not in PLAIN or (self.real[value] == code and not is_along_an_axis(code))
            return value if is_same else None
        if value is None or not is_constant(value) or not _is_known(node, i):
            return None
        self._places.is_quantized = True
        return self._stored(node, i)

    def _cast(self, node: ir.Node, touched: Sequence[ir.Value]) -> bool:
        value = node.inputs[0]
        to = ir.DataType(node.attributes.get_int("to", 0))
        if touched:  # integers that were not scaled: their real numbers are others
            return False
        if value is None or to not in _FLOATS or value.dtype not in _FLOATS:
            return True
        self._places.is_recast = True
        if is_constant(value) and not value.is_graph_input():
            self._pass_on(node.outputs[0], self._stored(node, 0))
        else:
            self._pass_on(node.outputs[0], value)
        return True

    def _quantize(self, node: ir.Node) -> bool:
        x, result = node.inputs[0], node.outputs[0]
        if x is None:
            return False
        if is_constant(x):  # a weight that is stored in real numbers
            self._pass_on(result, self._stored(node, 0), code_of(node, 1, 2))
            return True
        ends = self._ends(node, 1, 2)
        if ends is None:
            self._pass_on(result, x, code_of(node, 1, 2))
        else:
            self._replace(result, "Clip", [x, *self._limits(result, ends)], code=code_of(node, 1, 2))
        return True

    def _limits(self, result: ir.Value, ends: tuple[float, float]) -> list[ir.Value]:
        names = [unique_name(self._graph, f"{result.name}/{side}") for side in ("low", "high")]
        pairs = zip(names, ends, strict=True)
        return [constant(self._graph, name, (), partial(np.asarray, end, np.float32)) for name, end in pairs]

    @staticmethod
    def _ends(node: ir.Node, scale: int, point: int) -> tuple[float, float] | None:
        """Least and largest number under this scale and zero point if one of them is zero."""
        values = [node.inputs[i] if i < len(node.inputs) else None for i in (scale, point)]
        tensors = [v.const_value if v is not None and is_constant(v) else None for v in values]
        if tensors[0] is None or tensors[0].size != 1:
            return None
        if values[1] is None:
            kind, at = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8), 0
        elif tensors[1] is None or tensors[1].size != 1:
            return None
        else:
            kind, at = tensors[1].dtype, int(tensors[1].numpy().reshape(-1)[0])
        if kind not in INTEGER_RANGES:
            return None
        low, high = INTEGER_RANGES[kind]
        step = float(tensors[0].numpy().astype(np.float32).reshape(-1)[0])
        return ((low - at) * step, (high - at) * step) if at in (low, high) else None

    def _dequantize(self, node: ir.Node, touched: Sequence[ir.Value]) -> bool:
        value, result = node.inputs[0], node.outputs[0]
        if value is None:
            return False
        if touched:
            self._pass_on(result, value)
            return value is touched[0] and self.real[value] == code_of(node, 1, 2)
        if not is_constant(value):
            return True  # data that come as integers
        if not _is_known(node, 0):
            return False
        self._places.is_quantized = True
        self._pass_on(result, self._stored(node, 0))
        return True

    def _integer_product(self, node: ir.Node) -> bool:
        """A product of integers, the cast and the multiplication by its scales: a product of real numbers."""
        end = scaled(node, self._originals[node])
        operands = [self._operand(node, i) for i in (0, 1)]
        if end is None or operands[0] is None or operands[1] is None:
            return False
        op_type = "Conv" if node.op_type == "ConvInteger" else "MatMul"
        self._replace(end, op_type, operands, list(node.attributes.values()))
        return True

    def _packed_product(self, node: ir.Node) -> None:
        found = unpacked(self._originals[node])
        if found is None:
            return
        shape, block, read = found
        result = node.outputs[0]
        name = unique_name(self._graph, f"{result.name}/real_1")
        weight = constant(self._graph, name, shape, read)
        self._places.by_name[name] = Place(f"{result.name}:1", (1, 0), (block, 1))
        self._places.is_quantized = True
        bias = node.inputs[5] if len(node.inputs) > 5 else None
        if bias is None:
            self._replace(result, "MatMul", [node.inputs[0], weight])
        else:
            product = self._inner("MatMul", [node.inputs[0], weight], result)
            self._replace(result, "Add", [product, bias])

    def _plain(self, node: ir.Node) -> bool:
        """An operator with its quantizations, one of each operand and one of the result."""
        known = PLAIN[node.op_type]
        operands = [self._operand(node, i) for i in known.operands(node)]
        if any(value is None for value in operands) or not known.is_followed(node):
            return False
        attributes = [a for name, a in node.attributes.items() if name not in known.dropped]
        result = node.outputs[0]
        places = known.scale, known.scale + 1
        is_quantized = len(node.inputs) > known.scale and node.inputs[known.scale] is not None
        code = code_of(node, *places) if is_quantized else None
        ends = self._ends(node, *places) if is_quantized else None
        if ends is None:
            self._replace(result, known.op_type, operands, attributes, code=code)
        else:
            inner = self._inner(known.op_type, operands, result, attributes)
            self._replace(result, "Clip", [inner, *self._limits(result, ends)], code=code)
        return True


def _is_known(node: ir.Node, i: int) -> bool:
    """Do constants say what number each integer at an input stands for?"""
    layout = QUANTIZED[node.op_type, i]
    given = [
        node.inputs[k] for k in (*layout.scales, layout.zero_point) if k is not None and k < len(node.inputs)
    ]
    return all(value is None or is_constant(value) for value in given)
