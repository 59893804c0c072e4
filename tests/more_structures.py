"""More structures: how networks split, weigh, condition and join channels."""

from __future__ import annotations

import numpy as np
import onnx
from networks import ATTENTION, FC, HEAD, IMAGE, SEQUENCE, build, head_split
from structures import SPLIT, structure


@structure
def hierarchical_split() -> onnx.ModelProto:
    """Four pieces, each convolved together with the result of the one before, and joined again."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w) sr = Relu (s)
        p0, p1, p2, p3 = Split <axis = 1> (sr, quarters)
        c1 = Conv <pads = [1, 1, 1, 1]> (p1, b.w)
        a2 = Add (p2, c1) c2 = Conv <pads = [1, 1, 1, 1]> (a2, c.w)
        a3 = Add (p3, c2) c3 = Conv <pads = [1, 1, 1, 1]> (a3, d.w)
        j = Concat <axis = 1> (p0, c1, c2, c3)
        last = Conv (j, e.w)
        {HEAD}
        """,
        {
            "stem.w": (16, 3, 1, 1), "quarters": [4, 4, 4, 4], "b.w": (4, 4, 3, 3), "c.w": (4, 4, 3, 3),
            "d.w": (4, 4, 3, 3), "e.w": (6, 16, 1, 1), "fc.w": (5, 6), **FC,
        },
    )  # fmt: skip


@structure
def partial_stage() -> onnx.ModelProto:
    """Half of the channels go round a residual block and are joined with the others behind it."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w) sr = Relu (s)
        kept, through = Split <axis = 1> (sr, halves)
        a = Conv <pads = [1, 1, 1, 1]> (through, a.w) ar = Relu (a)
        b = Conv <pads = [1, 1, 1, 1]> (ar, b.w) res = Add (through, b)
        last = Concat <axis = 1> (kept, through, res)
        {HEAD}
        """,
        {
            "stem.w": (8, 3, 1, 1), "halves": [4, 4], "a.w": (5, 4, 3, 3), "b.w": (4, 5, 3, 3),
            "fc.w": (5, 12), **FC,
        },
    )  # fmt: skip


@structure
def conditioned() -> onnx.ModelProto:
    """A second input gives shift, scale and gate per channel: one projection in three pieces."""
    return build(
        "(float[batch, time, 6] x, float[batch, 4] c) => (float[batch, time, 3] y)",
        """
        h = MatMul (x, in.w)
        cr = Relu (c) m = Gemm (cr, mod.w, mod.b) mu = Unsqueeze (m, one)
        shift, scale, gate = Split <axis = 2> (mu, thirds)
        n = LayerNormalization (h, ones) s1 = Add (scale, unit) sc = Mul (n, s1) sh = Add (sc, shift)
        u = MatMul (sh, up.w) r = Relu (u) d = MatMul (r, down.w)
        gd = Mul (d, gate) z = Add (h, gd)
        y = MatMul (z, out.w)
        """,
        {
            "in.w": (6, 8), "mod.w": (4, 24), "mod.b": (24,), "one": [1], "thirds": [8, 8, 8],
            "ones": (8,), "unit": 1.0, "up.w": (8, 9), "down.w": (9, 8), "out.w": (8, 3),
        },
    )  # fmt: skip


@structure
def response_norm() -> onnx.ModelProto:
    """Channels are weighed by their norm over space, relative to the mean of all channels."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w) sr = Relu (s)
        n = ReduceL2 <axes = [2, 3]> (sr) m = ReduceMean <axes = [1]> (n) me = Add (m, eps) q = Div (n, me)
        w = Mul (sr, q) wg = Mul (w, gamma) wb = Add (wg, beta) last = Add (sr, wb)
        {HEAD}
        """,
        {"stem.w": (8, 3, 1, 1), "eps": 1e-5, "gamma": (8, 1, 1), "beta": (8, 1, 1), "fc.w": (5, 8), **FC},
    )


