"""Small networks in which something could go wrong between the rules: the oracle passes, or it blocks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_networks import analysis_of, groups, prune, reason

from graphprune.analysis import Analysis
from graphprune.groups import find_groups
from graphprune.model import load
from graphprune.rewrite import cut
from graphprune.shapes.fold_shapes import prepare


def test_group_norm_between_convolutions() -> None:
    analysis = analysis_of(
        """n (float[batch, 3, 6, 6] x) => (float[batch, 4, h, w] y) {
            a = Conv(x, w1)
            g = GroupNormalization <num_groups = 2> (a, s, b)
            r = Relu(g)
            y = Conv(r, w2)
        }""",
        w1=(8, 3, 3, 3), s=(8,), b=(8,), w2=(4, 8, 3, 3),
    )  # fmt: skip
    kinds = {g.kind: i for i, g in groups(analysis).items() if g.prunable}
    prune(analysis, kinds["norm_groups"])
    prune(analysis, keep=1)


def test_layer_norm_and_softmax_over_a_pruned_axis() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            l = LayerNormalization (a, s, b)
            p = Softmax (l)
            y = MatMul(p, w2)
        }""",
        w1=(5, 8), s=(8,), b=(8,), w2=(8, 3),
    )  # fmt: skip
    prune(analysis, keep=3)


def test_squeeze_without_axes_when_a_channel_is_left_alone() -> None:
    analysis = analysis_of(
        """n (float[2, 3, 6, 6] x) => (float[2, 4] y) {
            a = Conv(x, w1)
            p = GlobalAveragePool(a)
            s = Squeeze(p)
            y = MatMul(s, w2)
        }""",
        w1=(8, 3, 3, 3), w2=(8, 4),
    )  # fmt: skip
    prune(analysis, keep=1)


def test_a_value_that_is_output_and_used_inside_stays() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y, float[batch, 8] h) {
            h = MatMul(x, w1)
            y = MatMul(h, w2)
        }""",
        w1=(5, 8), w2=(8, 3),
    )  # fmt: skip
    assert "model output 'h'" in reason(analysis, "w1:1")


def test_a_size_that_is_an_output_stays() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y, int64[2] s) {
            h = MatMul(x, w1)
            s = Shape(h)
            y = MatMul(h, w2)
        }""",
        w1=(5, 8), w2=(8, 3),
    )  # fmt: skip
    assert "its size is an output" in reason(analysis, "w1:1")


def test_a_size_that_reaches_an_output_through_arithmetic_stays() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y, int64[] s) {
            h = MatMul(x, w1)
            k = Size(h)
            s = Add(k, one)
            y = MatMul(h, w2)
        }""",
        w1=(5, 8), w2=(8, 3), one=np.array(1),
    )  # fmt: skip
    assert "its size becomes a number" in reason(analysis, "w1:1")


def test_tied_matrix_is_cut_alike_at_both_uses() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x, float[batch, 8] z) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            p = Mul(a, z)
            q = Gemm <transB = 1> (z, w1)
            r = MatMul(p, w2)
            t = MatMul(q, w3)
            y = Add(r, t)
        }""",
        w1=(5, 8), w2=(8, 3), w3=(5, 3),
    )  # fmt: skip
    assert "model input" in reason(analysis, "w1:0")
    assert "model input 'z'" in reason(analysis, "w1:1")


def test_matrix_that_an_unknown_operator_reads_too() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y, float[d] z) {
            a = MatMul(x, w1)
            y = MatMul(a, w2)
            z = custom.Unknown(w1)
        }""",
        w1=(5, 8), w2=(8, 3),
    )  # fmt: skip
    found = groups(analysis)["w1:1"]
    if found.prunable:  # then the unknown operator keeps the whole matrix
        removed = np.zeros(len(analysis.algebra), bool)
        removed[found.units[:4]] = True
        proto = cut(analysis, removed).to_proto()
        shapes = {i.name: list(i.dims) for i in proto.graph.initializer}
        reads = {n.op_type: n.input for n in proto.graph.node}
        assert shapes[reads["Unknown"][0]] == [5, 8]
        assert [5, 4] in shapes.values()


def test_shared_vectors_are_parameters_of_their_own() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            b = Add(a, ones)
            r = Relu(b)
            c = MatMul(r, w2)
            d = Mul(c, ones)
            e = Relu(d)
            y = MatMul(e, w3)
        }""",
        w1=(5, 8), w2=(8, 8), w3=(8, 3), ones=np.ones(8, np.float32),
    )  # fmt: skip
    first = next(i for i, g in groups(analysis).items() if g.prunable)
    prune(analysis, first, keep=3)
    prune(analysis, keep=2)


