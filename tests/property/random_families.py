"""Blocks of random networks that hold one of the harder structures each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper
from random_builder import Builder

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Families(Builder):
    """Bodies, quantized and computed weights, experts, dead branches, recurrence, equations."""

    # ---- for images and tokens ------------------------------------------------------------------

    def equation(self) -> None:
        """A layer as an Einsum."""
        n = self.broad()
        weight, is_turned = self.weight(self.width, n), bool(self.rng.integers(2))
        if is_turned:
            weight = self.weight(n, self.width)
        inner = "oc" if is_turned else "co"
        x, y = ("bchw", "bohw") if self.is_image else ("btc", "bto")
        self.go(self.add("Einsum", self.x, weight, equation=f"{x},{inner}->{y}"), n)

    def single_positions(self) -> None:
        """Single channels, each weighted by a vector of its own, are added up: a dead branch when it goes."""
        n, width = int(self.pick(3, 4, 6)), self.broad()
        x = self.layer(self.x, self.width, n)
        if self.rng.integers(2):
            x = self.add("Softmax", x, axis=self.axis)
        terms = []
        for p in range(n):
            picked = self.slice(x, p, p + 1, self.axis)
            if self.rng.integers(3) == 0:
                picked = self.add("Gather", x, self.scalar(p), axis=self.axis)
                picked = self.add("Unsqueeze", picked, self.ints(self.axis))
            terms.append(self.add("Mul", picked, self.channel_vector(width)))
        self.go(self.summed(terms), width)

    def summed(self, terms: list[str]) -> str:
        if self.rng.integers(2):
            return self.add("Sum", *terms)
        total = terms[0]
        for term in terms[1:]:
            total = self.add("Add", *self.pick((total, term), (term, total)))
        return total

    def gated_branches(self) -> None:
        """Soft experts: all of them run, a gate weighs them."""
        n, hidden = int(self.pick(3, 4)), self.broad()
        gate = self.add("Softmax", self.layer(self.x, self.width, n), axis=self.axis)
        terms = []
        for e in range(n):
            inner = self.act(self.layer(self.x, self.width, hidden))
            out = self.layer(inner, hidden, self.width)
            terms.append(self.add("Mul", out, self.slice(gate, e, e + 1, self.axis)))
        self.go(self.summed([self.x, *terms]), self.width)

    def tiled(self) -> None:
        """Channels twice over, one after the other or each beside itself."""
        n = self.width
        if self.rng.integers(2):
            repeats = [1] * (4 if self.is_image else 3)
            repeats[self.axis] = 2
            self.go(self.add("Tile", self.x, self.ints(*repeats)), 2 * n)
            return
        y = self.add("Unsqueeze", self.x, self.ints(self.axis + 1))
        shape = [1] * (5 if self.is_image else 4)
        shape[self.axis + 1] = 2
        y = self.add("Expand", y, self.ints(*shape))
        self.go(self.reshape(y, [0, -1, 8, 8] if self.is_image else [0, 0, 2 * n]), 2 * n)

    def conditional(self) -> None:
        """Two ways from the current tensor to one of the same shape."""
        n = self.broad()
        total = self.add("ReduceSum", self.x, keepdims=0)
        condition = self.add("Greater", total, self.const(np.float32(0.1)))
        bodies = []
        for _ in range(2):
            with self.body() as nodes:
                x, width = self.x, self.width
                if self.rng.integers(2):
                    width = self.broad()
                    x = self.act(self.layer(x, self.width, width))
                y = self.act(self.layer(x, width, n))
            out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
            bodies.append(helper.make_graph(nodes, self.name("body"), [], [out]))
        self.go(self.add("If", condition, then_branch=bodies[0], else_branch=bodies[1]), n)

    def looped(self) -> None:
        """A state that is carried, and what is around it read in each round."""
        n = self.broad()
        start, given = self.layer(self.x, self.width, n), self.layer(self.x, self.width, n)
        step, go, state, more = (self.name(stem) for stem in ("step", "go", "state", "more"))
        with self.body() as nodes:
            y = self.layer(state, n, n)
            y = self.act(self.add("Add", y, given))
            nodes.append(helper.make_node("Identity", [go], [more], name=more))
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            nodes,
            self.name("body"),
            [
                info(step, TensorProto.INT64, []),
                info(go, TensorProto.BOOL, []),
                info(state, TensorProto.FLOAT, None),
            ],
            [info(more, TensorProto.BOOL, []), info(y, TensorProto.FLOAT, None)],
        )
        count, yes = self.const(np.int64(self.rng.integers(1, 4))), self.const(np.bool_(True))
        self.go(self.add("Loop", count, yes, start, body=body), n)

    def quantized(self) -> None:
        """A layer whose weight is stored in eight bits, with a scale per channel or one for all."""
        n, n_in = self.broad(), self.width
        shape, axis = ((n, n_in, 1, 1), 0) if self.is_image else ((n_in, n), 1)
        numbers = self.rng.integers(-90, 91, shape).astype(np.int8)
        many = n if self.rng.integers(3) else 1
        scale = (self.rng.uniform(0.5, 1.5, many) / (60 * n_in**0.5)).astype(np.float32)
        inputs = [self.const(numbers, "q"), self.const(scale if many > 1 else scale[0])]
        if self.rng.integers(2):
            inputs.append(self.const(np.zeros(many if many > 1 else (), np.int8)))
        weight = self.add("DequantizeLinear", *inputs, axis=axis)
        x = self.x
        if self.rng.integers(2):
            x, self.rounds = self.through_bytes(x), True
        y = self.add("Conv" if self.is_image else "MatMul", x, weight)
        self.go(self.act(y), n)

    def through_bytes(self, x: str) -> str:
        kind, zero = self.pick((np.uint8, 128), (np.int8, 0))
        scale, point = self.const(np.float32(0.04)), self.const(np.array(zero, kind))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, point), scale, point)

    def computed_weight(self) -> None:
        """Weights that are turned round, normed or joined in the graph."""
        n, n_in = self.broad(), self.width
        if self.is_image:
            v = self.weight(n, n_in, 1, 1)
            normed = self.add("Div", v, self.reduce("ReduceL2", v, [1, 2, 3]))
            self.go(self.add("Conv", self.x, self.add("Mul", normed, self.weight(n, 1, 1, 1, scale=0.7))), n)
            return
        weight = self.pick(
            lambda: self.add("Transpose", self.weight(n, n_in), perm=[1, 0]),
            lambda: self.add("Concat", self.weight(n_in, n // 2), self.weight(n_in, n // 2), axis=1),
        )()
        self.go(self.act(self.add("MatMul", self.x, weight)), n)

    # ---- images ---------------------------------------------------------------------------------

    def pixel_shuffle(self) -> None:
        """Channels become pixels, and pixels channels again."""
        n = self.pick(8, 12)
        x = self.act(self.layer(self.x, self.width, n))
        big = self.add("DepthToSpace", x, blocksize=2, mode=self.pick("DCR", "CRD"))
        if self.rng.integers(2):
            self.go(self.add("MaxPool", self.conv(big, n // 4, 4), kernel_shape=[2, 2], strides=[2, 2]), 4)
            return
        self.go(self.add("SpaceToDepth", self.act(big), blocksize=2), n)

    def shuffle_units(self) -> None:
        """Half of the channels pass, the others are convolved; then they are shuffled, and again."""
        n = 8
        x = self.layer(self.x, self.width, n)
        for _ in range(int(self.rng.integers(1, 4))):
            left, right = self.split(x, [n // 2, n // 2], 1)
            right = self.act(self.conv(right, n // 2, n // 2, kernel=3, group=self.pick(1, n // 2)))
            joined = self.add("Concat", left, right, axis=1)
            apart = self.reshape(joined, [0, 2, n // 2, 8, 8])
            x = self.reshape(self.add("Transpose", apart, perm=[0, 2, 1, 3, 4]), [0, n, 8, 8])
        self.go(x, n)

    # ---- tokens ---------------------------------------------------------------------------------

    def rms_norm(self) -> None:
        scale = self.weight(self.width, scale=0.7)
        if self.opset >= 23 and self.rng.integers(2):
            self.go(self.add("RMSNormalization", self.x, scale, axis=-1), self.width)
            return
        square = self.add("Mul", self.x, self.x)
        mean = self.add("Add", self.reduce("ReduceMean", square, [-1]), self.const(np.float32(0.1)))
        y = self.add("Mul", self.x, self.add("Reciprocal", self.add("Sqrt", mean)))
        self.go(self.add("Mul", y, scale), self.width)

    def gated_mlp(self) -> None:
        """Gate and up projection fused, cut apart by Split or Slices; a residual around it."""
        half = self.broad()
        both = self.linear(self.x, self.width, 2 * half)
        if self.rng.integers(2):
            gate, up = self.split(both, [half, half], 2)
        else:
            gate, up = self.slice(both, 0, half, 2), self.slice(both, half, 2**31, 2)
        inner = self.add("Mul", self.add("Mul", gate, self.add("Sigmoid", gate)), up)
        self.go(self.add("Add", self.linear(inner, half, self.width), self.x), self.width)

    def stacked_attention(self) -> None:
        """Queries, keys and values on an axis of three; a table of biases by distance; or equations."""
        heads, size = self.pick(2, 3), self.pick(2, 4)
        width = heads * size
        y = self.reshape(self.linear(self.x, self.width, 3 * width), [0, 0, 3, heads, size])
        if self.rng.integers(2):
            y = self.add("Transpose", y, perm=[2, 0, 3, 1, 4])
            q, k, v = (self.add("Gather", y, self.scalar(i), axis=0) for i in range(3))
        else:
            parts = self.split(self.add("Transpose", y, perm=[0, 2, 3, 1, 4]), [1, 1, 1], 1)
            q, k, v = (self.add("Squeeze", part, self.ints(1)) for part in parts)
        by_equation = self.rng.integers(2)
        if by_equation:
            scores = self.add("Einsum", q, k, equation="bhid,bhjd->bhij")
        else:
            scores = self.add("MatMul", q, self.add("Transpose", k, perm=[0, 1, 3, 2]))
        if isinstance(self.length, int):
            length = self.length
            index = np.arange(length)[:, None] - np.arange(length) + length - 1
            table = self.add(
                "Gather", self.weight(2 * length - 1, heads, scale=0.5), self.const(index), axis=0
            )
            bias = self.add("Transpose", table, perm=[2, 0, 1])
            scores = self.add("Add", scores, self.add("Unsqueeze", bias, self.ints(0)))
        probs = self.add("Softmax", scores, axis=-1)
        if by_equation:
            mixed = self.add("Einsum", probs, v, equation="bhij,bhjd->bihd")
        else:
            mixed = self.add("Transpose", self.add("MatMul", probs, v), perm=[0, 2, 1, 3])
        out = self.linear(self.reshape(mixed, [0, 0, width]), width, self.width)
        self.go(self.add("Add", out, self.x), self.width)

    def fused_attention(self) -> None:
        """One operator, with grouped queries as well."""
        if self.opset < 23:
            return
        heads, size, groups = self.pick(2, 3), self.pick(2, 4), self.pick(1, 2)
        q = self.linear(self.x, self.width, groups * heads * size)
        k, v = (self.linear(self.x, self.width, heads * size) for _ in range(2))
        y = self.add("Attention", q, k, v, q_num_heads=groups * heads, kv_num_heads=heads)
        out = self.linear(y, groups * heads * size, self.width)
        self.go(self.add("Add", out, self.x), self.width)

    def windows(self) -> None:
        """Positions are rolled and taken two by two; or two neighbours become one position."""
        if not isinstance(self.length, int) or self.length % 2:
            return
        if self.rng.integers(2):
            even, odd = (self.slice(self.x, k, 2**31, 1, 2) for k in (0, 1))
            self.go(self.add("Concat", even, odd, axis=2), 2 * self.width)
            self.length //= 2
            return
        rolled = self.add("Concat", self.slice(self.x, 1, 2**31, 1), self.slice(self.x, 0, 1, 1), axis=1)
        pairs = self.reshape(rolled, [-1, 2, self.width])
        mixed = self.add("MatMul", pairs, self.add("Transpose", pairs, perm=[0, 2, 1]))
        mixed = self.add("MatMul", self.add("Softmax", mixed, axis=-1), pairs)
        self.go(self.reshape(mixed, [-1, self.length, self.width]), self.width)

    def positions(self) -> None:
        if isinstance(self.length, int):
            self.go(self.add("Add", self.x, self.weight(1, self.length, self.width, scale=0.5)), self.width)

    def routed(self) -> None:
        """Each token goes to some experts, whose weights are stacked, or that all run."""
        experts, chosen, hidden = int(self.pick(4, 5)), int(self.pick(1, 2)), self.broad()
        logits = self.linear(self.x, self.width, experts)
        is_stacked = bool(self.rng.integers(2))
        if not is_stacked and self.rng.integers(2):
            logits = self.add("Softmax", logits, axis=-1)
        values, index = self.several("TopK", [logits, self.ints(chosen)], 2, axis=-1)
        make: Callable[..., str] = self.stacked if is_stacked else self.unrolled
        self.go(self.add("Add", self.x, make(logits, values, index, experts, hidden)), self.width)

    def stacked(self, logits: str, values: str, index: str, experts: int, hidden: int) -> str:
        shares = self.add("Softmax", values, axis=-1)
        up = self.add("Gather", self.weight(experts, self.width, hidden), index)
        down = self.add("Gather", self.weight(experts, hidden, self.width), index)
        inner = self.act(self.add("MatMul", self.add("Unsqueeze", self.x, self.ints(2, 3)), up))
        out = self.add("Mul", self.add("MatMul", inner, down), self.add("Unsqueeze", shares, self.ints(3, 4)))
        return self.add("ReduceSum", out, self.ints(2, 3), keepdims=0)

    def unrolled(self, logits: str, values: str, index: str, experts: int, hidden: int) -> str:
        none = self.add("Expand", self.const(np.zeros(1, np.float32)), self.add("Shape", logits))
        weights = self.add("ScatterElements", none, index, values, axis=-1)
        terms = []
        for e in range(experts):
            inner = self.act(self.linear(self.x, self.width, hidden))
            out = self.linear(inner, hidden, self.width)
            terms.append(self.add("Mul", out, self.slice(weights, e, e + 1, 2)))
        return self.summed(terms)

    def recurrent(self) -> None:
        """One layer in some direction, with or without an initial state."""
        op_type, hidden = self.pick(*GATES), int(self.pick(3, 4, 6))
        direction = self.pick("forward", "reverse", "bidirectional")
        ways, rows = 2 if direction == "bidirectional" else 1, GATES[op_type] * hidden
        x = self.add("Transpose", self.x, perm=[1, 0, 2])
        inputs = [x, *(self.weight(ways, rows, n, scale=0.4) for n in (self.width, hidden))]
        if self.rng.integers(2):
            inputs += [self.weight(ways, 2 * rows, scale=0.4), ""]
            shape = self.add("Concat", self.ints(ways), self.size_of(self.x, 0), self.ints(hidden), axis=0)
            inputs += [self.add("Expand", self.weight(ways, 1, hidden, scale=0.4), shape)]
        extra = {"linear_before_reset": int(self.rng.integers(2))} if op_type == "GRU" else {}
        y = self.several(op_type, inputs, 1, hidden_size=hidden, direction=direction, **extra)[0]
        if ways == 1:
            y = self.add("Transpose", self.add("Squeeze", y, self.ints(1)), perm=[1, 0, 2])
        else:
            y = self.reshape(self.add("Transpose", y, perm=[2, 0, 1, 3]), [0, 0, 2 * hidden])
        self.go(y, ways * hidden)