@structure
def spatial_attention() -> onnx.ModelProto:
    """A map of weights from the mean and the largest of all channels."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w) sr = Relu (s)
        m = ReduceMean <axes = [1]> (sr) t = ReduceMax <axes = [1]> (sr) c = Concat <axis = 1> (m, t)
        w = Conv <pads = [1, 1, 1, 1]> (c, map.w) g1 = Sigmoid (w) last = Mul (sr, g1)
        {HEAD}
        """,
        {"stem.w": (8, 3, 1, 1), "map.w": (1, 2, 3, 3), "fc.w": (5, 8), **FC},
    )


@structure
def weighed_sum() -> onnx.ModelProto:
    """Branches are added with learned weights that are normalised by their sum."""
    return build(
        IMAGE,
        f"""
        a = Conv (x, a.w) b = Conv <pads = [1, 1, 1, 1]> (x, b.w)
        wr = Relu (fusion) total = ReduceSum <keepdims = 0> (wr) te = Add (total, eps) wn = Div (wr, te)
        w0 = Gather <axis = 0> (wn, zero) w1 = Gather <axis = 0> (wn, one)
        am = Mul (a, w0) bm = Mul (b, w1) z = Add (am, bm) last = Relu (z)
        {HEAD}
        """,
        {
            "a.w": (6, 3, 1, 1), "b.w": (6, 3, 3, 3), "fusion": np.asarray([0.7, 0.4], np.float32),
            "eps": 1e-3, "zero": 0, "one": 1, "fc.w": (5, 6), **FC,
        },
    )  # fmt: skip


@structure
def latent_queries() -> onnx.ModelProto:
    """Learned vectors ask, the input answers; then one of them is taken."""
    return build(
        "(float[batch, time, 12] x) => (float[batch, 3] y)",
        """
        shape = Shape <start = 0, end = 1> (x) target = Concat <axis = 0> (shape, latent_shape)
        l = Expand (latents, target)
        qm = MatMul (l, q.w) qr = Reshape (qm, split) q = Transpose <perm = [0, 2, 1, 3]> (qr)
        """
        + head_split("k")
        + head_split("v")
        + ATTENTION.replace("y = MatMul", "ow = MatMul")
        + "z = Add (l, ow) first = Gather <axis = 1> (z, zero) y = MatMul (first, head.w)",
        {
            "latents": (1, 5, 10), "latent_shape": [5, 10], "q.w": (10, 12), "k.w": (12, 12), "k.b": (12,),
            "v.w": (12, 12), "v.b": (12,), **SPLIT, "o.w": (12, 10), "zero": 0, "head.w": (10, 3),
        },
    )  # fmt: skip


@structure
def convolution_module() -> onnx.ModelProto:
    """A gate along the channels, a causal depthwise convolution over time, and a norm of the batch."""
    return build(
        SEQUENCE.replace("time", "6"),
        """
        t = Transpose <perm = [0, 2, 1]> (x)
        a = Conv (t, a.w, a.b) left, right = Split <axis = 1> (a, halves)
        s = Sigmoid (right) g = Mul (left, s)
        p = Pad (g, before)
        d = Conv <group = 8> (p, dw.w, dw.b)
        n = BatchNormalization (d, bn.scale, bn.bias, bn.mean, bn.var)
        w = Sigmoid (n) z = Mul (n, w)
        o = Conv (z, o.w)
        y = Transpose <perm = [0, 2, 1]> (o)
        """,
        {
            "a.w": (16, 12, 1), "a.b": (16,), "halves": [8, 8], "before": [0, 0, 2, 0, 0, 0],
            "dw.w": (8, 1, 3), "dw.b": (8,), "bn.scale": (8,), "bn.bias": (8,), "bn.mean": (8,),
            "bn.var": (8,), "o.w": (12, 8, 1),
        },
    )  # fmt: skip