def test_a_caller_may_replace_a_slice_start() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        n (float[batch, 5] x, int64[1] s) => (float[batch, 3] y)
        <int64[1] s = {2}, int64[1] e = {6}, int64[1] a = {1}> {
            h = MatMul(x, w1)
            p = Slice(h, s, e, a)
            q = ReduceSum(p, a)
            y = Mul(q, k)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (5, 8)), ("k", (1, 3))):
        model.graph.initializer.append(
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        )
    prepared, trace = prepare(load(model))
    analysis = Analysis(prepared, trace).run()
    assert not any(g.prunable for g in find_groups(analysis))


def test_computed_reshape_target_follows_another_tensor() -> None:
    """The target is read off a tensor that shrinks for reasons of its own."""
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            s = Shape(a)
            b = MatMul(x, w2)
            v = Reshape(b, s)
            r = Relu(v)
            c = MatMul(r, w3)
            d = MatMul(a, w4)
            y = Add(c, d)
        }""",
        w1=(6, 8), w2=(6, 8), w3=(8, 3), w4=(8, 3),
    )  # fmt: skip
    assert "its size shapes another tensor" in reason(analysis, "w1:1")
    prune(analysis, keep=2)


def test_runtime_product_of_batch_and_heads_as_a_target() -> None:
    analysis = analysis_of(
        """n (float[batch, len, 6] x) => (float[batch, len, 3] y) {
            a = MatMul(x, w1)
            s = Shape(x)
            n = Gather(s, zero)
            l = Gather(s, one)
            h = Reshape(a, heads)
            t = Transpose <perm = [0, 2, 1, 3]> (h)
            m = Mul(n, four)
            sh = Concat <axis = 0> (m, l, dim)
            f = Reshape(t, sh)
            r = Relu(f)
            sb = Concat <axis = 0> (n, four, l, dim)
            u = Reshape(r, sb)
            v = Transpose <perm = [0, 2, 1, 3]> (u)
            so = Concat <axis = 0> (n, l, all)
            o = Reshape(v, so)
            y = MatMul(o, w2)
        }""",
        w1=(6, 20), w2=(20, 3), zero=[0], one=[1], four=[4], dim=[5], all=[20], heads=[0, 0, 4, 5],
    )  # fmt: skip
    for name, group in groups(analysis).items():
        if group.prunable:
            prune(analysis, name, keep=2)
    prune(analysis, keep=1)


def test_a_size_of_another_tensor_as_a_runtime_slice_end() -> None:
    """End = batch * width / batch: a number the cut would change, on an axis that stays."""
    analysis = analysis_of(
        """n (float[batch, 6] x, float[16] z) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            k = Size(a)
            s = Shape(x)
            n = Gather(s, zero)
            e = Div(k, n)
            p = Slice(z, zero, e)
            m = ReduceSum(p)
            c = MatMul(a, w2)
            y = Add(c, m)
        }""",
        w1=(6, 8), w2=(8, 3), zero=[0],
    )  # fmt: skip
    assert "its size shapes another tensor" in reason(analysis, "w1:1")


def test_a_size_of_another_tensor_as_a_range_limit() -> None:
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            k = Size(a)
            r = Range(zero, k, one)
            f = Cast <to = 1> (r)
            m = ReduceSum(f)
            c = MatMul(a, w2)
            y = Add(c, m)
        }""",
        w1=(6, 8), w2=(8, 3), zero=np.array(0), one=np.array(1),
    )  # fmt: skip
    assert "its size shapes another tensor" in reason(analysis, "w1:1")


