"""Which groups are found in hard structures, and that each of them can go."""

from __future__ import annotations

from functools import cache

import more_structures as more_structures
import numpy as np
import pytest
from structures import STRUCTURES

import graphprune as gp
from graphprune.check import validate
from graphprune.graph import DependencyGraph
from graphprune.groups import Group
from graphprune.oracle import verify
from graphprune.rewrite import cut

# structure: (kind, size, operators whose statistic changes, the parameter axes of that group)
PRUNABLE: dict[str, list[tuple[str, int, str, str]]] = {
    "qkv_by_slice": [
        ("heads", 3, "", "qkv.w:1 qkv.b:0 o.w:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0 o.w:0"),
    ],
    "qkv_interleaved": [
        ("heads", 3, "", "qkv.w:1 qkv.b:0 o.w:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0"),
        ("head_dim", 4, "", "qkv.w:1 qkv.b:0 o.w:0"),
    ],
    "qkv_by_split_of_a_stack": [
        ("heads", 3, "", "qkv.w:1 o.w:0"),
        ("head_dim", 4, "", "qkv.w:1 o.w:0"),
    ],
    "rotary_interleaved": [
        ("heads", 3, "", "q.w:1 k.w:1 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 2, "", "q.w:1 cos:1 sin:1 k.w:1"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "rotary_from_positions": [
        ("head_dim", 2, "", "frequencies:0 q.w:1 k.w:1"),
        ("heads", 3, "", "q.w:1 k.w:1 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "multi_query": [
        ("heads", 3, "", "q.w:1 q.b:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1"),
        ("head_dim", 4, "", "v.w:1 o.w:0"),
    ],
    "multi_query_by_broadcast": [
        ("heads", 3, "", "q.w:1 q.b:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1"),
        ("head_dim", 4, "", "v.w:1 o.w:0"),
    ],
    "grouped_query_at_run_time": [
        ("heads", 2, "", "q.w:1 q.b:0 k.w:1 v.w:1 o.w:0"),
        ("heads", 3, "", "q.w:1 q.b:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1"),
        ("head_dim", 4, "", "v.w:1 o.w:0"),
    ],
    "bias_table": [
        ("heads", 3, "", "q.w:1 q.b:0 k.w:1 k.b:0 v.w:1 v.b:0 u:1 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "bias_of_buckets": [
        ("heads", 3, "", "q.w:1 q.b:0 k.w:1 k.b:0 v.w:1 v.b:0 table:1 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "bias_of_slopes": [
        ("heads", 3, "", "q.w:1 q.b:0 k.w:1 k.b:0 v.w:1 v.b:0 slopes:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "shifted_windows": [
        ("channels", 10, "", "in.w:1 q.w:0 k.w:0 v.w:0 o.w:1 out.w:0"),
        ("heads", 3, "", "q.w:1 k.w:1 v.w:1 o.w:0"),
        ("head_dim", 4, "", "q.w:1 k.w:1"),
        ("head_dim", 4, "", "v.w:1 o.w:0"),
    ],
    "patch_merging": [
        ("channels", 6, "LayerNormalization", "in.w:1 scale:0 bias:0 reduce.w:0"),
        ("channels", 8, "", "reduce.w:1 out.w:0"),
    ],
    "gate_up_by_slice": [
        ("channels", 7, "", "gate_up.w:1 down.w:0"),
    ],
    "gate_up_in_pairs": [
        ("channels", 7, "", "gate_up.w:1 down.w:0"),
    ],
    "broadcast_parameters": [
        ("channels", 8, "", "a.w:1 slope:0 token:2 position:2 b.w:0 c.w:1 layer_scale:0 d.w:0"),
        ("channels", 9, "", "b.w:1 c.w:0"),
    ],
    "weight_norm": [
        ("channels", 6, "", "w:0 b:0 fc.w:1"),
    ],
    "weight_norm_of_integers": [
        ("channels", 6, "", "numbers:0 gain:0 b:0 fc.w:1"),
    ],
    "shared_layer": [
        ("channels", 8, "", "in.w:1 up.w:0 down.w:1 out.w:0"),
        ("channels", 10, "", "up.w:1 up.b:0 down.w:0"),
    ],
    "tied_head_through_transpose": [
        ("channels", 8, "LayerNormalization", "table:1 up.w:0 down.w:1 scale:0 bias:0"),
        ("channels", 10, "", "up.w:1 down.w:0"),
    ],
    "batch_and_heads_at_run_time": [
        ("heads", 3, "", "q.w:1 q.b:0 k.w:1 k.b:0 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 q.b:0 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "unet": [
        ("channels", 4, "", "a.w:0 a.b:0 b.w:1 c.w:1"),
        ("channels", 6, "", "b.w:0 up.w:0 d.w:1"),
        ("channels", 5, "", "up.w:1 up.b:0 c.w:1"),
        ("channels", 7, "", "c.w:0 d.w:1"),
    ],
    "pixels_to_channels": [
        ("channels", 5, "", "a.w:0 a.b:0 b.w:1"),
        ("channels", 6, "", "b.w:0 c.w:1"),
    ],
    "mixer": [
        ("channels", 8, "", "in.w:1 channels.up:0 channels.down:1 out.w:0"),
        ("channels", 5, "", "tokens.up:1 tokens.down:0"),
        ("channels", 9, "", "channels.up:1 channels.down:0"),
    ],
    "channel_attention_over_groups": [
        ("channels", 6, "", "a.w:0 b.w:0 down.w:1 up.w:0 fc.w:1"),
        ("channels", 4, "", "down.w:0 up.w:1"),
    ],
    "linear_attention": [
        ("heads", 3, "", "q.w:1 q.b:0 k.w:1 k.b:0 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 4, "MatMul Softmax", "q.w:1 q.b:0 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "query_key_norm": [
        ("heads", 3, "", "q.w:1 k.w:1 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 4, "ReduceMean", "q.w:1 q.scale:0 k.w:1 k.scale:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "hierarchical_split": [
        ("channels", 4, "", "stem.w:0 e.w:1"),
        ("channels", 4, "", "stem.w:0 b.w:1"),
        ("channels", 4, "", "stem.w:0 b.w:0 c.w:1 e.w:1"),
        ("channels", 4, "", "stem.w:0 c.w:0 d.w:1 e.w:1"),
        ("channels", 4, "", "d.w:0 e.w:1"),
        ("channels", 6, "", "e.w:0 fc.w:1"),
    ],
    "partial_stage": [
        ("channels", 4, "", "stem.w:0 fc.w:1"),
        ("channels", 4, "", "stem.w:0 a.w:1 b.w:0 fc.w:1"),
        ("channels", 5, "", "a.w:0 b.w:1"),
    ],
    "conditioned": [
        ("channels", 8, "LayerNormalization", "in.w:1 mod.w:1 mod.b:0 ones:0 up.w:0 down.w:1 out.w:0"),
        ("channels", 9, "", "up.w:1 down.w:0"),
    ],
    "response_norm": [
        ("channels", 8, "ReduceMean", "stem.w:0 gamma:0 beta:0 fc.w:1"),
    ],
    "spatial_attention": [
        ("channels", 8, "ReduceMax ReduceMean", "stem.w:0 fc.w:1"),
    ],
    "weighed_sum": [
        ("channels", 6, "", "a.w:0 b.w:0 fc.w:1"),
    ],
    "latent_queries": [
        ("head_dim", 4, "", "latents:1"),
        ("channels", 10, "", "latents:2 q.w:0 o.w:1 head.w:0"),
        ("heads", 3, "", "q.w:1 k.w:1 k.b:0 v.w:1 v.b:0 o.w:0"),
        ("head_dim", 4, "", "q.w:1 k.w:1 k.b:0"),
        ("head_dim", 4, "", "v.w:1 v.b:0 o.w:0"),
    ],
    "convolution_module": [
        ("channels", 8, "", "a.w:0 a.b:0 dw.w:0 dw.b:0 bn.scale:0 bn.bias:0 bn.mean:0 bn.var:0 o.w:1"),
    ],
    "heads_shared_by_layers": [
        ("heads", 3, "", "table:1 q0.w:1 k0.w:1 v0.w:1 o0.w:0 q1.w:1 k1.w:1 v1.w:1 o1.w:0"),
        ("head_dim", 4, "", "q0.w:1 k0.w:1"),
        ("head_dim", 4, "", "v0.w:1 o0.w:0"),
        ("head_dim", 4, "", "q1.w:1 k1.w:1"),
        ("head_dim", 4, "", "v1.w:1 o1.w:0"),
    ],
    "three_embeddings": [
        ("channels", 8, "LayerNormalization", "words:1 segments:1 b:2 scale:0 bias:0 up.w:0"),
        ("channels", 6, "", "up.w:1 out.w:0"),
    ],
    "several_scales": [
        ("channels", 4, "", "a.w:0 b.w:1 up.w:0 down.w:1 c.w:1"),
        ("channels", 6, "", "b.w:0 up.w:1 down.w:0 d.w:1"),
    ],
    "repeated_channels": [
        ("channels", 4, "", "stem.w:0 a.w:1 fc.w:1"),
        ("channels", 6, "", "a.w:0 fc.w:1"),
        ("channels", 3, "", "a.w:1"),
    ],
    "outer_product": [
        ("channels", 4, "", "a.w:1 out.w:0"),
        ("channels", 5, "", "b.w:1 out.w:0"),
    ],
}  # fmt: skip

KINDS = ["channels", "heads", "head_dim", "conv_groups"]

# Structures with so much work before the first prunable axis that they can't be made that small.
LEAST = {"spatial_attention": 0.5}


@cache
def graph_of(name: str) -> DependencyGraph:
    """Shared, since nobody may change it."""
    return gp.analyze(gp.load(STRUCTURES[name]()))


def widths(graph: DependencyGraph) -> list[Group]:
    """Prunable groups but whole blocks."""
    return [group for group in graph.groups if group.prunable and group.kind in KINDS]


def describe(group: Group) -> tuple[str, int, str, frozenset[str]]:
    changes = " ".join(sorted({text.split("(")[-1].split(" ")[0] for text in group.changes}))
    return group.kind, group.size, changes, frozenset(f"{m.name}:{m.axis}" for m in group.members)


def test_every_structure_is_written_down() -> None:
    assert set(PRUNABLE) == set(STRUCTURES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_groups(name: str) -> None:
    found = sorted(describe(group) for group in widths(graph_of(name)))
    expected = sorted((k, n, text, frozenset(members.split())) for k, n, text, members in PRUNABLE[name])
    assert found == expected


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_blocked_group_says_why(name: str) -> None:
    for group in graph_of(name).groups:
        assert group.prunable or "no reason" not in str(group.reason)


@pytest.mark.parametrize("name", STRUCTURES)
def test_pruned_and_verified(name: str) -> None:
    target = LEAST.get(name, 0.6)
    result = gp.prune(STRUCTURES[name](), target={"macs": target}, criterion="l2", kinds=KINDS)
    assert result.after.ratio(result.before)["macs"] <= target
    assert result.verdict is not None
    assert result.verdict.scale > 0


@pytest.mark.parametrize("name", STRUCTURES)
def test_one_unit_of_each_group_is_enough(name: str) -> None:
    graph = graph_of(name)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in widths(graph):
        removed[group.units[:-1]] = True
    pruned = cut(graph.analysis, removed)
    validate(pruned)
    verify(graph.analysis, removed, pruned)


@pytest.mark.parametrize("name", STRUCTURES)
def test_each_group_alone(name: str) -> None:
    """Every other unit of one group goes, so that what stays is not in one piece."""
    graph = graph_of(name)
    for group in widths(graph):
        removed = np.zeros(len(graph.analysis.algebra), bool)
        removed[group.units[::2]] = True
        removed[group.units[-1]] = False
        pruned = cut(graph.analysis, removed)
        validate(pruned)
        verdict = verify(graph.analysis, removed, pruned)
        assert verdict.exact == group.exact
