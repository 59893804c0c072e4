"""Small networks of fused operators through the whole pipeline: cut, oracle, cost."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import analysis_of, groups, prune

from graphprune.analysis import Analysis
from graphprune.cost import CostModel, measure
from graphprune.rewrite import cut


def removed_half(analysis: Analysis, *kinds: str) -> np.ndarray:
    """Mask of about half of the units of all prunable groups of some kinds."""
    removed = np.zeros(len(analysis.algebra), bool)
    for group in groups(analysis).values():
        if group.prunable and group.kind in kinds:
            removed[group.units[: min(group.size // 2, group.size - group.least)]] = True
    assert removed.any()
    return removed


def macs_agree(analysis: Analysis, *kinds: str) -> tuple[int, int]:
    """Multiply-adds before and after a cut, where the cost model and the cut model agree."""
    removed = removed_half(analysis, *kinds)
    costs = CostModel(analysis, 0)
    after = costs.evaluate(removed).macs
    assert after == measure(cut(analysis, removed)).macs
    return costs.evaluate().macs, after


ATTENTION_23 = """n (float[batch, len, 6] x) => (float[batch, len, 5] y) {
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    a = Attention <q_num_heads = 8, kv_num_heads = 4> (q, k, v)
    y = MatMul(a, wo)
}"""


def test_attention_with_grouped_queries() -> None:
    analysis = analysis_of(ATTENTION_23, 23, wq=(6, 32), wk=(6, 16), wv=(6, 12), wo=(24, 5))
    found = sorted((g.kind, g.size) for g in groups(analysis).values() if g.prunable)
    assert found == [("head_dim", 3), ("head_dim", 4), ("heads", 2), ("heads", 4)]
    prune(analysis, keep=1)
    tokens = 128
    before, after = macs_agree(analysis, "heads", "head_dim")
    assert before == tokens * (6 * (32 + 16 + 12) + 24 * 5) + tokens * tokens * (32 + 24)
    # 2 of 4 key heads, 1 of 2 queries for each, 2 of 4 and 2 of 3 dims.
    assert after == tokens * (6 * (4 + 4 + 4) + 4 * 5) + tokens * tokens * (4 + 4)


def test_rotary_embedding_before_attention() -> None:
    analysis = analysis_of(
        """n (float[batch, len, 6] x, int64[batch, len] p) => (float[batch, len, 5] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            qr = RotaryEmbedding <num_heads = 4> (q, c, s, p)
            kr = RotaryEmbedding <num_heads = 2> (k, c, s, p)
            a = Attention <q_num_heads = 4, kv_num_heads = 2> (qr, kr, v)
            y = MatMul(a, wo)
        }""",
        23, wq=(6, 32), wk=(6, 16), wv=(6, 16), wo=(32, 5), c=(256, 4), s=(256, 4),
    )  # fmt: skip
    tables = groups(analysis)["wq:1/head_dim"]
    assert tables.size == 4  # pairs
    assert {m.name for m in tables.members} == {"wq", "wk", "c", "s"}
    prune(analysis, keep=1)
    removed = removed_half(analysis, "heads", "head_dim")
    nodes = {n.op_type: n for n in cut(analysis, removed).to_proto().graph.node}
    scale = next(a.f for a in nodes["Attention"].attribute if a.name == "scale")
    assert scale == pytest.approx(1 / np.sqrt(8))


def test_packed_attention_of_onnxruntime() -> None:
    analysis = analysis_of(
        """n (float[batch, len, 6] x) => (float[batch, len, 6] y) {
            a = com.microsoft.Attention <num_heads = 4> (x, w, b)
            h = MatMul(a, wo)
            y, t, u, s = com.microsoft.SkipLayerNormalization(h, x, g, bg, bo)
        }""",
        w=(6, 48), b=(48,), wo=(16, 6), g=(6,), bg=(6,), bo=(6,),
    )  # fmt: skip
    found = sorted((g.kind, g.size) for g in groups(analysis).values() if g.prunable)
    assert [f for f in found if f[0] != "blocks"] == [("head_dim", 4), ("head_dim", 4), ("heads", 4)]
    prune(analysis, keep=1)
    before, after = macs_agree(analysis, "heads", "head_dim")
    assert before == 128 * 6 * (48 + 16) + 128 * 128 * 32
    assert after == 128 * 6 * (12 + 4) + 128 * 128 * 8


def test_grouped_queries_of_onnxruntime_with_rotary_embedding() -> None:
    analysis = analysis_of(
        """n (float[2, 3, 6] x) => (float[2, 3, 5] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            a = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1>
                (q, k, v, , , lengths, total, c, s)
            y = MatMul(a, wo)
        }""",
        wq=(6, 192), wk=(6, 96), wv=(6, 96), wo=(192, 5), c=(8, 24), s=(8, 24),
        lengths=np.array([2, 2], np.int32), total=np.array(3, np.int32),
    )  # fmt: skip
    assert groups(analysis)["wq:1/head_dim"].size == 3  # blocks of 16 dims
    prune(analysis, keep=1)
    macs_agree(analysis, "heads", "head_dim")


def test_multi_head_attention_of_onnxruntime() -> None:
    analysis = analysis_of(
        """n (float[batch, len, 6] x, float[batch, other, 6] z) => (float[batch, len, 5] y) {
            q = com.microsoft.FusedMatMul <transB = 1> (x, wq)
            k = MatMul(z, wk)
            v = MatMul(z, wv)
            a = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v, b)
            r = com.microsoft.FastGelu(a)
            y = MatMul(r, wo)
        }""",
        wq=(16, 6), wk=(6, 16), wv=(6, 12), wo=(12, 5), b=(44,),
    )  # fmt: skip
    prune(analysis, keep=1)
    before, after = macs_agree(analysis, "heads", "head_dim")
    assert before > 2 * after


def test_experts_of_onnxruntime() -> None:
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 6] y) {
            r = MatMul(x, wr)
            y = com.microsoft.MoE <k = 2, activation_type = "relu"> (x, r, f, fb, g)
        }""",
        wr=(6, 4), f=(4, 8, 6), fb=(4, 8), g=(4, 6, 8),
    )  # fmt: skip
    found = {g.kind: g for g in groups(analysis).values() if g.prunable}
    assert found["experts"].least == 2
    assert {m.name for m in found["experts"].members} == {"wr", "f", "fb", "g"}
    prune(analysis, keep=2)
    before, after = macs_agree(analysis, "experts", "channels")
    assert before == 6 * 4 + 2 * (8 * 6 + 6 * 8)
    assert after == 6 * 2 + 2 * (4 * 6 + 6 * 4)