def test_zero_divided_by_zero_in_the_reference() -> None:
    """A head divided by its own norm: 0/0 in the masked original, nothing of that in the cut model."""
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            h = Reshape(a, heads)
            l = ReduceL2(h, last)
            q = Div(h, l)
            f = Reshape(q, flat)
            y = MatMul(f, w2)
        }""",
        w1=(6, 8), w2=(8, 3), heads=[0, 4, 2], last=[-1], flat=[0, 8],
    )  # fmt: skip
    prune(analysis, keep=1)


def test_logarithm_of_removed_channels() -> None:
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            p = Abs(a)
            l = Log(p)
            y = MatMul(l, w2)
        }""",
        w1=(6, 8), w2=(8, 3),
    )  # fmt: skip
    prune(analysis, keep=2)


def test_integer_parameters() -> None:
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            i = Cast <to = 7> (a)
            b = Add(i, b1)
            c = Mul(b, b1)
            d = Mod(c, b1)
            f = Cast <to = 1> (d)
            y = MatMul(f, w2)
        }""",
        w1=(6, 8), b1=np.arange(3, 11), w2=(8, 3),
    )  # fmt: skip
    prune(analysis, keep=3)


def test_half_precision_and_boolean_parameters() -> None:
    analysis = analysis_of(
        """n (float16[batch, 6] x) => (float16[batch, 3] y) {
            a = MatMul(x, w1)
            b = Where(m, a, k)
            y = MatMul(b, w2)
        }""",
        w1=np.eye(6, 8).astype(np.float16), m=np.arange(8) % 3 == 0, k=np.arange(8).astype(np.float16),
        w2=np.ones((8, 3), np.float16),
    )  # fmt: skip
    prune(analysis, keep=5)


def test_branches_that_read_an_outer_value_shrink_with_it() -> None:
    analysis = analysis_of(
        """n (float[batch, 6] x, bool c) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            b = If (c) <
                then_branch = t () => (float[batch, 8] p) { p = Neg(a) },
                else_branch = e () => (float[batch, 8] q) { q = Relu(a) }
            >
            y = MatMul(b, w2)
        }""",
        w1=(6, 8), w2=(8, 3),
    )  # fmt: skip
    prune(analysis, "w1:1", keep=3)


def test_one_of_each_group_keeps_every_tensor() -> None:
    """A slice that ends inside a head: any head and any dimension may be the ones that stay."""
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            h = Reshape(a, heads)
            r = Relu(h)
            f = Reshape(r, flat)
            p = Slice(f, zero, end, one)
            y = MatMul(p, w2)
        }""",
        w1=(6, 8), w2=(6, 3), heads=[0, 2, 4], flat=[0, 8], zero=[0], end=[6], one=[1],
    )  # fmt: skip
    for name, group in groups(analysis).items():
        for which in range(group.size):
            removed = np.zeros(len(analysis.algebra), bool)
            for other in groups(analysis).values():
                chosen = which if other.id == name else other.size - 1
                if other.prunable:
                    removed[np.delete(other.units, min(chosen, other.size - 1))] = True
            for axes in analysis.axes.values():
                assert all(analysis.algebra.alive(axis, removed).any() for axis in axes)


@pytest.mark.parametrize("opset", [13, 21])
def test_expand_of_a_single_channel_to_many(opset: int) -> None:
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 3] y) {
            a = MatMul(x, w1)
            s = Shape(a)
            m = ReduceSum(x, one)
            e = Expand(m, s)
            p = Mul(a, e)
            y = MatMul(p, w2)
        }""",
        opset=opset, w1=(6, 8), w2=(8, 3), one=[1],
    )  # fmt: skip
    prune(analysis, keep=3)


@pytest.mark.parametrize("inputs", ["s, zero, two", "s, zero, two, zero", "s, zero, two, zero, one"])
def test_only_the_sizes_that_a_slice_takes_are_numbers(inputs: str) -> None:
    """Batch and length become numbers; the width beside them in the same Shape does not."""
    analysis = analysis_of(
        f"""n (float[batch, len, 6] x) => (float[batch, len, 3] y, int64[2] k) {{
            a = MatMul(x, w1)
            s = Shape(a)
            t = Slice({inputs})
            k = Add(t, one)
            y = MatMul(a, w2)
        }}""",
        w1=(6, 8),
        w2=(8, 3),
        zero=[0],
        one=[1],
        two=[2],
    )
    prune(analysis, "w1:1", keep=3)
