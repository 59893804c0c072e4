"""What is known to break tools that prune by following dependencies: one small network for each.

Here are those that no other test prunes; the others, briefly:

* Flatten and Reshape merges: ``networks.flatten``; heads by Reshape: ``networks.attention``; targets that are
  computed: ``networks.shape_arithmetic``; Transposes: ``structures.mixer``.
* Split, Slice, Gather of fused qkv and gate_up: ``networks.attention_fused_*``, ``structures.qkv_*`` and
  ``gate_up_*``.
* Concat of channels: ``networks.dense``; channel shuffle: ``test_shuffle``; pixel shuffle:
  ``structures.pixels_to_channels``, ``rules/cases_space``; Einsum: ``rules/cases_einsum``; a
  MatMul of two activations: ``networks.attention``.
* Grouped and multi-query attention: ``networks.grouped_query``, ``structures.multi_query*``; rotary:
  ``structures.rotary_*``.
* Norms: ``networks.group_norm``, ``structures.query_key_norm``, ``rules/test_networks``; parameters that are
  broadcast, PReLU, a class token: ``structures.broadcast_parameters``; windows, rolls, bias tables, patch
  merging: ``structures.shifted_windows``, ``bias_*``, ``patch_merging``.
* Grouped and depthwise convolutions: ``networks.grouped``, ``depthwise_se``; ConvTranspose:
  ``structures.unet``.
* LSTM, GRU, RNN: ``rules/test_recurrent_networks``; tied weights: ``networks.tied_embedding``,
  ``structures.tied_head_*``.
* Experts: ``test_experts``; fused operators: ``rules/test_fused_networks``; quantized:
  ``test_quantized_models``; Identity, Constant and Cast chains: ``property/test_metamorphic``; caches:
  ``test_interface_axes``; bodies: ``test_control_flow``; Pad on channels: ``networks.option_a``; dynamic
  sizes: ``property/test_random_graphs``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import FC, HEAD, IMAGE, SEQUENCE, build, qkv

import graphprune as gp
from graphprune.check import validate
from graphprune.oracle import verify
from graphprune.planner import make_plan, removed_units
from graphprune.rewrite import cut

#: Builder, and the groups that have to be prunable, with the number of units.
BREAKERS: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, int]]] = {}


def breaker(**groups: int) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Registers a builder; in the names of groups ``__`` stands for a dot, the axis follows after ``_``."""

    def register(function: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        ids = {f"{name.replace('__', '.').rpartition('_')[0]}:{name[-1]}": n for name, n in groups.items()}
        BREAKERS[function.__name__] = function, ids
        return function

    return register


@breaker(stem__w_0=4)
def depthwise_with_a_multiplier_inside_a_residual() -> onnx.ModelProto:
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w)
        d = Conv <group = 4, pads = [1, 1, 1, 1]> (s, dw.w, dw.b) r = Relu (d)
        p = Conv (r, project.w) last = Add (p, s)
        {HEAD}
        """,
        {
            "stem.w": (4, 3, 1, 1), "dw.w": (12, 1, 3, 3), "dw.b": (12,), "project.w": (4, 12, 1, 1),
            "fc.w": (5, 4), **FC,
        },
    )  # fmt: skip


@breaker(stem__w_0=6)
def frozen_batch_norm_as_plain_arithmetic() -> onnx.ModelProto:
    return build(
        IMAGE,
        f"""
        s = Conv (x, stem.w) r = Sqrt (var) k = Div (scale, r) m = Mul (mean, k) b = Sub (bias, m)
        sk = Mul (s, k) last = Add (sk, b)
        {HEAD}
        """,
        {
            "stem.w": (6, 3, 1, 1), "scale": (6, 1, 1), "bias": (6, 1, 1), "mean": (6, 1, 1),
            "var": np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1), "fc.w": (5, 6), **FC,
        },
    )  # fmt: skip


@breaker(a__w_0=6)
def maximum_minimum_sum_and_where_of_branches() -> onnx.ModelProto:
    return build(
        IMAGE,
        f"""
        a = Conv (x, a.w, a.b) b = Conv (x, b.w) c = Conv (x, c.w)
        high = Max (a, b, c) low = Min (a, b) total = Sum (high, low, c)
        more = Greater (a, b) last = Where (more, total, high)
        {HEAD}
        """,
        {
            "a.w": (6, 3, 1, 1), "a.b": (6,), "b.w": (6, 3, 1, 1), "c.w": (6, 3, 1, 1), "fc.w": (5, 6), **FC,
        },
    )  # fmt: skip


@breaker(up__w_1=10)
def a_model_that_ends_in_a_softmax_and_the_best_classes() -> onnx.ModelProto:
    """The classes stay: they are the output, and TopK and ArgMax count them."""
    return build(
        "(float[batch, 6] x) => (float[batch, 2] best, int64[batch, 2] which, int64[batch, 1] first)",
        """
        u = MatMul (x, up.w) r = Relu (u) logits = MatMul (r, classes.w) p = Softmax <axis = -1> (logits)
        best, which = TopK (p, two) first = ArgMax <axis = 1> (p)
        """,
        {"up.w": (6, 10), "classes.w": (10, 7), "two": [2]},
    )


@breaker(a__w_0=4, b__w_0=6)
def channels_and_pixels_in_one_axis_at_two_scales() -> onnx.ModelProto:
    """Detector heads: maps of two sizes, each flattened, then joined along the pixels."""
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 5, 80] y)",
        """
        a = Conv <pads = [1, 1, 1, 1]> (x, a.w) ar = Relu (a)
        b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (ar, b.w) br = Relu (b)
        ha = Conv (ar, head.a) hb = Conv (br, head.b)
        fa = Reshape (ha, rows) fb = Reshape (hb, rows) y = Concat <axis = 2> (fa, fb)
        """,
        {
            "a.w": (4, 3, 3, 3), "b.w": (6, 4, 3, 3), "head.a": (5, 4, 1, 1), "head.b": (5, 6, 1, 1),
            "rows": [0, 5, -1],
        },
    )  # fmt: skip


@breaker(q__w_1=3, v__w_1=4)
def a_mask_made_from_the_sizes_at_run_time() -> onnx.ModelProto:
    """A causal mask for each head, expanded to the scores' shape."""
    heads = "".join(
        f"""
        {n}m = MatMul (x, {n}.w) {n}b = Add ({n}m, {n}.b) {n}r = Reshape ({n}b, split)
        {n} = Transpose <perm = [0, 2, 1, 3]> ({n}r)
        """
        for n in "qkv"
    )
    return build(
        SEQUENCE,
        heads
        + """
        keys = Transpose <perm = [0, 1, 3, 2]> (k) scores = MatMul (q, keys)
        size = Shape (scores) full = Expand (one, size) upper = Trilu <upper = 1> (full, first)
        blocked = Mul (upper, low) masked = Add (scores, blocked)
        probs = Softmax <axis = -1> (masked) mixed = MatMul (probs, v)
        back = Transpose <perm = [0, 2, 1, 3]> (mixed) flat = Reshape (back, merged) y = MatMul (flat, o.w)
        """,
        {
            **qkv(), "split": [0, 0, 3, 4], "merged": [0, 0, 12], "one": 1.0, "first": 1, "low": -100.0,
            "o.w": (12, 12),
        },
    )  # fmt: skip


