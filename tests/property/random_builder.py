"""Making the nodes and plain layers of a random network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

Array = np.ndarray[Any, Any]


@dataclass
class Builder:
    """A model under construction: the current tensor is ``x``, its shape has strings for symbolic dims."""

    seed: int
    skip: frozenset[int] = frozenset()  # blocks that are left out
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    outputs: list[tuple[str, list[int | str]]] = field(default_factory=list)
    names: int = 0
    rounds: bool = False  # are activations quantized? Then a sum in another order may round the other way
    depth: int = 0  # of the bodies around the nodes that are being made

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.opset = int(self.rng.integers(13, 25))
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

    @contextmanager
    def body(self) -> Iterator[list[onnx.NodeProto]]:
        """What is made inside becomes the nodes of a body, which may read everything made before."""
        outside, inside = self.nodes, list[onnx.NodeProto]()
        self.nodes, self.depth = inside, self.depth + 1
        yield inside
        self.nodes, self.depth = outside, self.depth - 1

    def scalar(self, index: int) -> str:
        return self.const(np.int64(index), "i")

    def size_of(self, x: str, axis: int) -> str:
        return self.add("Gather", self.add("Shape", x), self.ints(axis), axis=0)

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
