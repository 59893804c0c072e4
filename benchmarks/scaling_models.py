"""Networks of any depth, written without a framework: what `scaling.py` measures.

Weights of small widths are stored in the file. Those of realistic widths are external data in a sparse
file: it has its full length, takes no room on the disk, and holds zeros; or noise, if that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
_ONE = numpy_helper.from_array(np.ones(1, np.int64))
#: External weights start at multiples of this, as the exporters write them.
PAGE = 4096
#: Offset -> shape of each external weight.
Places = Mapping[int, tuple[int, ...]]


class Network:
    """A graph under construction.

    Args:
        data: name of the file for the weights; None: they are part of the model.
        dtype: type of weights and activations.
        fill: writes the numbers of each external weight, one after the other; None: zeros in a sparse file.
    """

    def __init__(
        self,
        data: str | None = None,
        dtype: type = np.float32,
        fill: Callable[[Path, Places], None] | None = None,
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.dtype = np.dtype(dtype)
        self.kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        self._weights: dict[str, onnx.TensorProto] = {}
        self._data, self._length, self._fill = data, 0, fill
        self._places: dict[int, tuple[int, ...]] = {}
        self._rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Adds a node of one output and returns its name."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, n_outputs: int, *inputs: str, **attributes: object) -> list[str]:
        """Adds a node and returns the names of its outputs."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        outputs = [name] if n_outputs == 1 else [f"{name}.{i}" for i in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name, **attributes))
        return outputs

    def weight(self, *shape: int) -> str:
        """A parameter; noise of variance 1 / fan-in unless it is external."""
        name = f"weight_{len(self._weights)}"
        tensor = TensorProto(name=name, dims=shape, data_type=self.kind)
        size = int(np.prod(shape)) * self.dtype.itemsize
        if self._data is None:
            fan_in = shape[0] if len(shape) == 2 else max(int(np.prod(shape[1:])), 1)
            noise = self._rng.standard_normal(shape, np.float32) / np.float32(fan_in**0.5)
            tensor.raw_data = (noise if len(shape) > 1 else 1 + noise / 10).astype(self.dtype).tobytes()
        else:
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": self._data, "offset": self._length, "length": size}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            self._places[self._length] = shape
            self._length += -(-size // PAGE) * PAGE
        self._weights[name] = tensor
        return name

    def constant(self, value: object, dtype: npt.DTypeLike = np.int64) -> str:
        """A constant that is part of the model; equal ones are one."""
        array = np.asarray(value, dtype)
        name = f"constant_{array.dtype}_{array.shape}_{array.tobytes().hex()[:40]}"
        self._weights.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def save(
        self, path: Path, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> None:
        """Writes the model, and the sparse file of its weights if they are external."""
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, list(self._weights.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.save(model, path)
        if self._data is not None:
            with path.with_name(self._data).open("wb") as file:
                file.truncate(self._length)
            if self._fill is not None:
                self._fill(path.with_name(self._data), self._places)


def residual_cnn(path: Path, nodes: int, *, width: int = 16, data: str | None = None) -> None:
    """Bottleneck blocks of 10 nodes in four stages."""
    net = Network(data)

    def conv(x: str, n_in: int, n_out: int, kernel: int, stride: int = 1) -> str:
        pads = [kernel // 2] * 4
        attributes = {"kernel_shape": [kernel] * 2, "pads": pads, "strides": [stride] * 2}
        return net.op("Conv", x, net.weight(n_out, n_in, kernel, kernel), net.weight(n_out), **attributes)

    def norm(x: str, n: int) -> str:
        return net.op("BatchNormalization", x, *(net.weight(n) for _ in range(4)))

    x, channels = net.op("Relu", conv("image", 3, width, 3)), width
    blocks = max(nodes // 10, 4)
    for block in range(blocks):
        stage = 4 * block // blocks
        inner, wide = width << stage, width << (stage + 2)
        is_first = channels != wide
        y = net.op("Relu", norm(conv(x, channels, inner, 1), inner))
        y = net.op("Relu", norm(conv(y, inner, inner, 3, 2 if is_first and stage else 1), inner))
        y = norm(conv(y, inner, wide, 1), wide)
        if is_first:
            x = conv(x, channels, wide, 1, 2 if stage else 1)
        x, channels = net.op("Relu", net.op("Add", x, y)), wide
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.op("Gemm", x, net.weight(10, channels), net.weight(10), transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 64, 64])
    net.save(path, [image], [helper.make_tensor_value_info(net.nodes[-1].output[0], 1, ["batch", 10])])


def dense_network(path: Path, nodes: int, *, width: int = 16, data: str | None = None) -> None:
    """Blocks of 16 layers that read all earlier ones of their block, and 1 x 1 convolutions between."""
    net = Network(data)
    layers = 16

    def layer(x: str, n_in: int, n_out: int, kernel: int) -> str:
        x = net.op("Relu", net.op("BatchNormalization", x, *(net.weight(n_in) for _ in range(4))))
        pads = [kernel // 2] * 4
        return net.op("Conv", x, net.weight(n_out, n_in, kernel, kernel), pads=pads)

    x, channels = net.op("Conv", "image", net.weight(2 * width, 3, 3, 3), pads=[1] * 4), 2 * width
    for _ in range(max(round(nodes / (7 * layers + 3)), 1)):
        for _ in range(layers):
            y = layer(layer(x, channels, 4 * width, 1), 4 * width, width, 3)
            x, channels = net.op("Concat", x, y, axis=1), channels + width
        x, channels = layer(x, channels, 2 * width, 1), 2 * width
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.op("Gemm", x, net.weight(10, channels), net.weight(10), transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])
    net.save(path, [image], [helper.make_tensor_value_info(net.nodes[-1].output[0], 1, ["batch", 10])])


@dataclass(frozen=True)
class Widths:
    """Sizes of a decoder."""

    hidden: int = 64
    heads: int = 8
    kv_heads: int = 2
    inner: int = 96
    vocabulary: int = 128

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


class _Decoder:
    """A decoder as the exporters write it: norms in pieces, sizes computed at run time."""

    def __init__(self, net: Network, widths: Widths) -> None:
        self.net, self.widths = net, widths

    def norm(self, x: str) -> str:
        net = self.net
        x = net.op("Cast", x, to=TensorProto.FLOAT)
        square = net.op("Pow", x, net.constant(2.0, np.float32))
        mean = net.op("ReduceMean", square, net.constant([-1]), keepdims=1)
        root = net.op("Sqrt", net.op("Add", mean, net.constant(1e-5, np.float32)))
        x = net.op("Mul", x, net.op("Div", net.constant(1.0, np.float32), root))
        return net.op("Mul", net.weight(self.widths.hidden), net.op("Cast", x, to=net.kind))

    def linear(self, x: str, n_in: int, n_out: int) -> str:
        return self.net.op("MatMul", x, self.net.weight(n_in, n_out))

    def size(self, x: str, axis: int) -> str:
        net = self.net
        at = net.op("Gather", net.op("Shape", x), net.constant(axis), axis=0)
        return net.op("Unsqueeze", at, net.constant([0]))

    def shape(self, *sizes: str | int) -> str:
        parts = [s if isinstance(s, str) else self.net.constant([s]) for s in sizes]
        return self.net.op("Concat", *parts, axis=0)

    def split_heads(self, x: str, heads: int, batch: str, length: str) -> str:
        target = self.shape(batch, length, heads, self.widths.head_dim)
        return self.net.op("Transpose", self.net.op("Reshape", x, target), perm=[0, 2, 1, 3])

    def rotate(self, x: str, cos: str, sin: str) -> str:
        net, half, at = self.net, self.widths.head_dim // 2, self.net.constant([3])
        first = net.op("Slice", x, net.constant([0]), net.constant([half]), at, net.constant([1]))
        end = net.constant([2**63 - 1])
        second = net.op("Slice", x, net.constant([half]), end, at, net.constant([1]))
        turned = net.op("Concat", net.op("Neg", second), first, axis=-1)
        return net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin))

    def repeat(self, x: str, batch: str, length: str) -> str:
        """Each key or value head for as many query heads as share it."""
        net, w = self.net, self.widths
        times = w.heads // w.kv_heads
        x = net.op("Unsqueeze", x, net.constant([2]))
        target = self.shape(batch, w.kv_heads, times, length, w.head_dim)
        ones = net.op("ConstantOfShape", net.op("Shape", target), value=_ONE)
        inferred = net.op("Equal", target, net.op("Mul", ones, net.constant(-1)))
        x = net.op("Expand", x, net.op("Where", inferred, ones, target))
        return net.op("Reshape", x, self.shape(batch, w.heads, length, w.head_dim))

    def attention(self, x: str, cos: str, sin: str, mask: str) -> str:
        net, w = self.net, self.widths
        batch, length = self.size(x, 0), self.size(x, 1)
        q = self.split_heads(self.linear(x, w.hidden, w.hidden), w.heads, batch, length)
        k, v = (
            self.split_heads(self.linear(x, w.hidden, w.kv_heads * w.head_dim), w.kv_heads, batch, length)
            for _ in range(2)
        )
        cos, sin = (net.op("Unsqueeze", table, net.constant([0])) for table in (cos, sin))
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        k, v = self.repeat(k, batch, length), self.repeat(v, batch, length)
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = net.op("Mul", scores, net.constant(w.head_dim**-0.5, net.dtype))
        weights = net.op("Softmax", net.op("Add", scores, mask), axis=-1)
        mixed = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        batch, length = self.size(x, 0), self.size(x, 1)
        return self.linear(net.op("Reshape", mixed, self.shape(batch, length, w.hidden)), w.hidden, w.hidden)

    def mlp(self, x: str) -> str:
        net, w = self.net, self.widths
        gate, up = (self.linear(x, w.hidden, w.inner) for _ in range(2))
        gate = net.op("Mul", gate, net.op("Sigmoid", gate))
        return self.linear(net.op("Mul", gate, up), w.inner, w.hidden)

    def layer(self, x: str, cos: str, sin: str, mask: str) -> str:
        x = self.net.op("Add", x, self.attention(self.norm(x), cos, sin, mask))
        return self.net.op("Add", x, self.mlp(self.norm(x)))


def decoder(
    path: Path,
    nodes: int,
    *,
    layers: int | None = None,
    widths: Widths | None = None,
    data: str | None = None,
    network: Network | None = None,
) -> None:
    """Grouped-query attention with rotary embedding, and gated MLPs: 96 nodes per layer."""
    net, w = network or Network(data), widths or Widths()
    make = _Decoder(net, w)
    x = net.op("Gather", net.weight(w.vocabulary, w.hidden), "tokens")
    length = net.op("Gather", net.op("Shape", "tokens"), net.constant(1), axis=0)
    positions = net.op("Range", net.constant(0), length, net.constant(1))
    column = net.op("Unsqueeze", net.op("Cast", positions, to=1), net.constant([1]))
    frequencies = net.constant(10000.0 ** -np.linspace(0, 1, w.head_dim // 2), np.float32)
    angles = net.op("Mul", column, frequencies)
    angles = net.op("Concat", angles, angles, axis=-1)
    cos, sin = (net.op("Cast", net.op(wave, angles), to=net.kind) for wave in ("Cos", "Sin"))
    rows, columns = (net.op("Unsqueeze", positions, net.constant([d])) for d in (1, 0))
    later = net.op("Greater", columns, rows)
    mask = net.op("Where", later, net.constant(-3e4, net.dtype), net.constant(0.0, net.dtype))
    for _ in range(layers or max(nodes // 96, 1)):
        x = make.layer(x, cos, sin, mask)
    make.linear(make.norm(x), w.hidden, w.vocabulary)
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"])
    logits = helper.make_tensor_value_info(
        net.nodes[-1].output[0], net.kind, ["batch", "length", w.vocabulary]
    )
    net.save(path, [tokens], [logits])


#: Writes a network of about so many nodes.
FAMILIES: dict[str, Callable[[Path, int], None]] = {
    "residual CNN": residual_cnn, "dense CNN": dense_network, "decoder": decoder,
}  # fmt: skip