@breaker(in__w_1=12)
def a_selective_state_space_layer() -> onnx.ModelProto:
    """A Scan over time with a decay per channel and state, steps and projections made from the input."""
    return build(
        "(float[6, 2, 8] x) => (float[6, 2, 8] y)",
        """
        both = MatMul (x, in.w) u, gate = Split <axis = -1> (both, halves)
        step = MatMul (u, step.w) positive = Softplus (step) b = MatMul (u, b.w) c = MatMul (u, c.w)
        h0 = Expand (nothing, state)
        last, seen = Scan <num_scan_inputs = 4, body = body
            (float[2, 12, 3] h, float[2, 12] ut, float[2, 12] dt, float[2, 3] bt, float[2, 3] ct)
            => (float[2, 12, 3] next, float[2, 12] out) {
            d3 = Unsqueeze (dt, axis2) decay = Mul (d3, a) kept = Exp (decay) old = Mul (kept, h)
            du = Mul (dt, ut) du3 = Unsqueeze (du, axis2) b3 = Unsqueeze (bt, axis1) add = Mul (du3, b3)
            next = Add (old, add) c3 = Unsqueeze (ct, axis1) read = Mul (next, c3)
            out = ReduceSum <keepdims = 0> (read, axis2)
        }> (h0, u, positive, b, c)
        open = Sigmoid (gate) gated = Mul (seen, open) y = MatMul (gated, out.w)
        """,
        {
            "in.w": (8, 24), "halves": [12, 12], "step.w": (12, 12), "b.w": (12, 3), "c.w": (12, 3),
            "a": -np.abs(np.random.default_rng(0).standard_normal((12, 3))).astype(np.float32),
            "nothing": 0.0, "state": [2, 12, 3], "axis1": [1], "axis2": [2], "out.w": (12, 8),
        },
    )  # fmt: skip


@pytest.mark.parametrize("name", BREAKERS)
def test_pruned_and_verified(name: str) -> None:
    builder, expected = BREAKERS[name]
    model = builder()
    onnx.checker.check_model(model)
    graph = gp.analyze(gp.load(model))
    found = {(group.id.split("/")[0], group.size) for group in graph.groups if group.prunable}
    assert found >= set(expected.items())
    rng = np.random.default_rng(0)
    for share in (0.3, 0.6):
        removed = np.zeros(len(graph.analysis.algebra), bool)
        for group in graph.groups:
            if group.prunable and group.kind != "blocks":
                count = min(max(int(share * group.size), 1), group.size - group.least)
                removed[rng.choice(group.units, count, replace=False)] = True
        plan = make_plan(graph, removed, {})
        again = removed_units(graph, plan)
        pruned = cut(graph.analysis, again)
        validate(pruned)
        assert verify(graph.analysis, again, pruned).scale > 0
        assert graph.cost.evaluate(again).params < graph.cost.evaluate().params
