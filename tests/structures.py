"""Small networks with structures that are hard to follow: how real ones take heads and channels apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from networks import ATTENTION, FC, HEAD, IMAGE, SEQUENCE, build, head_split, qkv

STRUCTURES: dict[str, Callable[[], onnx.ModelProto]] = {}
FIXED = SEQUENCE.replace("time", "4")


def structure(function: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    """Registers a builder."""
    STRUCTURES[function.__name__] = function
    return function


def heads_of(name: str, source: str) -> str:
    """``[batch, time, 12]`` to ``[batch, 3 heads, time, 4]``."""
    return f"{name}r = Reshape ({source}, split) {name} = Transpose <perm = [0, 2, 1, 3]> ({name}r)"


SPLIT = {"split": [0, 0, 3, 4], "merged": [0, 0, 12], "root": 2.0, "o.w": (12, 12)}


@structure
def qkv_by_slice() -> onnx.ModelProto:
    """One projection, cut by three Slices before the heads are made."""
    body = "m = MatMul (x, qkv.w) mb = Add (m, qkv.b)" + "".join(
        f"{n}p = Slice (mb, at{i}, at{i + 1}, last)" + heads_of(n, f"{n}p") for i, n in enumerate("qkv")
    )
    bounds = {"at0": [0], "at1": [12], "at2": [24], "at3": [2**62], "last": [-1]}
    return build(SEQUENCE, body + ATTENTION, {"qkv.w": (12, 36), "qkv.b": (36,), **bounds, **SPLIT})


@structure
def qkv_interleaved() -> onnx.ModelProto:
    """``[heads, 3, head_dim]``: query, key and value of each head side by side, split behind the heads."""
    return build(
        SEQUENCE,
        """
        m = MatMul (x, qkv.w) mb = Add (m, qkv.b) r = Reshape (mb, wide)
        t = Transpose <perm = [0, 2, 1, 3]> (r)
        q, k, v = Split <axis = 3> (t, thirds)
        """
        + ATTENTION,
        {"qkv.w": (12, 36), "qkv.b": (36,), "wide": [0, 0, 3, 12], "thirds": [4, 4, 4], **SPLIT},
    )


@structure
def qkv_by_split_of_a_stack() -> onnx.ModelProto:
    """``[3, heads, head_dim]`` behind a Transpose, taken apart by Split and Squeeze."""
    return build(
        SEQUENCE,
        """
        m = MatMul (x, qkv.w) r = Reshape (m, wide) t = Transpose <perm = [2, 0, 3, 1, 4]> (r)
        q1, k1, v1 = Split <axis = 0> (t, ones)
        q = Squeeze (q1, zero) k = Squeeze (k1, zero) v = Squeeze (v1, zero)
        """
        + ATTENTION,
        {"qkv.w": (12, 36), "wide": [0, 0, 3, 3, 4], "ones": [1, 1, 1], "zero": [0], **SPLIT},
    )


@structure
def rotary_interleaved() -> onnx.ModelProto:
    """Neighbours are rotated: even and odd positions by strided Slices, stacked again."""

    def rotate(name: str) -> str:
        return (
            f"{name}m = MatMul (x, {name}.w)"
            + heads_of(f"{name}h", f"{name}m")
            + f"""
            {name}e = Slice ({name}h, zero, end, last, two) {name}o = Slice ({name}h, one, end, last, two)
            {name}ec = Mul ({name}e, cos) {name}os = Mul ({name}o, sin) {name}a = Sub ({name}ec, {name}os)
            {name}es = Mul ({name}e, sin) {name}oc = Mul ({name}o, cos) {name}b = Add ({name}es, {name}oc)
            {name}au = Unsqueeze ({name}a, last) {name}bu = Unsqueeze ({name}b, last)
            {name}s = Concat <axis = -1> ({name}au, {name}bu)
            {name} = Reshape ({name}s, joined)
            """
        )

    angles = np.outer(np.arange(4), [1.0, 0.3]).astype(np.float32)
    return build(
        FIXED,
        rotate("q") + rotate("k") + head_split("v") + ATTENTION,
        {
            "q.w": (12, 12), "k.w": (12, 12), "v.w": (12, 12), "v.b": (12,), **SPLIT, "zero": [0], "one": [1],
            "two": [2], "end": [2**62], "last": [-1], "joined": [0, 0, 0, 4], "cos": np.cos(angles),
            "sin": np.sin(angles),
        },
    )  # fmt: skip


@structure
def rotary_from_positions() -> onnx.ModelProto:
    """Half-rotation by angles computed at run time from a vector of frequencies."""

    def rotate(name: str) -> str:
        return (
            f"{name}m = MatMul (x, {name}.w)"
            + heads_of(f"{name}h", f"{name}m")
            + f"""
            {name}1, {name}2 = Split <axis = -1> ({name}h, halves)
            {name}n = Neg ({name}2) {name}t = Concat <axis = -1> ({name}n, {name}1)
            {name}c = Mul ({name}h, cos) {name}s = Mul ({name}t, sin) {name} = Add ({name}c, {name}s)
            """
        )

    return build(
        "(float[batch, time, 12] x, float[time, 1] position) => (float[batch, time, 12] y)",
        "f = Mul (position, frequencies) ff = Concat <axis = -1> (f, f) cos = Cos (ff) sin = Sin (ff)"
        + rotate("q")
        + rotate("k")
        + head_split("v")
        + ATTENTION,
        {
            "q.w": (12, 12), "k.w": (12, 12), "v.w": (12, 12), "v.b": (12,), **SPLIT, "halves": [2, 2],
            "frequencies": np.asarray([1.0, 0.3], np.float32),
        },
    )  # fmt: skip


@structure
def multi_query() -> onnx.ModelProto:
    """One key-value head, repeated by Expand for the three query heads; the shape comes from Shape."""

    def repeat(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}r = Reshape ({name}m, one_head)
            {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}r)
            {name} = Expand ({name}t, repeats)
        """

    return build(
        FIXED,
        head_split("q") + repeat("k") + repeat("v") + ATTENTION,
        {
            "q.w": (12, 12), "q.b": (12,), "k.w": (12, 4), "v.w": (12, 4), **SPLIT, "one_head": [0, 0, 1, 4],
            "repeats": [1, 3, 1, 1],
        },
    )  # fmt: skip


