"""What a repair sees of one node, and the edits it may make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axes_kept import Mask
from graphprune.names import unique_name
from graphprune.rewrite.sizes import CutSizes
from graphprune.storage.constants import is_constant

#: Operators whose shape input holds the sizes of the output's axes, in order (repeats of a Tile are none).
ASKS_FOR_SIZES = ("Reshape", "Expand", "ConstantOfShape")


class RepairContext:
    """One node of the model being rewritten.

    Args:
        node: the node to edit.
        opset: version of the node's operator set.
        keep_in: per input, per axis, the mask of kept positions (None: nothing is removed).
        keep_out: the same per output.
        sizes: shapes before and after the cut.
        keep_index: per input that holds positions of an axis as numbers, the mask of that axis.
    """

    def __init__(
        self,
        node: ir.Node,
        opset: int,
        keep_in: Sequence[Sequence[Mask | None]],
        keep_out: Sequence[Sequence[Mask | None]],
        sizes: CutSizes,
        keep_index: Sequence[Mask | None] = (),
    ) -> None:
        self.node, self.opset = node, opset
        self.keep_in, self.keep_out, self.keep_index = keep_in, keep_out, keep_index
        self._sizes = sizes

    def shape_in(self, i: int) -> tuple[int, ...]:
        """Traced shape of input ``i`` before the cut."""
        value = self.node.inputs[i]
        return self._shape(value) if value is not None else ()

    def shape_out(self, i: int = 0) -> tuple[int, ...]:
        """Traced shape of output ``i`` before the cut."""
        return self._shape(self.node.outputs[i])

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        return self._sizes.before(value.name or "") or ()

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
        if value is None or value.const_value is None or not is_constant(value):
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
        assert isinstance(graph, ir.Graph)
        unique = unique_name(graph, f"{self.node.outputs[0].name}/{name}")
        value = ir.Value(
            name=unique,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array, name=unique),
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
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Value:
        """Inserts a node before this one and returns its output."""
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        full = unique_name(graph, f"{self.node.outputs[0].name}/{name}")
        node = ir.node(op_type, list(inputs), dict(attributes or {}), name=full)
        node.outputs[0].name = full
        if inputs[0].dtype is not None:
            node.outputs[0].dtype = inputs[0].dtype
        graph.insert_before(self.node, node)
        return node.outputs[0]

    def patch_shape(self, i: int, entries: Mapping[int, int], out: int = 0) -> None:
        """Makes the shape vector at input ``i`` ask for new sizes.

        A constant is replaced.  A computed vector is first evaluated as the cut model computes it: most
        entries follow by themselves.  The others become constants where their size is fixed, and are
        scaled where a runtime size is a factor of them (batch times heads).

        Args:
            i: the input.
            entries: position in the vector -> size after the cut, for those that shrink.
            out: output whose axes the last entries describe.
        """
        value = self.node.inputs[i]
        assert value is not None
        old = self.ints(i)
        if old is not None:
            if any(old[d] != n for d, n in entries.items()):
                self.set_ints(i, [entries.get(d, n) for d, n in enumerate(old)], "shape")
            return
        now = self._sizes.computed(value)
        rank = len(self.shape_out(out))
        length = self._shape(value)[0]
        offset = rank - length
        fixed, scaled = {}, {}
        for d, n in entries.items():
            if now is not None and self._follows(int(now[d]), d, n):
                continue
            name = self.node.outputs[out].name or ""
            if now is not None and now[d] > 0 and self._sizes.trace.is_dynamic(name, d + offset):
                scaled[d] = Fraction(n, int(now[d]))
            else:
                fixed[d] = n
        fixed |= self._drifted(entries, now, rank, offset, out)
        if fixed and not scaled and self._patch_pieces(i, value, fixed):
            return
        if fixed:
            self._overwrite(i, fixed, length)
        if scaled:
            self._scale(i, scaled, length)

    def _drifted(
        self,
        entries: Mapping[int, int],
        now: npt.NDArray[np.generic] | None,
        rank: int,
        offset: int,
        out: int,
    ) -> dict[int, int]:
        """Entries that stay, but are computed from sizes that shrink: ``batch * heads / 4``."""
        if now is None or len(now) + offset != rank or self.node.op_type not in ASKS_FOR_SIZES:
            return {}
        shape, masks = self.shape_out(out), self.keep_out[out]
        found = {
            d: shape[d + offset]
            for d in range(len(now))
            if d not in entries
            and masks[d + offset] is None
            and not self._follows(int(now[d]), d, shape[d + offset])
        }
        name = self.node.outputs[out].name or ""
        dynamic = [d for d in found if self._sizes.trace.is_dynamic(name, d + offset)]
        if self.node.op_type == "Reshape" and len(dynamic) == 1 and -1 not in now.tolist():
            found[dynamic[0]] = -1
        return found

    def _follows(self, asked: int, d: int, size: int) -> bool:
        """Does this entry of a computed shape give the size by itself?

        -1 infers, 0 copies, and the 1 of an Expand leaves the size to its first input.
        """
        if asked in (size, -1):
            return True
        if asked == 1 and self.node.op_type == "Expand":
            at = d + len(self.shape_in(0)) - self.shape_in(1)[0]
            return at >= 0 and self._size_now(0, at) == size
        if asked != 0 or self.node.op_type != "Reshape" or self.attr_int("allowzero", 0):
            return False
        return self._size_now(0, d) == size

    def _size_now(self, i: int, axis: int) -> int:
        """Size of an axis of an input after the cut."""
        keep = self.keep_in[i][axis]
        return self.shape_in(i)[axis] if keep is None else int(keep.sum())

    def _overwrite(self, i: int, fixed: Mapping[int, int], length: int) -> None:
        value = self.node.inputs[i]
        assert value is not None
        mask = np.array([d in fixed for d in range(length)])
        numbers = np.array([fixed.get(d, 0) for d in range(length)], np.int64)
        inputs = [self.constant("is_cut", mask), self.constant("sizes", numbers), value]
        patched = self.add_node("Where", inputs, "cut_shape")
        patched.dtype = ir.DataType.INT64
        self.node.replace_input_with(i, patched)

    def _scale(self, i: int, scaled: Mapping[int, Fraction], length: int) -> None:
        value = self.node.inputs[i]
        assert value is not None
        factors = [scaled.get(d, Fraction(1)) for d in range(length)]
        times = self.constant("times", np.array([f.numerator for f in factors], np.int64))
        by = self.constant("by", np.array([f.denominator for f in factors], np.int64))
        product = self.add_node("Mul", [value, times], "scaled")
        self.node.replace_input_with(i, self.add_node("Div", [product, by], "scaled_shape"))

    def _patch_pieces(self, i: int, value: ir.Value, entries: Mapping[int, int]) -> bool:
        """New constant pieces for a Concat; False if the value is none, or a piece is computed."""
        producer = value.producer()
        if producer is None or producer.op_type != "Concat":
            return False
        pieces, start = [], 0
        for piece in producer.inputs:
            shape = self._sizes.before(piece.name or "") if piece is not None else None
            if piece is None or shape is None:
                return False
            here = {d - start: n for d, n in entries.items() if start <= d < start + shape[0]}
            start += shape[0]
            if here:
                if piece.const_value is None:
                    return False
                array = piece.const_value.numpy().copy()
                for d, n in here.items():
                    array[d] = n
                piece = self.constant(f"size_{start}", array)
            pieces.append(piece)
        joined = self.add_node("Concat", pieces, "cut_shape", {"axis": 0})
        joined.dtype = ir.DataType.INT64
        self.node.replace_input_with(i, joined)
        return True
