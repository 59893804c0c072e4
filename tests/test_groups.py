"""Which axes go together in every tiny network, written down by hand and keyed on parameter names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import NETWORKS, build, graph_of, weight

from graphprune.graph import analyze
from graphprune.groups import Group
from graphprune.model import load
from graphprune.rules.blocked import why_blocked

WINDOW = "a convolution's window"

# network: {"kind size [statistic]": the parameter axes of that group}
PRUNABLE: dict[str, list[tuple[str, int, str, str]]] = {
    "cnn": [
        ("channels", 8, "", "stem.w:0 stem.b:0 stem.bn.scale:0 stem.bn.bias:0 stem.bn.mean:0 stem.bn.var:0 "
                            "a.w:1 b.w:0 b.b:0 fc.w:1"),
        ("channels", 6, "", "a.w:0 a.bn.scale:0 a.bn.bias:0 a.bn.mean:0 a.bn.var:0 b.w:1"),
    ],
    # The four channels behind the shortcut, and the six that only the padding meets.
    "option_a": [
        ("channels", 4, "", "stem.w:0 a.w:1 a.w:0 fc.w:1"),
        ("channels", 6, "", "a.w:0 fc.w:1"),
    ],
    "dense": [
        ("channels", 4, "", "stem.w:0 a.w:1 b.w:1 fc.w:1"),
        ("channels", 3, "", "a.w:0 b.w:1 fc.w:1"),
        ("channels", 5, "", "b.w:0 fc.w:1"),
    ],
    "depthwise_se": [
        ("channels", 4, "", "stem.w:0 expand.w:1 project.w:0 fc.w:1"),
        ("channels", 6, "", "expand.w:0 dw.w:0 dw.b:0 squeeze.w:1 excite.w:0 excite.b:0 project.w:1"),
        ("channels", 3, "", "squeeze.w:0 squeeze.b:0 excite.w:1"),
    ],
    "grouped": [
        ("conv_groups", 4, "", "stem.w:0 a.w:0 a.b:0 fc.w:1"),
        ("channels", 2, "", "stem.w:0 a.w:1"),
        ("channels", 3, "", "a.w:0 a.b:0 fc.w:1"),
    ],
    "flatten": [("channels", 4, "", "stem.w:0 stem.b:0 fc.w:0")],
    "mlp": [("channels", 10, "", "a.w:1 a.b:0 b.w:0"), ("channels", 8, "", "b.w:1 b.b:0 c.w:0")],
    "gated_mlp": [("channels", 7, "", "gate_up.w:1 down.w:0")],
    "attention": [
        ("heads", 3, "", "q.w:1 q.b:0 k.w:1 k.b:0 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "attention_fused_gather": [
        ("heads", 3, "", "qkv.w:1 qkv.b:0 o.w:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0 o.w:0"),
    ],
    "attention_fused_split": [
        ("heads", 3, "", "qkv.w:1 qkv.b:0 o.w:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0 o.w:0"),
    ],
    "grouped_query": [
        ("heads", 2, "", "q.w:1 q.b:0 k.w:1 v.w:1 o.w:0"),  # a key-value head takes its query heads along
        ("heads", 3, "", "q.w:1 q.b:0 o.w:0"),  # the same query head of every key-value head
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1"),
        ("head_dim", 4, "", "v.w:1 o.w:0"),
    ],
    "rotary": [
        ("heads", 3, "", "q.w:1 k.w:1 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 2, "", "q.w:1 k.w:1 cos:1 sin:1"),  # rotated pairs
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "tied_embedding": [
        ("channels", 8, "LayerNormalization", "table:1 up.w:0 down.w:1 norm.scale:0 norm.bias:0"),
        ("channels", 10, "", "up.w:1 down.w:0"),
    ],
    "group_norm": [
        ("channels", 3, "", "stem.w:0 stem.b:0 ones:0 zeros:0 scale:0 bias:0 head.w:1"),
        ("channels", 2, "InstanceNormalization", "stem.w:0 stem.b:0 scale:0 bias:0 head.w:1"),
        ("channels", 4, "", "head.w:0 fc.w:1"),
    ],
    "merged_constants": [
        ("channels", 8, "", "a.w:1 ones:0 tenths:0 b.w:0"),
        ("channels", 8, "", "b.w:1 ones:0 tenths:0 c.w:0"),
    ],
    "other_domain": [("channels", 8, "", "a.w:1 b.w:0"), ("channels", 10, "", "c.w:1 d.w:0")],
    "conditional": [("channels", 8, "", "a.w:1 b.w:0"), ("channels", 9, "", "b.w:1 c.w:0 d.w:0")],
}  # fmt: skip
PRUNABLE["shape_arithmetic"] = PRUNABLE["batch_times_heads"] = PRUNABLE["attention"]

# network: {parameter axis: what its reason says}
BLOCKED: dict[str, dict[str, str]] = {
    "cnn": {"stem.w:1": "model input 'x'", "a.w:2": WINDOW, "b.w:3": WINDOW, "fc.w:0": "model output 'y'"},
    "option_a": {"stem.w:1": "model input 'x'", "a.w:2": WINDOW, "fc.b:0": "model output 'y'"},
    "dense": {"stem.w:1": "model input 'x'", "b.w:2": WINDOW, "fc.w:0": "model output 'y'"},
    "depthwise_se": {"stem.w:1": "model input 'x'", "dw.w:2": WINDOW, "fc.w:0": "model output 'y'"},
    "grouped": {"stem.w:1": "model input 'x'", "a.w:3": WINDOW, "fc.w:0": "model output 'y'"},
    "flatten": {"stem.w:1": "model input 'x'", "fc.w:1": "model output 'y'"},
    "mlp": {"a.w:0": "model input 'x'", "c.w:1": "model output 'y'", "c.b:0": "model output 'y'"},
    "gated_mlp": {"gate_up.w:0": "model input 'x'", "down.w:1": "model output 'y'"},
    "attention": {"q.w:0": "model input 'x'", "k.w:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "attention_fused_gather": {"qkv.w:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "attention_fused_split": {"qkv.w:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "grouped_query": {"q.w:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "rotary": {"q.w:0": "model input 'x'", "cos:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "tied_embedding": {"table:0": "indexed by values known only at run time (Gather 'Gather_e')"},
    "group_norm": {"stem.w:1": "model input 'x'", "fc.w:0": "model output 'y'"},
    "shape_arithmetic": {"q.w:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "batch_times_heads": {"q.w:0": "model input 'x'", "o.w:1": "model output 'y'"},
    "merged_constants": {"a.w:0": "model input 'x'", "c.w:1": "model output 'y'"},
    "other_domain": {
        "a.w:0": "model input 'x'",
        "b.w:1": f"{why_blocked('com.microsoft', 'Trilu')} (Trilu 'Trilu_g')",
        "c.w:0": f"{why_blocked('com.microsoft', 'Trilu')} (Trilu 'Trilu_g')",
    },
    "conditional": {
        "a.w:0": "model input 'x'",
        "c.w:1": "model output 'y'",
        "d.w:1": "model output 'y'",
    },
}  # fmt: skip


def axes(group: Group) -> frozenset[str]:
    return frozenset(f"{m.name}:{m.axis}" for m in group.members)


def test_every_network_is_written_down() -> None:
    assert set(PRUNABLE) == set(BLOCKED) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_prunable_groups(name: str) -> None:
    found = {(g.kind, g.size, axes(g)): g for g in graph_of(name).groups if g.prunable and g.kind != "blocks"}
    expected = {(k, n, frozenset(members.split())): text for k, n, text, members in PRUNABLE[name]}
    assert set(found) == set(expected)
    for key, statistic in expected.items():
        group = found[key]
        assert group.exact == (not statistic)
        assert len(group.changes) == bool(statistic)
        assert all(statistic in change for change in group.changes)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocked_groups_say_why(name: str) -> None:
    blocked = [g for g in graph_of(name).groups if not g.prunable]
    assert all(g.reason for g in blocked)
    reasons = {axis: g.reason or "" for g in blocked for axis in axes(g)}
    for axis, text in BLOCKED[name].items():
        assert text in reasons[axis]


@pytest.mark.parametrize("name", NETWORKS)
def test_ids_are_unique_and_units_belong_to_one_group(name: str) -> None:
    groups = graph_of(name).groups
    assert len({g.id for g in groups}) == len(groups)
    units = np.concatenate([g.units for g in groups])
    assert len(set(units.tolist())) == len(units)
    assert all(g.members for g in groups)


def test_opset_version_does_not_matter_to_groups() -> None:
    """Split and Slice have attributes in old opsets, inputs in new ones."""
    signature = "(float[batch, 12] x) => (float[batch, 12] y)"
    old = build(
        signature,
        """h = MatMul (x, up.w) a, b = Split <axis = 1, split = [7, 7]> (h)
           m = Mul (a, b) s = Slice <axes = [1], starts = [0], ends = [7]> (m) y = MatMul (s, down.w)""",
        {"up.w": (12, 14), "down.w": (7, 12)},
        opset=9,
    )
    new = build(
        signature,
        """h = MatMul (x, up.w) a, b = Split <axis = 1, num_outputs = 2> (h)
           m = Mul (a, b) s = Slice (m, zero, seven, one) y = MatMul (s, down.w)""",
        {"up.w": (12, 14), "down.w": (7, 12), "zero": [0], "seven": [7], "one": [1]},
        opset=18,
    )
    found = [{axes(g) for g in analyze(load(m)).groups if g.prunable} for m in (old, new)]
    assert found[0] == found[1] == {frozenset({"up.w:1", "down.w:0"})}


def test_concatenating_a_tensor_with_itself_ties_both_halves() -> None:
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] y)",
        "h = MatMul (x, a.w) twice = Concat <axis = 1> (h, h) y = MatMul (twice, b.w)",
        {"a.w": (4, 6), "b.w": (12, 3)},
    )
    (group,) = [g for g in analyze(load(model)).groups if g.prunable]
    assert (group.size, axes(group)) == (6, {"a.w:1", "b.w:0"})


def test_a_weight_used_twice_is_tied_and_equal_vectors_are_not() -> None:
    """``w`` couples what it makes with what it reads; the bias is a copy for each layer."""
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] y)",
        """h = MatMul (x, in.w) a = MatMul (h, w) ab = Add (a, bias) ar = Relu (ab)
           b = MatMul (ar, w) bb = Add (b, bias) y = MatMul (bb, out.w)""",
        {"in.w": (4, 6), "w": (6, 6), "bias": np.full(6, 0.5, np.float32), "out.w": (6, 3)},
    )
    groups = [g for g in analyze(load(model)).groups if g.prunable and g.kind != "blocks"]
    assert [axes(g) for g in groups] == [{"in.w:1", "w:0", "w:1", "bias:0", "out.w:0"}]


def test_model_output_that_is_also_used_inside_is_kept() -> None:
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] y, float[batch, 6] h)",
        "a = MatMul (x, a.w) h = Relu (a) b = MatMul (h, b.w) br = Relu (b) y = MatMul (br, c.w)",
        {"a.w": (4, 6), "b.w": (6, 5), "c.w": (5, 3)},
    )
    groups = {axes(g): g.reason for g in analyze(load(model)).groups}
    assert groups[frozenset({"a.w:1", "b.w:0"})] == "model output 'h'"
    assert groups[frozenset({"b.w:1", "c.w:0"})] is None


def test_size_that_is_an_output_is_kept() -> None:
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] y, int64[2] s)",
        "a = MatMul (x, a.w) h = Relu (a) s = Shape (h) y = MatMul (h, b.w)",
        {"a.w": (4, 6), "b.w": (6, 3)},
    )
    assert not any(g.prunable for g in analyze(load(model)).groups)


def test_initializer_that_the_caller_may_replace_is_never_cut() -> None:
    """An initializer listed as an input is a default value: the caller may pass the full one."""
    model = build(
        "(float[batch, 4] x, float[6] b) => (float[batch, 3] y)",
        "a = MatMul (x, a.w) h = Add (a, b) y = MatMul (h, c.w)",
        {"a.w": (4, 6), "b": weight("b", (6,)), "c.w": (6, 3)},
    )
    onnx.checker.check_model(model)
    reasons = {axis: g.reason for g in analyze(load(model)).groups for axis in axes(g)}
    assert reasons["a.w:1"] == reasons["c.w:0"] == "model input 'b'"