@structure
def heads_shared_by_layers() -> onnx.ModelProto:
    """One position bias for the heads of two layers, which therefore go together."""

    def layer(i: int, x: str) -> str:
        heads = "".join(
            f"{n}{i}m = MatMul ({x}, {n}{i}.w) {n}{i}r = Reshape ({n}{i}m, split)"
            f"{n}{i} = Transpose <perm = [0, 2, 1, 3]> ({n}{i}r)"
            for n in "qkv"
        )
        return (
            heads
            + f"""
            keys{i} = Transpose <perm = [0, 1, 3, 2]> (k{i}) scores{i} = MatMul (q{i}, keys{i})
            biased{i} = Add (scores{i}, bias) probs{i} = Softmax (biased{i})
            mixed{i} = MatMul (probs{i}, v{i})
            back{i} = Transpose <perm = [0, 2, 1, 3]> (mixed{i}) flat{i} = Reshape (back{i}, merged)
            out{i} = MatMul (flat{i}, o{i}.w) h{i + 1} = Add ({x}, out{i})
            """
        )

    return build(
        "(float[batch, time, 12] x, int64[time, time] buckets) => (float[batch, time, 12] y)",
        "looked = Gather <axis = 0> (table, buckets) turned = Transpose <perm = [2, 0, 1]> (looked)"
        "bias = Unsqueeze (turned, zero)" + layer(0, "x") + layer(1, "h1") + "y = MatMul (h2, head.w)",
        {
            **{f"{n}{i}.w": (12, 12) for n in "qkvo" for i in range(2)}, "table": (7, 3), "zero": [0],
            "split": [0, 0, 3, 4], "merged": [0, 0, 12], "head.w": (12, 12),
        },
    )  # fmt: skip


@structure
def three_embeddings() -> onnx.ModelProto:
    """Tokens, positions and segments are looked up and added."""
    return build(
        "(int64[batch, 5] ids, int64[batch, 5] kind) => (float[batch, 5, 3] y)",
        """
        a = Gather <axis = 0> (words, ids) b = Gather <axis = 0> (positions, numbers)
        c = Gather <axis = 0> (segments, kind)
        ac = Add (a, c) e = Add (ac, b)
        n = LayerNormalization (e, scale, bias)
        u = MatMul (n, up.w) t = Tanh (u) y = MatMul (t, out.w)
        """,
        {
            "words": (7, 8), "positions": (9, 8), "segments": (7, 8), "numbers": [[0, 1, 2, 3, 4]],
            "scale": (8,), "bias": (8,), "up.w": (8, 6), "out.w": (6, 3),
        },
    )  # fmt: skip


@structure
def several_scales() -> onnx.ModelProto:
    """Two resolutions that are added to each other, up and down."""
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 2, 8, 8] y, float[batch, 2, 4, 4] z)",
        """
        a = Conv <pads = [1, 1, 1, 1]> (x, a.w) ar = Relu (a)
        b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (ar, b.w) br = Relu (b)
        up1 = Conv (br, up.w) up = Resize <mode = "nearest"> (up1, , scales) s = Add (ar, up)
        dn = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (ar, down.w) t = Add (br, dn)
        y = Conv (s, c.w) z = Conv (t, d.w)
        """,
        {
            "a.w": (4, 3, 3, 3), "b.w": (6, 4, 3, 3), "up.w": (4, 6, 1, 1), "down.w": (6, 4, 3, 3),
            "c.w": (2, 4, 1, 1), "d.w": (2, 6, 1, 1), "scales": np.asarray([1, 1, 2, 2], np.float32),
        },
    )  # fmt: skip


@structure
def repeated_channels() -> onnx.ModelProto:
    """The same channels three times over, by Tile and by Concat with themselves."""
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w) sr = Relu (s)
        t = Tile (sr, times) a = Conv (t, a.w) ar = Relu (a)
        last = Concat <axis = 1> (ar, sr, ar)
        {HEAD}
        """,
        {"stem.w": (4, 3, 1, 1), "times": [1, 3, 1, 1], "a.w": (6, 12, 1, 1), "fc.w": (5, 16), **FC},
    )


@structure
def outer_product() -> onnx.ModelProto:
    """Two vectors are multiplied out and flattened: every pair is a feature."""
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        """
        a = MatMul (x, a.w) ar = Relu (a) b = MatMul (x, b.w) br = Relu (b)
        au = Unsqueeze (ar, two) bu = Unsqueeze (br, one)
        p = Mul (au, bu) f = Flatten <axis = 1> (p)
        y = MatMul (f, out.w)
        """,
        {"a.w": (6, 4), "b.w": (6, 5), "one": [1], "two": [2], "out.w": (20, 3)},
    )
