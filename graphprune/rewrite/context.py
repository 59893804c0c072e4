"""What a repair sees of one node, and the edits it may make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Mask = npt.NDArray[np.bool_]


class RepairContext:
    """One node of the model being rewritten.

    Args:
        node: the node to edit.
        opset: version of the node's operator set.
        keep_in: per input, per axis, the mask of kept positions (None: nothing is removed).
        keep_out: the same per output.
        shapes: traced shapes before the cut, by value name.
    """

    def __init__(
        self,
        node: ir.Node,
        opset: int,
        keep_in: Sequence[Sequence[Mask | None]],
        keep_out: Sequence[Sequence[Mask | None]],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.node, self.opset = node, opset
        self.keep_in, self.keep_out = keep_in, keep_out
        self._shapes = shapes

    def shape_in(self, i: int) -> tuple[int, ...]:
        """Traced shape of input ``i`` before the cut."""
        value = self.node.inputs[i]
        return self._shapes[value.name or ""] if value is not None else ()

    def shape_out(self, i: int = 0) -> tuple[int, ...]:
        """Traced shape of output ``i`` before the cut."""
        return self._shapes[self.node.outputs[i].name or ""]

    def new_sizes(self, i: int = 0) -> dict[int, int]:
        """Axis -> new size, for the axes of output ``i`` that shrink."""
        masks = self.keep_out[i]
        return {d: int(m.sum()) for d, m in enumerate(masks) if m is not None}

    def has(self, i: int) -> bool:
        """Is input ``i`` there?"""
        return i < len(self.node.inputs) and self.node.inputs[i] is not None

    def ints(self, i: int) -> list[int] | None:
        """A constant integer input as a list; None when absent or computed."""
        value = self.node.inputs[i] if self.has(i) else None
        if value is None or value.const_value is None:
            return None
        return [int(v) for v in value.const_value.numpy().reshape(-1)]

    def attr_int(self, name: str, default: int) -> int:
        """Integer attribute."""
        attr = self.node.attributes.get(name)
        return default if attr is None else attr.as_int()

    def attr_ints(self, name: str) -> list[int] | None:
        """Integer list attribute."""
        attr = self.node.attributes.get(name)
        return None if attr is None else list(attr.as_ints())

    def set_attr(self, name: str, value: int | Sequence[int]) -> None:
        """Writes an integer attribute or list of integers."""
        if isinstance(value, int):
            self.node.attributes[name] = ir.AttrInt64(name, value)
        else:
            self.node.attributes[name] = ir.AttrInt64s(name, list(value))

    def drop_attr(self, name: str) -> None:
        """Removes an attribute."""
        self.node.attributes.pop(name, None)

    def constant(self, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
        """A new initializer beside this node; shared constants are never changed in place."""
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)  # noqa: S101 - nodes of the main graph only
        base = f"{self.node.outputs[0].name}/{name}"
        unique, n = base, 1
        while unique in graph.initializers:
            n += 1
            unique = f"{base}_{n}"
        value = ir.Value(
            name=unique,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=unique),
        )
        graph.register_initializer(value)
        return value

    def set_ints(self, i: int, numbers: Sequence[int] | npt.NDArray[np.int64], name: str) -> None:
        """Replaces input ``i`` by a new constant of the same integer type and rank."""
        old = self.node.inputs[i] if self.has(i) else None
        dtype = np.dtype(np.int64)
        if old is not None and old.const_value is not None:
            dtype = old.const_value.dtype.numpy()
        if i >= len(self.node.inputs):
            self.node.resize_inputs(i + 1)
        self.node.replace_input_with(i, self.constant(name, np.asarray(numbers, dtype)))

    def add_node(
        self, op_type: str, inputs: Sequence[ir.Value], name: str, attributes: Mapping[str, int] | None = None
    ) -> ir.Value:
        """Inserts a node before this one and returns its output."""
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)  # noqa: S101 - nodes of the main graph only
        full = f"{self.node.outputs[0].name}/{name}"
        node = ir.node(op_type, list(inputs), dict(attributes or {}), name=full)
        node.outputs[0].name = full
        node.outputs[0].dtype = inputs[0].dtype
        graph.insert_before(self.node, node)
        return node.outputs[0]

    def patch_shape(self, i: int, entries: Mapping[int, int]) -> None:
        """Writes new sizes into some entries of the shape vector at input ``i``.

        A constant is replaced; a Concat of pieces gets new constant pieces; in any other computed
        vector the entries are overwritten at run time.
        """
        if not entries:
            return
        old = self.ints(i)
        if old is not None:
            self.set_ints(i, [entries.get(d, n) for d, n in enumerate(old)], "shape")
            return
        value = self.node.inputs[i]
        assert value is not None  # noqa: S101 - a shape input is never absent
        producer = value.producer()
        if producer is not None and producer.op_type == "Concat" and self._patch_pieces(i, producer, entries):
            return
        rank = self._shapes[value.name or ""][0]
        numbers = np.array([entries.get(d, 0) for d in range(rank)], np.int64)
        mask = np.array([d in entries for d in range(rank)])
        patched = self.add_node(
            "Where", [self.constant("is_cut", mask), self.constant("sizes", numbers), value], "cut_shape"
        )
        patched.dtype = ir.DataType.INT64
        self.node.replace_input_with(i, patched)

    def _patch_pieces(self, i: int, producer: ir.Node, entries: Mapping[int, int]) -> bool:
        pieces, start = [], 0
        for piece in producer.inputs:
            if piece is None or (piece.name or "") not in self._shapes:
                return False
            size = self._shapes[piece.name or ""][0]
            here = {d - start: n for d, n in entries.items() if start <= d < start + size}
            start += size
            if here and piece.const_value is None:
                return False
            if here and piece.const_value is not None:
                array = piece.const_value.numpy().copy()
                for d, n in here.items():
                    array[d] = n
                piece = self.constant(f"size_{start}", array)
            pieces.append(piece)
        joined = self.add_node("Concat", pieces, "cut_shape", {"axis": 0})
        joined.dtype = ir.DataType.INT64
        self.node.replace_input_with(i, joined)
        return True
