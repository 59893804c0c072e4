"""Tiny networks, one for each way in which axes are coupled, with seeded weights.

Parameters have telling names, so that the groups found in them can be written down by hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load

Array = np.ndarray[Any, Any]

NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {}


def weight(name: str, shape: Sequence[int]) -> Array:
    """Random numbers that depend on the name alone; variances are positive."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = rng.standard_normal(tuple(shape)) / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return (np.abs(drawn) + 0.5 if name.endswith("var") else drawn).astype(np.float32)


def build(
    signature: str,
    body: str,
    weights: Mapping[str, Any],
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model from onnx's textual syntax.

    Args:
        signature: inputs and outputs, as in ``"(float[batch, 4] x) => (float[batch, 3] y)"``.
        body: the nodes.
        weights: initializers; a tuple is the shape of a random weight, a list is integers.
        opset: of the default domain.
        domains: versions of further operator sets.
    """
    imports = {"": opset, **(domains or {})}
    opsets = ", ".join(f'"{domain}" : {version}' for domain, version in imports.items())
    dotted = {name.replace(".", "__"): name for name in weights}  # no dots in the textual syntax
    for plain, name in sorted(dotted.items(), reverse=True):
        body = body.replace(name, plain)
    text = f"<ir_version: 9, opset_import: [{opsets}]>\nnet {signature} {{ {body} }}"
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
        node.input[:] = [dotted.get(name, name) for name in node.input]
    for name, spec in weights.items():
        if isinstance(spec, tuple):
            array = weight(name, spec)
        elif isinstance(spec, np.ndarray):
            array = spec
        else:
            array = np.asarray(spec, np.float32 if isinstance(spec, float) else np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def network(function: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    """Registers a builder."""
    NETWORKS[function.__name__] = function
    return function


@cache
def graph_of(name: str) -> DependencyGraph:
    """The dependency graph of a network; shared, since nobody may change it."""
    return analyze(load(NETWORKS[name]()))


def initializer(model: onnx.ModelProto, name: str) -> Array:
    """Value of an initializer."""
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def replace(model: onnx.ModelProto, name: str, array: Array) -> None:
    """Gives an initializer another value."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(array, name))


def run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """All outputs by onnxruntime, without its optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def feeds(model: onnx.ModelProto, *, batch: int = 2, time: int = 5, seed: int = 0) -> dict[str, Array]:
    """Random inputs; symbolic axes are ``batch`` or ``time`` long."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        sizes = [d.dim_value or {"batch": batch, "time": time}[d.dim_param] for d in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.INT64:
            found[value.name] = rng.integers(0, 7, sizes)
        elif kind.elem_type == onnx.TensorProto.BOOL:
            found[value.name] = np.ones(sizes, bool)
        else:
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found[value.name] = rng.standard_normal(sizes).astype(dtype)
    return found


IMAGE = "(float[batch, 3, 8, 8] x) => (float[batch, 5] y)"
SEQUENCE = "(float[batch, time, 12] x) => (float[batch, time, 12] y)"
HEAD = "g = GlobalAveragePool (last) f = Flatten <axis = 1> (g) y = Gemm <transB = 1> (f, fc.w, fc.b)"
FC = {"fc.b": (5,)}


def bn(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Parameters of a BatchNormalization."""
    return {f"{name}.{part}": (channels,) for part in ("scale", "bias", "mean", "var")}


def bn_call(name: str, x: str) -> str:
    """A BatchNormalization node."""
    return f"BatchNormalization ({x}, {name}.scale, {name}.bias, {name}.mean, {name}.var)"


@network
def cnn() -> onnx.ModelProto:
    """Convolutions with BatchNorm and a residual block."""
    return build(
        IMAGE,
        f"""
        s = Conv <pads = [1, 1, 1, 1]> (x, stem.w, stem.b)
        sn = {bn_call("stem.bn", "s")}
        sr = Relu (sn)
        a = Conv <pads = [1, 1, 1, 1]> (sr, a.w)
        an = {bn_call("a.bn", "a")}
        ar = Relu (an)
        b = Conv <pads = [1, 1, 1, 1]> (ar, b.w, b.b)
        sum = Add (b, sr)
        last = Relu (sum)
        {HEAD}
        """,
        {
            "stem.w": (8, 3, 3, 3), "stem.b": (8,), **bn("stem.bn", 8), "a.w": (6, 8, 3, 3), **bn("a.bn", 6),
            "b.w": (8, 6, 3, 3), "b.b": (8,), "fc.w": (5, 8), **FC,
        },
    )  # fmt: skip


@network
def option_a() -> onnx.ModelProto:
    """The shortcut of CIFAR ResNets: every second pixel, channels padded with zeros on both sides."""
    return build(
        IMAGE,
        f"""
        s = Conv <pads = [1, 1, 1, 1]> (x, stem.w)
        sr = Relu (s)
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (sr, a.w)
        thin = Slice (sr, starts, ends, axes, steps)
        wide = Pad (thin, pads)
        sum = Add (a, wide)
        last = Relu (sum)
        {HEAD}
        """,
        {
            "stem.w": (4, 3, 3, 3), "a.w": (10, 4, 3, 3), "starts": [0, 0], "ends": [1000, 1000],
            "axes": [2, 3], "steps": [2, 2], "pads": [0, 3, 0, 0, 0, 3, 0, 0], "fc.w": (5, 10), **FC,
        },
    )  # fmt: skip


@network
def dense() -> onnx.ModelProto:
    """Features of all earlier layers are concatenated, as in DenseNet."""
    return build(
        IMAGE,
        f"""
        s = Conv <pads = [1, 1, 1, 1]> (x, stem.w)
        a = Conv <pads = [1, 1, 1, 1]> (s, a.w)
        ar = Relu (a)
        c1 = Concat <axis = 1> (s, ar)
        b = Conv <pads = [1, 1, 1, 1]> (c1, b.w)
        last = Concat <axis = 1> (s, ar, b)
        {HEAD}
        """,
        {"stem.w": (4, 3, 3, 3), "a.w": (3, 4, 3, 3), "b.w": (5, 7, 3, 3), "fc.w": (5, 12), **FC},
    )


@network
def depthwise_se() -> onnx.ModelProto:
    """Inverted residual with a depthwise convolution and squeeze-and-excitation."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w)
        e = Conv (s, expand.w)
        er = Relu (e)
        d = Conv <group = 6, pads = [1, 1, 1, 1]> (er, dw.w, dw.b)
        p = GlobalAveragePool (d)
        r = Conv (p, squeeze.w, squeeze.b)
        rr = Relu (r)
        u = Conv (rr, excite.w, excite.b)
        gate = Sigmoid (u)
        m = Mul (d, gate)
        o = Conv (m, project.w)
        last = Add (s, o)
        {HEAD}
        """,
        {
            "stem.w": (4, 3, 1, 1), "expand.w": (6, 4, 1, 1), "dw.w": (6, 1, 3, 3), "dw.b": (6,),
            "squeeze.w": (3, 6, 1, 1), "squeeze.b": np.asarray([1.5, 1, 2], np.float32),
            "excite.w": (6, 3, 1, 1), "excite.b": (6,), "project.w": (4, 6, 1, 1), "fc.w": (5, 4), **FC,
        },
    )  # fmt: skip


@network
def grouped() -> onnx.ModelProto:
    """A grouped convolution between plain ones."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w)
        sr = Relu (s)
        a = Conv <group = 4, pads = [1, 1, 1, 1]> (sr, a.w, a.b)
        last = Relu (a)
        {HEAD}
        """,
        {"stem.w": (8, 3, 1, 1), "a.w": (12, 2, 3, 3), "a.b": (12,), "fc.w": (5, 12), **FC},
    )


@network
def flatten() -> onnx.ModelProto:
    """Channels and pixels are flattened in front of a Gemm."""
    return build(
        IMAGE,
        """
        s = Conv (x, stem.w, stem.b)
        r = Relu (s)
        p = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (r)
        f = Flatten <axis = 1> (p)
        y = Gemm (f, fc.w, fc.b)
        """,
        {"stem.w": (4, 3, 1, 1), "stem.b": (4,), "fc.w": (16, 5), **FC},
    )


@network
def mlp() -> onnx.ModelProto:
    """MatMul and Add, as exporters write a Linear."""
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        """
        a = MatMul (x, a.w) ab = Add (a, a.b) ar = Relu (ab)
        b = MatMul (ar, b.w) bb = Add (b.b, b) br = Tanh (bb)
        c = MatMul (br, c.w) y = Add (c, c.b)
        """,
        {"a.w": (6, 10), "a.b": (10,), "b.w": (10, 8), "b.b": (8,), "c.w": (8, 3), "c.b": (3,)},
    )


@network
def gated_mlp() -> onnx.ModelProto:
    """Gate and up projection in one matrix, cut in two by Split."""
    return build(
        SEQUENCE,
        """
        h = MatMul (x, gate_up.w)
        gate, up = Split <axis = -1> (h, sizes)
        s = Sigmoid (gate) silu = Mul (gate, s) m = Mul (silu, up)
        y = MatMul (m, down.w)
        """,
        {"gate_up.w": (12, 14), "sizes": [7, 7], "down.w": (7, 12)},
    )


ATTENTION = """
    keys = Transpose <perm = [0, 1, 3, 2]> (k)
    scores = MatMul (q, keys)
    scaled = Div (scores, root)
    probs = Softmax <axis = -1> (scaled)
    mixed = MatMul (probs, v)
    back = Transpose <perm = [0, 2, 1, 3]> (mixed)
    flat = Reshape (back, merged)
    y = MatMul (flat, o.w)
"""


def head_split(name: str, source: str = "x", shape: str = "split") -> str:
    """Projection with bias to ``[batch, heads, time, head_dim]``."""
    return f"""
        {name}m = MatMul ({source}, {name}.w) {name}b = Add ({name}m, {name}.b)
        {name}r = Reshape ({name}b, {shape})
        {name} = Transpose <perm = [0, 2, 1, 3]> ({name}r)
    """


def qkv(width: int = 12) -> dict[str, tuple[int, ...]]:
    """Weights of separate projections."""
    return {n: s for p in "qkv" for n, s in ((f"{p}.w", (12, width)), (f"{p}.b", (width,)))}


@network
def attention() -> onnx.ModelProto:
    """Three heads of four, separate projections."""
    body = "".join(head_split(name) for name in "qkv") + ATTENTION
    return build(
        SEQUENCE,
        body,
        {**qkv(), "split": [0, 0, 3, 4], "merged": [0, 0, 12], "root": 2.0, "o.w": (12, 12)},
    )


@network
def attention_fused_gather() -> onnx.ModelProto:
    """One projection to ``[3, heads, head_dim]``, taken apart by Gather (timm)."""
    return build(
        SEQUENCE,
        """
        m = MatMul (x, qkv.w) mb = Add (m, qkv.b) r = Reshape (mb, split)
        t = Transpose <perm = [2, 0, 3, 1, 4]> (r)
        q = Gather <axis = 0> (t, zero) k = Gather <axis = 0> (t, one) v = Gather <axis = 0> (t, two)
        """
        + ATTENTION,
        {
            "qkv.w": (12, 36), "qkv.b": (36,), "split": [0, 0, 3, 3, 4], "merged": [0, 0, 12], "zero": 0,
            "one": 1, "two": 2, "root": 2.0, "o.w": (12, 12),
        },
    )  # fmt: skip


@network
def attention_fused_split() -> onnx.ModelProto:
    """One projection, cut by Split before the heads are made (GPT-2)."""
    heads = "".join(
        f"{n}r = Reshape ({n}p, split) {n} = Transpose <perm = [0, 2, 1, 3]> ({n}r)" for n in "qkv"
    )
    return build(
        SEQUENCE,
        "m = MatMul (x, qkv.w) mb = Add (m, qkv.b) qp, kp, vp = Split <axis = 2> (mb, thirds)"
        + heads
        + ATTENTION,
        {
            "qkv.w": (12, 36), "qkv.b": (36,), "thirds": [12, 12, 12], "split": [0, 0, 3, 4],
            "merged": [0, 0, 12], "root": 2.0, "o.w": (12, 12),
        },
    )  # fmt: skip


@network
def grouped_query() -> onnx.ModelProto:
    """Two key-value heads, each repeated by Expand for three query heads."""

    def repeat(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}r = Reshape ({name}m, kv_split)
            {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}r)
            {name}u = Unsqueeze ({name}t, two)
            {name}e = Expand ({name}u, repeats)
            {name} = Reshape ({name}e, all_heads)
        """

    return build(
        SEQUENCE.replace("time", "4"),
        head_split("q") + repeat("k") + repeat("v") + ATTENTION,
        {
            "q.w": (12, 24), "q.b": (24,), "k.w": (12, 8), "v.w": (12, 8), "split": [0, 0, 6, 4],
            "kv_split": [0, 0, 2, 4], "two": [2], "repeats": [1, 1, 3, 1, 1], "all_heads": [0, 6, 4, 4],
            "merged": [0, 0, 24], "root": 2.0, "o.w": (24, 12),
        },
    )  # fmt: skip


@network
def rotary() -> onnx.ModelProto:
    """Queries and keys are rotated: halves of the head dimension go in pairs."""

    def rotate(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}b = Reshape ({name}m, split)
            {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}b)
            {name}1 = Slice ({name}t, zero, half, last)
            {name}2 = Slice ({name}t, half, end, last)
            {name}n = Neg ({name}2)
            {name}h = Concat <axis = -1> ({name}n, {name}1)
            {name}c = Mul ({name}t, cos) {name}s = Mul ({name}h, sin)
            {name} = Add ({name}c, {name}s)
        """

    angles = np.outer(np.arange(4), [1.0, 0.3, 1.0, 0.3]).astype(np.float32)
    return build(
        SEQUENCE.replace("time", "4"),
        rotate("q") + rotate("k") + head_split("v") + ATTENTION,
        {
            "q.w": (12, 12), "k.w": (12, 12), "v.w": (12, 12), "v.b": (12,), "split": [0, 0, 3, 4],
            "zero": [0], "half": [2], "end": [2**62], "last": [-1], "cos": np.cos(angles),
            "sin": np.sin(angles), "merged": [0, 0, 12], "root": 2.0, "o.w": (12, 12),
        },
    )  # fmt: skip


@network
def tied_embedding() -> onnx.ModelProto:
    """One matrix is the embedding and the output layer; the width runs through a LayerNorm."""
    return build(
        "(int64[batch, time] ids) => (float[n, 7] y)",
        """
        e = Gather <axis = 0> (table, ids)
        u = MatMul (e, up.w) r = Relu (u) d = MatMul (r, down.w)
        s = Add (e, d)
        norm = LayerNormalization <axis = -1> (s, norm.scale, norm.bias)
        rows = Reshape (norm, flat)
        y = Gemm <transB = 1> (rows, table)
        """,
        {
            "table": (7, 8), "up.w": (8, 10), "down.w": (10, 8), "norm.scale": (8,), "norm.bias": (8,),
            "flat": [-1, 8],
        },
    )  # fmt: skip


@network
def group_norm() -> onnx.ModelProto:
    """GroupNorm as the TorchScript exporter writes it: three groups of two channels."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w, stem.b)
        r = Reshape (s, three)
        i = InstanceNormalization (r, ones, zeros)
        shape = Shape (s)
        b = Reshape (i, shape)
        m = Mul (b, scale) n = Add (m, bias)
        a = Relu (n)
        last = Conv (a, head.w)
        {HEAD}
        """,
        {
            "stem.w": (6, 3, 1, 1), "stem.b": (6,), "three": [0, 3, -1], "ones": np.ones(3, np.float32),
            "zeros": np.zeros(3, np.float32), "scale": (6, 1, 1), "bias": (6, 1, 1), "head.w": (4, 6, 1, 1),
            "fc.w": (5, 4), **FC,
        },
    )  # fmt: skip


@network
def shape_arithmetic() -> onnx.ModelProto:
    """Attention as the TorchScript exporter writes it: every size, and 1/sqrt(d), comes from Shape."""

    def heads(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}b = Add ({name}m, {name}.b)
            {name}shape = Shape ({name}b)
            {name}d0 = Gather <axis = 0> ({name}shape, zero)
            {name}d1 = Gather <axis = 0> ({name}shape, one)
            {name}d2 = Gather <axis = 0> ({name}shape, two)
            {name}dim = Div ({name}d2, three)
            {name}u0 = Unsqueeze ({name}d0, zeros) {name}u1 = Unsqueeze ({name}d1, zeros)
            {name}u3 = Unsqueeze ({name}dim, zeros)
            {name}target = Concat <axis = 0> ({name}u0, {name}u1, threes, {name}u3)
            {name}r = Reshape ({name}b, {name}target)
            {name} = Transpose <perm = [0, 2, 1, 3]> ({name}r)
        """

    return build(
        SEQUENCE,
        "".join(heads(n) for n in "qkv")
        + """
        qshape4 = Shape (q)
        size = Slice (qshape4, minus_one, far, zeros)
        number = Cast <to = 1> (size)
        root = Sqrt (number)
        keys = Transpose <perm = [0, 1, 3, 2]> (k)
        scores = MatMul (q, keys) scaled = Div (scores, root)
        probs = Softmax <axis = -1> (scaled)
        mixed = MatMul (probs, v)
        back = Transpose <perm = [0, 2, 1, 3]> (mixed)
        bshape = Shape (back)
        b0 = Gather <axis = 0> (bshape, zeros) b1 = Gather <axis = 0> (bshape, ones)
        b2 = Gather <axis = 0> (bshape, twos) b3 = Gather <axis = 0> (bshape, threes)
        width = Mul (b2, b3)
        target = Concat <axis = 0> (b0, b1, width)
        flat = Reshape (back, target)
        y = MatMul (flat, o.w)
        """,
        {
            **qkv(), "zero": 0, "one": 1, "two": 2, "three": 3, "zeros": [0], "ones": [1], "twos": [2],
            "threes": [3], "minus_one": [-1], "far": [2**62], "o.w": (12, 12),
        },
    )  # fmt: skip


@network
def batch_times_heads() -> onnx.ModelProto:
    """Batch and heads are one axis for the products of attention (Reshape with -1)."""

    def heads(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}b = Add ({name}m, {name}.b)
            {name}r = Reshape ({name}b, split)
            {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}r)
            {name} = Reshape ({name}t, merge)
        """

    return build(
        SEQUENCE.replace("time", "5"),
        "".join(heads(n) for n in "qkv")
        + """
        keys = Transpose <perm = [0, 2, 1]> (k)
        scores = MatMul (q, keys) scaled = Div (scores, root)
        probs = Softmax <axis = -1> (scaled)
        mixed = MatMul (probs, v)
        apart = Reshape (mixed, unmerge)
        back = Transpose <perm = [0, 2, 1, 3]> (apart)
        flat = Reshape (back, merged)
        y = MatMul (flat, o.w)
        """,
        {
            **qkv(), "split": [0, 0, 3, 4], "merge": [-1, 5, 4], "unmerge": [-1, 3, 5, 4],
            "merged": [0, 0, 12], "root": 2.0, "o.w": (12, 12),
        },
    )  # fmt: skip


@network
def merged_constants() -> onnx.ModelProto:
    """Two unrelated layers share their scale and bias vectors, as exporters merge equal values."""
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        """
        a = MatMul (x, a.w) as = Mul (a, ones) ab = Add (as, tenths) ar = Relu (ab)
        b = MatMul (ar, b.w) bs = Mul (b, ones) bb = Add (bs, tenths) br = Relu (bb)
        y = MatMul (br, c.w)
        """,
        {
            "a.w": (6, 8), "b.w": (8, 8), "c.w": (8, 3), "ones": np.ones(8, np.float32),
            "tenths": np.full(8, 0.1, np.float32),
        },
    )  # fmt: skip


@network
def other_domain() -> onnx.ModelProto:
    """An operator that onnxruntime knows and that has no rule stands between two layers."""
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        """
        a = MatMul (x, a.w) ar = Relu (a)
        b = MatMul (ar, b.w)
        bb = Add (b, b.b) g = com.microsoft.Trilu (bb)
        c = MatMul (g, c.w) cr = Relu (c)
        y = MatMul (cr, d.w)
        """,
        {"a.w": (6, 8), "b.w": (8, 9), "b.b": (9,), "c.w": (9, 10), "d.w": (10, 3)},
        domains={"com.microsoft": 1},
    )


@network
def conditional() -> onnx.ModelProto:
    """The bodies of an If read a tensor and a weight of the graph around them."""
    model = build(
        "(float[batch, 6] x, bool[1] flag) => (float[batch, 3] y)",
        """
        a = MatMul (x, a.w) ar = Relu (a)
        b = MatMul (ar, b.w) br = Relu (b)
        y = MatMul (br, c.w)
        """,
        {"a.w": (6, 8), "b.w": (8, 9), "c.w": (9, 3), "d.w": (9, 3)},
    )
    bodies = {}
    for branch, nodes in {
        "then_branch": [helper.make_node("MatMul", ["br", "d.w"], ["yes"], name="inner")],
        "else_branch": [
            helper.make_node("MatMul", ["br", "d.w"], ["product"], name="inner2"),
            helper.make_node("Neg", ["product"], ["no"], name="negated"),
        ],
    }.items():
        value = helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, ["batch", 3])
        bodies[branch] = helper.make_graph(nodes, branch, [], [value])
    last = model.graph.node[-1]
    last.output[0] = "z"
    model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], name="If_chosen", **bodies))
    model.graph.node.append(helper.make_node("Add", ["z", "chosen"], ["y"], name="Add_y"))
    return model
