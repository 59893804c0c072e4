"""Random networks, cut at random, and compared with the original at zero.

Each network is a chain of random blocks drawn from what real graphs hold: plain, grouped, depthwise and
transposed convolutions, normalisations, residuals, Concat, Split, Slice, Gather, Pad, channel shuffles,
squeeze-excite gates, attention in several shapes, gated and plain MLPs; batch (and often length) symbolic,
operator sets 13 to 20, target shapes literal or computed from Shape. Every cut passes the oracle, and what
claims to be exact is compared once more by code that shares nothing with graphprune: the slices that the
plan file names are set to zero in the original file, which is run at other batch sizes and lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.errors import TargetError
from graphprune.plan import Plan
from graphprune.planner import make_plan

Array = np.ndarray[Any, Any]
BLOCKS, PER_BLOCK = 8, 18
#: Constants whose zero would divide by zero: their removed entries may hold anything.
KEPT = {("Div", 1), ("BatchNormalization", 3), ("BatchNormalization", 4)}
TOLERANCE = 2e-4


@dataclass
class Net:
    """A model under construction: the current tensor is ``x``, its shape has strings for symbolic dims."""

    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    outputs: list[tuple[str, list[int | str]]] = field(default_factory=list)
    names: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.opset = int(self.rng.integers(13, 21))
        self.computed = bool(self.rng.integers(2))  # target shapes from Shape, as the legacy exporter has it
        self.length: int | str = "T" if self.rng.integers(2) else 6
        self.is_image = bool(self.rng.integers(2))
        self.input: list[int | str] = ["B", 3, 8, 8] if self.is_image else ["B", self.length, 5]
        self.x, self.width = "input", 3 if self.is_image else 5

    # ---- making nodes ---------------------------------------------------------------------------

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        return self.several(op_type, inputs, outputs, **attributes)[0]

    def several(self, op_type: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        names = [self.name(op_type.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=names[0], **attributes))
        return names

    def const(self, value: Any, stem: str = "c") -> str:
        name = self.name(stem)
        self.constants[name] = np.asarray(value)
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """A new parameter; now and then one that is there already: a tied matrix, a merged vector."""
        same = [n for n, a in self.constants.items() if n.startswith("w") and a.shape == shape]
        if same and self.rng.integers(6) == 0:
            return str(self.pick(*same))
        fan = float(np.prod(shape[1:])) if len(shape) > 2 else float(shape[0])
        values = self.rng.standard_normal(shape) * (fan**-0.5 if scale is None else scale)
        return self.const(values.astype(np.float32), "w")

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64), "i")

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def act(self, x: str, *, through_zero: bool = False) -> str:
        names = ["Relu", "Tanh", "LeakyRelu", "Elu", "Softsign", "HardSwish", "Abs"]
        if not through_zero:
            names += ["Sigmoid", "Softplus", "HardSigmoid"]
        op_type = self.pick(*names)
        if op_type == "HardSwish" and self.opset < 14:
            op_type = "Relu"
        return self.add(op_type, x)

    def reduce(self, op_type: str, x: str, axes: list[int], keepdims: int = 1) -> str:
        if self.opset >= 18 or (op_type == "ReduceSum" and self.opset >= 13):
            return self.add(op_type, x, self.ints(*axes), keepdims=keepdims)
        return self.add(op_type, x, axes=axes, keepdims=keepdims)

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        if len(set(sizes)) == 1 and self.rng.integers(2):
            extra = {"num_outputs": len(sizes)} if self.opset >= 18 else {}
            return self.several("Split", [x], len(sizes), axis=axis, **extra)
        return self.several("Split", [x, self.ints(*sizes)], len(sizes), axis=axis)

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def reshape(self, x: str, target: Sequence[int | tuple[str, int]]) -> str:
        """``target`` entries: a size, or ``(tensor, axis)`` for the size of that axis of another tensor."""
        if not any(isinstance(entry, tuple) for entry in target):
            return self.add("Reshape", x, self.ints(*(e for e in target if isinstance(e, int))))
        pieces = []
        for entry in target:
            if isinstance(entry, int):
                pieces.append(self.ints(entry))
            else:
                shape = self.add("Shape", entry[0])
                pieces.append(self.add("Gather", shape, self.ints(entry[1]), axis=0))
        return self.add("Reshape", x, self.add("Concat", *pieces, axis=0))

    # ---- layers ---------------------------------------------------------------------------------

    def conv(self, x: str, n_in: int, n_out: int, kernel: int = 1, group: int = 1) -> str:
        weight = self.weight(n_out, n_in // group, kernel, kernel)
        inputs = [x, weight, *([self.weight(n_out, scale=0.5)] if self.rng.integers(2) else [])]
        return self.add("Conv", *inputs, pads=[kernel // 2] * 4, group=group)

    def linear(self, x: str, n_in: int, n_out: int) -> str:
        y = self.add("MatMul", x, self.weight(n_in, n_out))
        if not self.rng.integers(3):
            return y
        bias = self.weight(n_out, scale=0.5)
        return self.add("Add", *self.pick((y, bias), (bias, y)))

    def layer(self, x: str, n_in: int, n_out: int) -> str:
        return self.conv(x, n_in, n_out) if self.is_image else self.linear(x, n_in, n_out)

    @property
    def axis(self) -> int:
        """Of the channels."""
        return 1 if self.is_image else 2

    def channel_vector(self, n: int, scale: float = 0.5) -> str:
        return self.weight(*((n, 1, 1) if self.is_image else (n,)), scale=scale)

    def broad(self) -> int:
        return int(self.pick(4, 6, 8, 12))

    def go(self, x: str, width: int) -> None:
        self.x, self.width = x, width

    # ---- blocks for both kinds ------------------------------------------------------------------

    def widen(self) -> None:
        width = self.broad()
        self.go(self.act(self.layer(self.x, self.width, width)), width)

    def residual(self) -> None:
        hidden = self.broad()
        inner = self.act(self.layer(self.x, self.width, hidden))
        self.go(self.add("Add", self.layer(inner, hidden, self.width), self.x), self.width)

    def join(self) -> None:
        a, b = self.broad(), self.broad()
        left = self.act(self.layer(self.x, self.width, a))
        right = self.layer(self.x, self.width, b)
        parts = [left, right, self.x][: int(self.rng.integers(2, 4))]
        width = a + b + (self.width if len(parts) == 3 else 0)
        self.go(
            self.add("Concat", *parts, axis=self.pick(self.axis, self.axis - (4 if self.is_image else 3))),
            width,
        )

    def twice(self) -> None:
        self.go(self.add("Concat", self.x, self.act(self.x), axis=self.axis), 2 * self.width)

    def gate(self) -> None:
        half = self.broad()
        a, b = self.split(self.layer(self.x, self.width, 2 * half), [half, half], self.axis)
        self.go(self.add("Mul", a, self.act(b)), half)

    def pieces(self) -> None:
        n = self.broad()
        x, cut = self.layer(self.x, self.width, n), int(self.rng.integers(1, n))
        if self.rng.integers(2):
            a, b = self.split(x, [cut, n - cut], self.axis)
        else:
            a, b = self.slice(x, 0, cut, self.axis), self.slice(x, cut - n, 10**6, self.axis)
        self.go(self.add("Concat", self.act(b), a, axis=self.axis), n)

    def strided(self) -> None:
        n = self.broad()
        x = self.layer(self.x, self.width, n)
        even, odd = (self.slice(x, k, n, self.axis, 2) for k in (0, 1))
        self.go(self.pick(
            lambda: self.add("Add", even, self.act(odd)),
            lambda: self.slice(self.add("Max", even, odd), -1, -(10**6), self.axis, -1),
        )(), n // 2)  # fmt: skip

    def gather(self) -> None:
        n = self.broad()
        x = self.layer(self.x, self.width, n)
        many = self.pick(n, n, int(self.rng.integers(2, n + 3)))
        index = self.rng.permutation(n) if many == n else self.rng.integers(-n, n, many)
        self.go(self.add("Gather", x, self.const(index.astype(np.int64)), axis=self.axis), many)

    def padded(self) -> None:
        n = self.width + 3
        rank = 4 if self.is_image else 3
        pads = [0] * (2 * rank)
        pads[self.axis], pads[rank + self.axis] = self.pick((1, 2), (0, 3), (3, 0))
        wide = self.add("Pad", self.x, self.ints(*pads))
        self.go(self.add("Add", wide, self.layer(self.x, self.width, n)), n)

    def scaled(self) -> None:
        n = self.width
        op_type = self.pick("Mul", "Add", "Sub", "Max", "PRelu", "Div", "Where")
        vector = self.channel_vector(n)
        if op_type == "Div":
            vector = self.const(0.5 + np.abs(self.constants[vector]), "divisor")
        if op_type == "Where":
            mask = self.const(self.rng.integers(0, 2, self.constants[vector].shape).astype(bool))
            self.go(self.add("Where", mask, *self.pick((self.x, vector), (vector, self.x))), n)
            return
        commutes = op_type in ("Mul", "Add", "Sub", "Max") and self.rng.integers(2)
        self.go(self.add(op_type, *((vector, self.x) if commutes else (self.x, vector))), n)

    def softmax(self) -> None:
        self.go(self.add("Softmax", self.layer(self.x, self.width, self.width), axis=self.axis), self.width)

    def centred(self) -> None:
        """A mean over the channels: a statistic."""
        mean = self.reduce(self.pick("ReduceMean", "ReduceMax", "ReduceSum"), self.x, [self.axis])
        self.go(self.add("Sub", self.x, mean), self.width)

    def shuffle(self) -> None:
        n, groups = self.pick(8, 12), self.pick(2, 4)
        x = self.layer(self.x, self.width, n)
        if self.is_image:
            y = self.reshape(x, [0, groups, n // groups, 8, 8])
            y = self.add("Transpose", y, perm=[0, 2, 1, 3, 4])
            self.go(self.reshape(y, [0, n, 8, 8] if self.rng.integers(2) else [0, -1, 8, 8]), n)
        else:
            y = self.reshape(x, [0, 0, groups, n // groups])
            self.go(self.reshape(self.add("Transpose", y, perm=[0, 1, 3, 2]), [0, 0, -1]), n)

    def expose(self) -> None:
        """The current tensor, or one made from it, is an output as well."""
        if self.rng.integers(3) == 0:
            shape: list[int | str] = (
                ["B", self.width, 8, 8] if self.is_image else ["B", self.length, self.width]
            )
            self.x = self.add("Neg", self.x)
            self.outputs.append((self.x, shape))

    # ---- images ---------------------------------------------------------------------------------

    def conv3(self) -> None:
        n = self.broad()
        self.go(self.act(self.conv(self.x, self.width, n, kernel=3)), n)

    def grouped(self) -> None:
        n, group = self.pick(4, 8), self.pick(2, 4)
        x = self.conv(self.x, self.width, n)
        out = n * self.pick(1, 2)
        self.go(self.act(self.conv(x, n, out, kernel=3, group=group)), out)

    def depthwise(self) -> None:
        n = self.width * self.pick(1, 1, 2)
        self.go(self.conv(self.x, self.width, n, kernel=3, group=self.width), n)

    def transposed(self) -> None:
        n, group = self.pick(4, 8), self.pick(1, 1, 2)
        x = self.conv(self.x, self.width, n)
        out = n // 2 * group
        self.go(self.add("ConvTranspose", x, self.weight(n, n // 2, 3, 3), pads=[1] * 4, group=group), out)

    def batch_norm(self) -> None:
        scale, bias, mean = (self.weight(self.width, scale=0.7) for _ in range(3))
        var = self.const(self.rng.uniform(0.5, 1.5, self.width).astype(np.float32))
        self.go(self.act(self.add("BatchNormalization", self.x, scale, bias, mean, var)), self.width)

    def instance_norm(self) -> None:
        scale, bias = (self.weight(self.width, scale=0.7) for _ in range(2))
        self.go(self.add("InstanceNormalization", self.x, scale, bias), self.width)

    def group_norm(self) -> None:
        """As torch exports it: InstanceNormalization between two Reshapes."""
        n, groups = self.pick(4, 8), self.pick(2, 4)
        x = self.conv(self.x, self.width, n)
        flat = self.reshape(x, [0, groups, -1])
        ones, zeros = (self.const(np.full(groups, v, np.float32)) for v in (1, 0))
        y = self.add("InstanceNormalization", flat, ones, zeros)
        y = self.add("Reshape", y, self.add("Shape", x)) if self.computed else self.reshape(y, [-1, n, 8, 8])
        y = self.add("Mul", y, self.weight(n, 1, 1, scale=0.7))
        self.go(self.add("Add", y, self.weight(n, 1, 1, scale=0.7)), n)

    def squeeze_excite(self) -> None:
        hidden = self.pick(2, 4)
        pooled = self.pick(
            lambda: self.add("GlobalAveragePool", self.x),
            lambda: self.reduce("ReduceMean", self.x, [2, 3]),
        )()
        inner = self.add("Relu", self.conv(pooled, self.width, hidden))
        gate = self.add("Sigmoid", self.conv(inner, hidden, self.width))
        self.go(self.add("Mul", *self.pick((self.x, gate), (gate, self.x))), self.width)

    def pooled(self) -> None:
        op_type = self.pick("MaxPool", "AveragePool")
        self.go(self.add(op_type, self.x, kernel_shape=[3, 3], pads=[1] * 4), self.width)

    def resized(self) -> None:
        scales = self.const(np.array([1, 1, 2, 2], np.float32))
        big = self.add("Resize", self.x, "", scales, mode="nearest")
        self.go(self.add("MaxPool", big, kernel_shape=[2, 2], strides=[2, 2]), self.width)

    def to_tokens(self) -> None:
        target: list[int | tuple[str, int]] = [0, self.width, -1] if self.rng.integers(2) else [0, 0, -1]
        if self.computed:
            target = [(self.x, 0), (self.x, 1), -1]
        self.x = self.add("Transpose", self.reshape(self.x, target), perm=[0, 2, 1])
        self.is_image, self.length = False, 64

    # ---- tokens ---------------------------------------------------------------------------------

    def layer_norm(self) -> None:
        scale, bias = (self.weight(self.width, scale=0.7) for _ in range(2))
        if self.opset >= 17 and self.rng.integers(2):
            self.go(self.add("LayerNormalization", self.x, scale, bias, axis=-1), self.width)
            return
        centred = self.add("Sub", self.x, self.reduce("ReduceMean", self.x, [-1]))
        square = self.add("Pow", centred, self.const(np.float32(2)))
        spread = self.add(
            "Sqrt", self.add("Add", self.reduce("ReduceMean", square, [-1]), self.const(np.float32(0.1)))
        )
        y = self.add("Mul", self.add("Div", centred, spread), scale)
        self.go(self.add("Add", y, bias), self.width)

    def conv1d(self) -> None:
        n = self.broad()
        x = self.add("Transpose", self.x, perm=[0, 2, 1])
        x = self.add("Conv", x, self.weight(n, self.width, 3), pads=[1, 1])
        self.go(self.add("Transpose", x, perm=[0, 2, 1]), n)

    def heads(self, x: str, heads: int, size: int, *, keys: bool = False) -> str:
        """``[B, T, heads * size] -> [B, heads, T, size]``, for keys ``[B, heads, size, T]``."""
        target: list[int | tuple[str, int]] = [0, 0, heads, size]
        if self.computed:
            target = [(x, 0), (x, 1), heads, self.pick(size, -1)]
        return self.add("Transpose", self.reshape(x, target), perm=[0, 2, 3, 1] if keys else [0, 2, 1, 3])

    def merged(self, x: str, width: int) -> str:
        y = self.add("Transpose", x, perm=[0, 2, 1, 3])
        return self.reshape(y, [(y, 0), (y, 1), width] if self.computed else [0, 0, self.pick(width, -1)])

    def attention(self) -> None:
        heads, size = self.pick(2, 3), self.pick(2, 4)
        width, grouped = heads * size, bool(self.rng.integers(3) == 0)
        if grouped:
            q = self.heads(self.linear(self.x, self.width, 2 * width), 2 * heads, size)
            k, v = (self.repeated(self.linear(self.x, self.width, width), heads, size) for _ in range(2))
            heads, width = 2 * heads, 2 * width
            k = self.add("Transpose", k, perm=[0, 1, 3, 2])
        else:
            if self.rng.integers(2):
                parts = self.split(self.linear(self.x, self.width, 3 * width), [width] * 3, 2)
            else:
                parts = [self.linear(self.x, self.width, width) for _ in range(3)]
            q, k, v = (self.heads(p, heads, size, keys=i == 1) for i, p in enumerate(parts))
        if not grouped and self.rng.integers(3) == 0:
            q = self.rotated(q, size)
        scores = self.add("Div", self.add("MatMul", q, k), self.const(np.float32(size**0.5)))
        if self.rng.integers(3) == 0:
            scores = self.add("Add", scores, self.weight(heads, 1, 1, scale=0.5))
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        out = self.linear(self.merged(mixed, width), width, self.width)
        self.go(self.add("Add", out, self.x), self.width)

    def repeated(self, x: str, heads: int, size: int) -> str:
        """Each head twice: Unsqueeze, Expand, Reshape."""
        y = self.add("Unsqueeze", self.heads(x, heads, size), self.ints(2))
        y = self.add("Expand", y, self.ints(1, 1, 2, 1, 1))
        return self.reshape(
            y, [0, 2 * heads, -1, size] if not self.computed else [(y, 0), 2 * heads, (y, 3), size]
        )

    def rotated(self, x: str, size: int) -> str:
        low, high = self.slice(x, 0, size // 2, 3), self.slice(x, size // 2, size, 3)
        turned = self.add("Concat", self.add("Neg", high), low, axis=-1)
        cos, sin = (self.weight(size, scale=0.5) for _ in range(2))
        return self.add("Add", self.add("Mul", x, cos), self.add("Mul", turned, sin))

    def folded_heads(self) -> None:
        """Batch and heads are one axis, as in attention with baddbmm."""
        heads, size = 2, self.pick(2, 4)
        q = self.heads(self.linear(self.x, self.width, heads * size), heads, size)
        folded = self.act(
            self.reshape(q, [-1, (q, 2), size] if isinstance(self.length, str) else [-1, self.length, size])
        )
        scores = self.add("MatMul", folded, self.add("Transpose", folded, perm=[0, 2, 1]))
        mixed = self.add("MatMul", self.add("Tanh", scores), folded)
        back = self.reshape(
            mixed,
            [-1, heads, (q, 2), size] if isinstance(self.length, str) else [-1, heads, self.length, size],
        )
        self.go(self.linear(self.merged(back, heads * size), heads * size, self.width), self.width)

    # ---- the whole ------------------------------------------------------------------------------

    def build(self) -> onnx.ModelProto:
        both = [
            self.widen, self.residual, self.residual, self.join, self.twice, self.gate, self.pieces,
            self.strided, self.gather, self.padded, self.scaled, self.softmax, self.centred, self.shuffle,
            self.expose,
        ]  # fmt: skip
        images = [
            self.conv3, self.grouped, self.depthwise, self.transposed, self.batch_norm, self.batch_norm,
            self.instance_norm, self.group_norm, self.squeeze_excite, self.pooled, self.resized,
            self.to_tokens,
        ]  # fmt: skip
        tokens = [
            self.layer_norm,
            self.layer_norm,
            self.conv1d,
            self.attention,
            self.attention,
            self.folded_heads,
        ]
        self.widen()
        for _ in range(int(self.rng.integers(2, 6))):
            if self.width > 24:
                self.widen()
            own: list[Callable[[], None]] = images if self.is_image else tokens
            self.pick(*own, *both)()
        self.finish()
        return self.model()

    def finish(self) -> None:
        n = 4
        if self.is_image and self.rng.integers(2):
            flat = self.add(
                "Flatten", self.pick(lambda: self.add("GlobalAveragePool", self.x), lambda: self.x)()
            )
            if not any(node.op_type == "GlobalAveragePool" and node.output[0] == self.nodes[-1].input[0]
                       for node in self.nodes):  # fmt: skip
                self.width *= 64
            y = self.add(
                "Gemm", flat, self.weight(n, self.width, scale=self.width**-0.5), self.weight(n), transB=1
            )
            self.outputs.append((y, ["B", n]))
            return
        if not self.is_image and self.rng.integers(2):
            pooled = self.reduce("ReduceMean", self.x, [1], keepdims=0)
            y = self.add("Gemm", pooled, self.weight(self.width, n), self.weight(n))
            self.outputs.append((y, ["B", n]))
            return
        y = self.layer(self.x, self.width, n)
        self.outputs.append((y, ["B", n, 8, 8] if self.is_image else ["B", self.length, n]))

    def model(self) -> onnx.ModelProto:
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            f"seed{self.seed}",
            [info("input", TensorProto.FLOAT, self.input)],
            [info(name, TensorProto.FLOAT, shape) for name, shape in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        # Half of the exporters write down the shapes of all values.
        return onnx.shape_inference.infer_shapes(model) if self.rng.integers(2) else model

    def feed(self, batch: int, length: int) -> dict[str, Array]:
        sizes = {"B": batch, "T": length}
        shape = [size if isinstance(size, int) else sizes[size] for size in self.input]
        rng = np.random.default_rng(batch + 10 * length)
        return {"input": rng.standard_normal(shape).astype(np.float32)}


# ---- cutting, and judging the cut with nothing but the plan ----------------------------------------


def random_plan(graph: gp.DependencyGraph, rng: np.random.Generator, *, exact_only: bool) -> Plan | None:
    """Some units of some groups, or what the planner chooses by a random criterion."""
    groups = [g for g in graph.groups if g.prunable and g.size > 1 and (g.exact or not exact_only)]
    if not groups:
        return None
    if rng.integers(3) == 0:
        target = {str(rng.choice(["macs", "params"])): float(rng.uniform(0.4, 0.95))}
        seed = int(rng.integers(1000))
        try:
            return gp.plan(graph, target=target, criterion="random", exact_only=exact_only, seed=seed)
        except TargetError:
            pass
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in groups:
        if rng.integers(2):
            count = int(rng.integers(1, group.size))
            removed[rng.choice(group.units, count, replace=False)] = True
    return make_plan(graph, removed, {}) if removed.any() else None


def zeroed(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The original file with zeros where the plan removes something."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    readers = {f"{n.output[0]}:{i}": (n, i) for n in result.graph.node for i in range(len(n.input))}
    own: dict[str, Array] = {}
    for entry in plan.parameters:
        gone = np.setdiff1d(np.arange(entry.size), entry.keep)
        keys = entry.uses or [key for key, (n, i) in readers.items() if n.input[i] == entry.name]
        for key in keys:
            node, i = readers[key]
            if (node.op_type, i) not in KEPT:
                array = own.setdefault(key, arrays[entry.name].copy())
                array[(slice(None),) * entry.axis + (gone,)] = 0
    for key, array in own.items():
        node, i = readers[key]
        node.input[i] = f"{key}/zeroed"
        result.graph.initializer.append(numpy_helper.from_array(array, node.input[i]))
    return result


def session(model: onnx.ModelProto, *, optimize: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def trial(seed: int) -> tuple[bool, bool]:
    """Builds, cuts and checks one network: was anything cut, and was an exact cut compared?"""
    net = Net(seed)
    model = net.build()
    rng = np.random.default_rng(seed)
    graph = gp.analyze(gp.load(model))
    plan = random_plan(graph, rng, exact_only=False)
    exact = random_plan(graph, rng, exact_only=True)
    if plan is not None:
        pruned = cut(model, plan)
        for result in pruned.run(None, net.feed(3, 5)):
            assert np.isfinite(result).all()
    if exact is not None:
        reference, pruned = session(zeroed(model, exact), optimize=False), cut(model, exact)
        for batch, length in ((1, 3), (4, 9)):
            feeds = net.feed(batch, length)
            for a, b in zip(reference.run(None, feeds), pruned.run(None, feeds), strict=True):
                assert a.shape == b.shape
                assert np.abs(a - b).max() <= TOLERANCE * max(float(np.abs(a).max()), 1e-3), seed
    return plan is not None, exact is not None


def cut(model: onnx.ModelProto, plan: Plan) -> ort.InferenceSession:
    """The cut model as a user runs it, that is optimized; it passed the oracle and costs what is claimed."""
    result = gp.prune(model, use_plan=plan)
    assert result.verdict is not None
    proto = result.model.to_proto()
    floats = [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert result.after.params == sum(int(np.prod(t.dims)) for t in floats)
    return session(proto, optimize=True)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_cut_of_a_random_network_is_right(block: int) -> None:
    found = [trial(block * PER_BLOCK + i) for i in range(PER_BLOCK)]
    assert sum(any_cut for any_cut, _ in found) >= 0.75 * PER_BLOCK
    assert sum(exact for _, exact in found) >= 0.6 * PER_BLOCK