@structure
def multi_query_by_broadcast() -> onnx.ModelProto:
    """One key-value head that MatMul broadcasts over the query heads."""
    one = "".join(
        f"{n}m = MatMul (x, {n}.w) {n}r = Reshape ({n}m, one_head)"
        f"{n} = Transpose <perm = [0, 2, 1, 3]> ({n}r)"
        for n in "kv"
    )
    return build(
        SEQUENCE,
        head_split("q") + one + ATTENTION,
        {"q.w": (12, 12), "q.b": (12,), "k.w": (12, 4), "v.w": (12, 4), **SPLIT, "one_head": [0, 0, 1, 4]},
    )


@structure
def grouped_query_at_run_time() -> onnx.ModelProto:
    """Key-value heads are repeated to a shape that is put together from sizes read at run time."""

    def repeat(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}r = Reshape ({name}m, kv_split)
            {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}r)
            {name}shape = Shape ({name}t)
            {name}d0 = Gather ({name}shape, i0) {name}d1 = Gather ({name}shape, i1)
            {name}d2 = Gather ({name}shape, i2) {name}d3 = Gather ({name}shape, i3)
            {name}target = Concat <axis = 0> ({name}d0, {name}d1, repeat, {name}d2, {name}d3)
            {name}u = Unsqueeze ({name}t, i2) {name}e = Expand ({name}u, {name}target)
            {name}all = Mul ({name}d1, repeat)
            {name}flat = Concat <axis = 0> ({name}d0, {name}all, {name}d2, {name}d3)
            {name} = Reshape ({name}e, {name}flat)
        """

    return build(
        SEQUENCE,
        head_split("q") + repeat("k") + repeat("v") + ATTENTION,
        {
            "q.w": (12, 24), "q.b": (24,), "k.w": (12, 8), "v.w": (12, 8), "split": [0, 0, 6, 4],
            "kv_split": [0, 0, 2, 4], "i0": [0], "i1": [1], "i2": [2], "i3": [3], "repeat": [3],
            "merged": [0, 0, 24], "root": 2.0, "o.w": (24, 12),
        },
    )  # fmt: skip


BIASED = ATTENTION.replace("Softmax <axis = -1> (scaled)", "Softmax <axis = -1> (biased)")


@structure
def bias_table() -> onnx.ModelProto:
    """A table ``[distances, heads]`` looked up at constant places and added to the scores (windows)."""
    index = (np.arange(4)[:, None] - np.arange(4)[None, :] + 3).reshape(-1)
    return build(
        FIXED,
        "".join(head_split(n) for n in "qkv")
        + "g = Gather <axis = 0> (table, index) s = Reshape (g, square) p = Transpose <perm = [2, 0, 1]> (s)"
        + "u = Unsqueeze (p, zero)"
        + BIASED.replace("probs", "biased = Add (scaled, u) probs", 1),
        {**qkv(), **SPLIT, "table": (7, 3), "index": index, "square": [4, 4, 3], "zero": [0]},
    )


@structure
def bias_of_buckets() -> onnx.ModelProto:
    """A table ``[buckets, heads]`` looked up at distances computed at run time."""
    return build(
        "(float[batch, time, 12] x, int64[time, time] buckets) => (float[batch, time, 12] y)",
        "".join(head_split(n) for n in "qkv")
        + "g = Gather <axis = 0> (table, buckets) p = Transpose <perm = [2, 0, 1]> (g)"
        + "u = Unsqueeze (p, zero)"
        + BIASED.replace("probs", "biased = Add (scaled, u) probs", 1),
        {**qkv(), **SPLIT, "table": (7, 3), "zero": [0]},
    )


@structure
def bias_of_slopes() -> onnx.ModelProto:
    """Distances times a constant slope per head."""
    return build(
        "(float[batch, time, 12] x, float[1, time] distance) => (float[batch, time, 12] y)",
        "".join(head_split(n) for n in "qkv")
        + "u = Mul (slopes, distance)"
        + BIASED.replace("probs", "biased = Add (scaled, u) probs", 1),
        {**qkv(), **SPLIT, "slopes": np.asarray([0.5, 0.25, 0.125], np.float32).reshape(3, 1, 1)},
    )


MAP = "(float[batch, 4, 4, 12] x) => (float[batch, 4, 4, 12] y)"


@structure
def shifted_windows() -> onnx.ModelProto:
    """Attention inside 2x2 windows of a map that is rolled by one, there and back."""
    heads = "".join(f"{n}p = MatMul (flat, {n}.w)" + heads_of(n, f"{n}p") for n in "qkv")
    return build(
        MAP,
        """
        h = MatMul (x, in.w) hr = Relu (h)
        top = Slice (hr, one, end, axis1) under = Slice (hr, zero, one, axis1)
        r1 = Concat <axis = 1> (top, under)
        left = Slice (r1, one, end, axis2) right = Slice (r1, zero, one, axis2)
        r2 = Concat <axis = 2> (left, right)
        tiles = Reshape (r2, cut) grouped = Transpose <perm = [0, 1, 3, 2, 4, 5]> (tiles)
        flat = Reshape (grouped, windows)
        """
        + heads
        + ATTENTION.replace("flat", "mixed_flat").replace("y = MatMul", "ow = MatMul")
        + """
        or = Reshape (ow, uncut) om = Transpose <perm = [0, 1, 3, 2, 4, 5]> (or) map = Reshape (om, whole)
        b1 = Slice (map, minus, end, axis1) b2 = Slice (map, zero, minus, axis1)
        s1 = Concat <axis = 1> (b1, b2)
        c1 = Slice (s1, minus, end, axis2) c2 = Slice (s1, zero, minus, axis2)
        s2 = Concat <axis = 2> (c1, c2)
        sum = Add (hr, s2)
        y = MatMul (sum, out.w)
        """,
        {
            "in.w": (12, 10), "q.w": (10, 12), "k.w": (10, 12), "v.w": (10, 12), "split": [0, 0, 3, 4],
            "merged": [0, 0, 12], "root": 2.0, "o.w": (12, 10), "out.w": (10, 12), "zero": [0], "one": [1],
            "minus": [-1], "end": [2**62], "axis1": [1], "axis2": [2], "cut": [-1, 2, 2, 2, 2, 10],
            "windows": [-1, 4, 10], "uncut": [-1, 2, 2, 2, 2, 10], "whole": [-1, 4, 4, 10],
        },
    )  # fmt: skip


@structure
def patch_merging() -> onnx.ModelProto:
    """Four strided views of a map side by side, a norm over all, and a reduction."""
    views = "".join(
        f"r{i} = Slice (hr, {['zero', 'one'][i % 2]}, end, axis1, two)"
        f"v{i} = Slice (r{i}, {['zero', 'one'][i // 2]}, end, axis2, two)"
        for i in range(4)
    )
    return build(
        "(float[batch, 4, 4, 12] x) => (float[batch, 2, 2, 5] y)",
        "h = MatMul (x, in.w) hr = Relu (h)"
        + views
        + """
        c = Concat <axis = -1> (v0, v1, v2, v3)
        n = LayerNormalization (c, scale, bias)
        m = MatMul (n, reduce.w) mr = Relu (m) y = MatMul (mr, out.w)
        """,
        {
            "in.w": (12, 6), "scale": (24,), "bias": (24,), "reduce.w": (24, 8), "out.w": (8, 5), "zero": [0],
            "one": [1], "two": [2], "end": [2**62], "axis1": [1], "axis2": [2],
        },
    )  # fmt: skip


@structure
def gate_up_by_slice() -> onnx.ModelProto:
    """Gate and up projection in one matrix, cut in two by Slices."""
    return build(
        SEQUENCE,
        """
        h = MatMul (x, gate_up.w)
        gate = Slice (h, zero, half, last) up = Slice (h, half, end, last)
        s = Sigmoid (gate) silu = Mul (gate, s) m = Mul (silu, up)
        y = MatMul (m, down.w)
        """,
        {"gate_up.w": (12, 14), "zero": [0], "half": [7], "end": [2**62], "last": [-1], "down.w": (7, 12)},
    )


@structure
def gate_up_in_pairs() -> onnx.ModelProto:
    """Gate and up projection interleaved: every other column."""
    return build(
        SEQUENCE,
        """
        h = MatMul (x, gate_up.w)
        gate = Slice (h, zero, end, last, two) up = Slice (h, one, end, last, two)
        s = Sigmoid (gate) m = Mul (s, up)
        y = MatMul (m, down.w)
        """,
        {
            "gate_up.w": (12, 14), "zero": [0], "one": [1], "two": [2], "end": [2**62], "last": [-1],
            "down.w": (7, 12),
        },
    )  # fmt: skip


@structure
def broadcast_parameters() -> onnx.ModelProto:
    """A slope per channel, a layer scale, a shift of one number, and a token in front of all positions."""
    return build(
        "(float[batch, 4, 6] x) => (float[batch, 5, 3] y)",
        """
        a = MatMul (x, a.w) p = PRelu (a, slope)
        shape = Shape <start = 0, end = 1> (p) target = Concat <axis = 0> (shape, token_shape)
        t = Expand (token, target) c = Concat <axis = 1> (t, p) e = Add (c, position)
        u = MatMul (e, b.w) ur = Relu (u) d = MatMul (ur, c.w)
        l = Mul (d, layer_scale) s = Add (e, l) z = Add (s, shift)
        y = MatMul (z, d.w)
        """,
        {
            "a.w": (6, 8), "slope": (8,), "token": (1, 1, 8), "token_shape": [1, 8], "position": (1, 5, 8),
            "b.w": (8, 9), "c.w": (9, 8), "layer_scale": (8,), "shift": (1,), "d.w": (8, 3),
        },
    )  # fmt: skip


@structure
def weight_norm() -> onnx.ModelProto:
    """``g * v / ||v||``, computed in the graph from constants: folded, since nothing else reads them."""
    return build(
        IMAGE,
        f"""
        n = ReduceL2 <axes = [1, 2, 3]> (v) d = Div (v, n) w = Mul (d, gain)
        s = Conv <pads = [1, 1, 1, 1]> (x, w, b) last = Relu (s)
        {HEAD}
        """,
        {"v": (6, 3, 3, 3), "gain": (6, 1, 1, 1), "b": (6,), "fc.w": (5, 6), **FC},
        opset=17,
    )


@structure
def weight_norm_of_integers() -> onnx.ModelProto:
    """The same over a quantized weight, which stays one: the norm is computed at run time."""
    numbers = np.random.default_rng(3).integers(-90, 90, (6, 3, 3, 3)).astype(np.int8)
    return build(
        IMAGE,
        f"""
        v = DequantizeLinear (numbers, scale)
        n = ReduceL2 <axes = [1, 2, 3]> (v) d = Div (v, n) w = Mul (d, gain)
        s = Conv <pads = [1, 1, 1, 1]> (x, w, b) last = Relu (s)
        {HEAD}
        """,
        {
            "numbers": numbers, "scale": np.asarray(0.02, np.float32), "gain": (6, 1, 1, 1), "b": (6,),
            "fc.w": (5, 6), **FC,
        },
    )  # fmt: skip


@structure
def shared_layer() -> onnx.ModelProto:
    """One block, three times over: the same matrices in each."""
    block = "".join(
        f"""
        u{i} = MatMul (h{i}, up.w) b{i} = Add (u{i}, up.b) r{i} = Relu (b{i})
        d{i} = MatMul (r{i}, down.w) h{i + 1} = Add (h{i}, d{i})
        """
        for i in range(3)
    )
    return build(
        SEQUENCE,
        "h0 = MatMul (x, in.w)" + block + "y = MatMul (h3, out.w)",
        {"in.w": (12, 8), "up.w": (8, 10), "up.b": (10,), "down.w": (10, 8), "out.w": (8, 12)},
    )


@structure
def tied_head_through_transpose() -> onnx.ModelProto:
    """The embedding is the output layer too, transposed in the graph; too large to be stored twice."""
    return build(
        "(int64[batch, time] ids) => (float[batch, time, 2100] y)",
        """
        e = Gather <axis = 0> (table, ids)
        u = MatMul (e, up.w) r = Relu (u) d = MatMul (r, down.w) s = Add (e, d)
        n = LayerNormalization (s, scale, bias)
        t = Transpose <perm = [1, 0]> (table)
        y = MatMul (n, t)
        """,
        {"table": (2100, 8), "up.w": (8, 10), "down.w": (10, 8), "scale": (8,), "bias": (8,)},
    )


@structure
def batch_and_heads_at_run_time() -> onnx.ModelProto:
    """Batch and heads are one axis; all sizes are read at run time."""

    def heads(name: str) -> str:
        return f"""
            {name}m = MatMul (x, {name}.w) {name}b = Add ({name}m, {name}.b)
            {name}shape = Shape ({name}b)
            {name}d0 = Gather ({name}shape, i0) {name}d1 = Gather ({name}shape, i1)
            {name}rows = Mul ({name}d0, three)
            {name}apart = Concat <axis = 0> ({name}d0, {name}d1, three, four)
            {name}r = Reshape ({name}b, {name}apart) {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}r)
            {name}joined = Concat <axis = 0> ({name}rows, {name}d1, four)
            {name} = Reshape ({name}t, {name}joined)
        """

    return build(
        SEQUENCE,
        "".join(heads(n) for n in "qkv")
        + """
        keys = Transpose <perm = [0, 2, 1]> (k)
        scores = MatMul (q, keys) scaled = Div (scores, root) probs = Softmax (scaled)
        mixed = MatMul (probs, v)
        back = Concat <axis = 0> (qd0, three, qd1, four) apart = Reshape (mixed, back)
        t = Transpose <perm = [0, 2, 1, 3]> (apart)
        ending = Concat <axis = 0> (qd0, qd1, twelve) flat = Reshape (t, ending)
        y = MatMul (flat, o.w)
        """,
        {
            **qkv(), "i0": [0], "i1": [1], "three": [3], "four": [4], "twelve": [12], "root": 2.0,
            "o.w": (12, 12),
        },
    )  # fmt: skip


@structure
def unet() -> onnx.ModelProto:
    """Down and up again; the way up sees the way down beside it."""
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 2, 8, 8] y)",
        """
        a = Conv <pads = [1, 1, 1, 1]> (x, a.w, a.b) ar = Relu (a)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (ar)
        b = Conv <pads = [1, 1, 1, 1]> (m, b.w) br = Relu (b)
        u = ConvTranspose <strides = [2, 2]> (br, up.w, up.b)
        c = Concat <axis = 1> (ar, u)
        d = Conv <pads = [1, 1, 1, 1]> (c, c.w) dr = Relu (d)
        r = Resize <mode = "nearest"> (br, , scales)
        e = Concat <axis = 1> (dr, r)
        y = Conv (e, d.w)
        """,
        {
            "a.w": (4, 3, 3, 3), "a.b": (4,), "b.w": (6, 4, 3, 3), "up.w": (6, 5, 2, 2), "up.b": (5,),
            "c.w": (7, 9, 3, 3), "d.w": (2, 13, 1, 1), "scales": np.asarray([1, 1, 2, 2], np.float32),
        },
    )  # fmt: skip


@structure
def pixels_to_channels() -> onnx.ModelProto:
    """Sub-pixel upsampling by Reshape and Transpose, and space to depth back again."""
    return build(
        "(float[batch, 3, 4, 4] x) => (float[batch, 2, 4, 4] y)",
        """
        a = Conv (x, a.w, a.b) ar = Relu (a)
        r = Reshape (ar, apart) t = Transpose <perm = [0, 1, 4, 2, 5, 3]> (r) up = Reshape (t, large)
        b = Conv <pads = [1, 1, 1, 1]> (up, b.w)
        s = Reshape (b, tiles) st = Transpose <perm = [0, 3, 5, 1, 2, 4]> (s) down = Reshape (st, small)
        y = Conv (down, c.w)
        """,
        {
            "a.w": (20, 3, 1, 1), "a.b": (20,), "apart": [0, 5, 2, 2, 4, 4], "large": [0, 5, 8, 8],
            "b.w": (6, 5, 3, 3), "tiles": [0, 6, 4, 2, 4, 2], "small": [0, 24, 4, 4], "c.w": (2, 24, 1, 1),
        },
    )  # fmt: skip


@structure
def mixer() -> onnx.ModelProto:
    """Layers over positions and over channels in turn, by a Transpose in between."""
    return build(
        "(float[batch, 4, 6] x) => (float[batch, 4, 3] y)",
        """
        h = MatMul (x, in.w)
        t = Transpose <perm = [0, 2, 1]> (h)
        u = MatMul (t, tokens.up) r = Relu (u) d = MatMul (r, tokens.down)
        b = Transpose <perm = [0, 2, 1]> (d)
        s = Add (h, b)
        cu = MatMul (s, channels.up) cr = Relu (cu) cd = MatMul (cr, channels.down)
        z = Add (s, cd)
        y = MatMul (z, out.w)
        """,
        {
            "in.w": (6, 8), "tokens.up": (4, 5), "tokens.down": (5, 4), "channels.up": (8, 9),
            "channels.down": (9, 8), "out.w": (8, 3),
        },
    )  # fmt: skip


@structure
def channel_attention_over_groups() -> onnx.ModelProto:
    """Two branches weighed against each other by a softmax over a stack of both (selective kernels)."""
    return build(
        IMAGE,
        f"""
        a = Conv <pads = [1, 1, 1, 1]> (x, a.w) ar = Relu (a)
        b = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> (x, b.w) br = Relu (b)
        sum = Add (ar, br) p = GlobalAveragePool (sum)
        z = Conv (p, down.w) zr = Relu (z)
        logits = Conv (zr, up.w) stack = Reshape (logits, two) probs = Softmax <axis = 1> (stack)
        wa = Gather <axis = 1> (probs, zero) wb = Gather <axis = 1> (probs, one)
        ma = Mul (ar, wa) mb = Mul (br, wb) last = Add (ma, mb)
        {HEAD}
        """,
        {
            "a.w": (6, 3, 3, 3), "b.w": (6, 3, 3, 3), "down.w": (4, 6, 1, 1), "up.w": (12, 4, 1, 1),
            "two": [0, 2, 6, 1, 1], "zero": 0, "one": 1, "fc.w": (5, 6), **FC,
        },
    )  # fmt: skip


@structure
def linear_attention() -> onnx.ModelProto:
    """Keys and values are multiplied first: a head is a small matrix, and positions are summed."""
    return build(
        SEQUENCE,
        "".join(head_split(n) for n in "qkv")
        + """
        qs = Softmax <axis = -1> (q) ks = Softmax <axis = -2> (k)
        keys = Transpose <perm = [0, 1, 3, 2]> (ks)
        context = MatMul (keys, v) mixed = MatMul (qs, context)
        back = Transpose <perm = [0, 2, 1, 3]> (mixed) flat = Reshape (back, merged)
        y = MatMul (flat, o.w)
        """,
        {**qkv(), "split": [0, 0, 3, 4], "merged": [0, 0, 12], "o.w": (12, 12)},
    )


@structure
def query_key_norm() -> onnx.ModelProto:
    """A norm over each head's queries and keys, whose scale all heads share."""

    def normed(name: str) -> str:
        return (
            f"{name}m = MatMul (x, {name}.w)"
            + heads_of(f"{name}h", f"{name}m")
            + f"""
            {name}2 = Mul ({name}h, {name}h) {name}mean = ReduceMean <axes = [-1]> ({name}2)
            {name}e = Add ({name}mean, eps) {name}s = Sqrt ({name}e) {name}n = Div ({name}h, {name}s)
            {name} = Mul ({name}n, {name}.scale)
            """
        )

    return build(
        SEQUENCE,
        normed("q") + normed("k") + head_split("v") + ATTENTION,
        {
            "q.w": (12, 12), "k.w": (12, 12), "v.w": (12, 12), "v.b": (12,), "q.scale": (4,), "k.scale": (4,),
            "eps": 1e-5, **SPLIT,
        },
    )  # fmt: skip