def test_quantized_experts_of_onnxruntime() -> None:
    rng = np.random.default_rng(0)
    analysis = analysis_of(
        """n (float[batch, 32] x) => (float[batch, 32] y) {
            r = MatMul(x, wr)
            y = com.microsoft.QMoE <k = 1, activation_type = "relu"> (x, r, f, fs, , g, gs)
        }""",
        wr=(32, 4), fs=(4, 16), gs=(4, 32),
        f=rng.integers(0, 255, (4, 16, 16), np.uint8), g=rng.integers(0, 255, (4, 32, 8), np.uint8),
    )  # fmt: skip
    assert "experts" in {g.kind for g in groups(analysis).values() if g.prunable}
    prune(analysis, keep=1)
    before, after = macs_agree(analysis, "experts")
    assert before == 32 * 4 + 2 * 32 * 16
    assert after == 32 * 2 + 2 * 32 * 16


def test_packed_weights_between_other_layers() -> None:
    rng = np.random.default_rng(0)
    analysis = analysis_of(
        """n (float[batch, 6] x) => (float[batch, 5] y) {
            a = MatMul(x, w)
            h = com.microsoft.MatMulNBits <K = 64, N = 8, bits = 4, block_size = 16> (a, q, s)
            r = Relu(h)
            y = MatMul(r, v)
        }""",
        w=(6, 64), s=(8, 4), v=(8, 5), q=rng.integers(0, 255, (8, 4, 8), np.uint8),
    )  # fmt: skip
    sizes = {g.members[0].name: g.size for g in groups(analysis).values() if g.prunable}
    assert sizes == {"w": 4, "q": 8}  # four blocks of 16 columns, 8 rows
    prune(analysis, keep=1)
    assert macs_agree(analysis, "channels") == (6 * 64 + 64 * 8 + 8 * 5, 6 * 32 + 32 * 4 + 4 * 5)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_fused_convolutions(activation: str) -> None:
    analysis = analysis_of(
        f"""n (float[batch, 3, 6, 6] x) => (float[batch, 4, 2, 2] y) {{
            a = com.microsoft.FusedConv <activation = "{activation}"> (x, w, b)
            c = com.microsoft.FusedConv <activation = "{activation}", pads = [1, 1, 1, 1]> (a, u, , a)
            y = Conv(c, v)
        }}""",
        w=(8, 3, 3, 3), b=(8,), u=(8, 8, 3, 3), v=(4, 8, 3, 3),
    )  # fmt: skip
    prune(analysis, keep=3)
    macs_agree(analysis, "channels")


def test_experts_between_other_layers() -> None:
    analysis = analysis_of(
        """n (float[batch, 5] x) => (float[batch, 3] y) {
            h = MatMul(x, w)
            m = LayerNormalization (h, s)
            r = MatMul(m, wr)
            e = com.microsoft.MoE <k = 1, activation_type = "gelu"> (m, r, f, fb, g, gb)
            t = Add(h, e)
            y = MatMul(t, v)
        }""",
        w=(5, 6), s=(6,), wr=(6, 4), f=(4, 8, 6), fb=(4, 8), g=(4, 6, 8), gb=(4, 6), v=(6, 3),
    )  # fmt: skip
    prune(analysis, keep=2)
