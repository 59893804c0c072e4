"""Random networks: chains of random blocks, drawn from what real graphs hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from random_builder import Array
from random_families import Families


class Net(Families):
    """A network: images or sequences of tokens; blocks that both have, then those of each."""

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
            self.expose, self.equation, self.single_positions, self.gated_branches, self.tiled,
            self.conditional, self.looped, self.quantized, self.quantized, self.computed_weight,
        ]  # fmt: skip
        images = [
            self.conv3, self.grouped, self.depthwise, self.transposed, self.batch_norm, self.batch_norm,
            self.instance_norm, self.group_norm, self.squeeze_excite, self.pooled, self.resized,
            self.to_tokens, self.pixel_shuffle, self.shuffle_units, self.to_tokens,
        ]  # fmt: skip
        tokens = [
            self.layer_norm, self.layer_norm, self.conv1d, self.attention, self.attention, self.folded_heads,
            self.rms_norm, self.gated_mlp, self.stacked_attention, self.fused_attention, self.windows,
            self.positions, self.routed, self.routed, self.recurrent, self.recurrent,
        ]  # fmt: skip
        self.widen()
        for i in range(int(self.rng.integers(2, 6))):
            # A block's own numbers: without it, those after it stay what they were.
            self.rng = np.random.default_rng([self.seed, i])
            if i not in self.skip:
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
