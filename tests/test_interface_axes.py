"""Model inputs and outputs are protected, unless the user allows them to shrink."""

from __future__ import annotations

import json
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Array, build, initializer, replace, run

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import PlanError, UsageError, ValidationError
from graphprune.graph import DependencyGraph, analyze
from graphprune.interface_axes import allowed_by
from graphprune.model import load
from graphprune.oracle import verify
from graphprune.plan import Plan
from graphprune.planner import make_plan, removed_units
from graphprune.report import inspect
from graphprune.rewrite import cut

CACHE = ["past_?", "present_?"]


def decoder() -> onnx.ModelProto:
    """One attention layer that continues a cache of keys and values: four heads of three."""
    return build(
        """(float[batch, time, 12] x, float[batch, 4, past, 3] past_k, float[batch, 4, past, 3] past_v) =>
          (float[batch, time, 12] y, float[batch, 4, all, 3] present_k, float[batch, 4, all, 3] present_v)""",
        """q = MatMul (x, q.w) q1 = Reshape (q, split) q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
           k = MatMul (x, k.w) k1 = Reshape (k, split) k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
           v = MatMul (x, v.w) v1 = Reshape (v, split) v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
           present_k = Concat <axis = 2> (past_k, k2)
           present_v = Concat <axis = 2> (past_v, v2)
           kt = Transpose <perm = [0, 1, 3, 2]> (present_k)
           s = MatMul (q2, kt) p = Softmax (s)
           a = MatMul (p, present_v) a1 = Transpose <perm = [0, 2, 1, 3]> (a) a2 = Reshape (a1, join)
           y = MatMul (a2, o.w)""",
        {
            "q.w": (12, 12), "k.w": (12, 12), "v.w": (12, 12), "o.w": (12, 12),
            "split": [0, 0, 4, 3], "join": [0, 0, 12],
        },
    )  # fmt: skip


def embedder() -> onnx.ModelProto:
    return build(
        "(float[batch, 3, 8, 8] image) => (float[batch, 10] embedding, float[batch, 5] score)",
        """c = Conv (image, c.w, c.b) r = Relu (c) g = GlobalAveragePool (r) f = Flatten (g)
           embedding = Gemm <transB = 1> (f, e.w, e.b) score = Gemm <transB = 1> (f, s.w)""",
        {"c.w": (8, 3, 1, 1), "c.b": (8,), "e.w": (10, 8), "e.b": (10,), "s.w": (5, 8)},
    )


def sizes(graph: DependencyGraph) -> dict[str, int]:
    return {g.id: g.size for g in graph.groups if g.prunable}


def removed_of(graph: DependencyGraph, name: str, units: list[int]) -> Array:
    removed = np.zeros(len(graph.analysis.algebra), bool)
    group = next(g for g in graph.groups if g.id == name)
    removed[group.units[units]] = True
    return removed


def shape_of(model: gp.Model, name: str) -> list[object]:
    values = [*model.ir.graph.inputs, *model.ir.graph.outputs]
    shape = next(v.shape for v in values if v.name == name)
    assert shape is not None
    return [d if isinstance(d, int) else d.value for d in shape]


def test_cache_protects_the_heads_by_default() -> None:
    graph = analyze(load(decoder()))
    assert sizes(graph) == {}
    reasons = {g.reason for g in graph.groups}
    assert {"model input 'past_k'", "model input 'past_v'"} <= reasons
    assert [end.open_axes for end in inspect(graph).interface] == [[]] * 6


def test_heads_and_their_dims_shrink_with_the_cache() -> None:
    graph = analyze(load(decoder()), allow_io=CACHE)
    assert sizes(graph) == {"q.w:1/heads": 4, "q.w:1/head_dim": 3, "v.w:1/head_dim": 3}
    opened = {end.name: end.open_axes for end in inspect(graph).interface if end.open_axes}
    assert opened == {name: [1, 3] for name in ("past_k", "past_v", "present_k", "present_v")}
    removed = removed_of(graph, "q.w:1/heads", [1]) | removed_of(graph, "v.w:1/head_dim", [0])
    pruned = cut(graph.analysis, removed)
    verdict = verify(graph.analysis, removed, pruned)
    assert verdict.exact
    assert shape_of(pruned, "past_k") == ["batch", 3, "past", 3]
    assert shape_of(pruned, "past_v") == ["batch", 3, "past", 2]
    assert shape_of(pruned, "present_v") == ["batch", 3, "all", 2]
    assert shape_of(pruned, "y") == ["batch", "time", 12]


def test_what_shrinks_is_the_original_fed_with_zeros() -> None:
    """By hand, without the oracle: heads 0, 2 and 3 of the cache, dims 1 and 2 of the values."""
    graph = analyze(load(decoder()), allow_io=CACHE)
    removed = removed_of(graph, "q.w:1/heads", [1]) | removed_of(graph, "v.w:1/head_dim", [0])
    pruned = cut(graph.analysis, removed).to_proto()
    rng = np.random.default_rng(0)
    x, k, v = (rng.standard_normal(s).astype(np.float32) for s in ((2, 5, 12), (2, 4, 7, 3), (2, 4, 7, 3)))
    k[:, 1] = v[:, 1] = v[..., 0] = 0
    masked = decoder()
    for name in ("q.w", "k.w", "v.w"):
        array = initializer(masked, name).copy()
        array[:, 3:6] = 0
        if name == "v.w":
            array[:, ::3] = 0
        replace(masked, name, array)
    heads, dims = [0, 2, 3], [1, 2]
    wanted = run(masked, {"x": x, "past_k": k, "past_v": v})
    found = run(pruned, {"x": x, "past_k": k[:, heads], "past_v": v[:, heads][..., dims]})
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1][:, heads], atol=1e-5)
    np.testing.assert_allclose(found[2], wanted[2][:, heads][..., dims], atol=1e-5)


def test_one_side_of_a_cache_protects_the_other() -> None:
    assert sizes(analyze(load(decoder()), allow_io=["past_?"])) == {}
    assert sizes(analyze(load(decoder()), allow_io=["past_?:1", "present_?:1"])) == {"q.w:1/heads": 4}
    assert sizes(analyze(load(decoder()), allow_io=["p*_v:-1"])) == {"v.w:1/head_dim": 3}


def test_embedding_may_shrink_and_the_oracle_compares_what_is_left() -> None:
    assert sizes(analyze(load(embedder()))) == {"c.w:0": 8}
    graph = analyze(load(embedder()), allow_io=["embedding"])
    assert sizes(graph) == {"c.w:0": 8, "e.w:0": 10}
    removed = removed_of(graph, "e.w:0", [2, 5]) | removed_of(graph, "c.w:0", [0])
    right = cut(graph.analysis, removed)
    verify(graph.analysis, removed, right)
    assert shape_of(right, "embedding") == ["batch", 8]
    wrong = right.to_proto()
    replace(wrong, "e.b", np.roll(initializer(wrong, "e.b"), 1))
    with pytest.raises(ValidationError, match="differs"):
        verify(graph.analysis, removed, load(wrong))


def test_statistic_over_an_output() -> None:
    """The oracle's node on kept positions makes an output of the whole size again."""
    model = build(
        "(float[batch, 6] x) => (float[batch, 10] y)",
        "a = MatMul (x, a.w) y = Softmax (a)",
        {"a.w": (6, 10)},
    )
    graph = analyze(load(model), allow_io=["y"])
    removed = removed_of(graph, "a.w:1", [0, 7])
    assert not verify(graph.analysis, removed, cut(graph.analysis, removed)).exact


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ("cache*", "'cache*' matches no input or output"),
        ("past_k:2", "axis 2 of 'past_k' can't be allowed"),
        ("past_k:0", "axis 0 of 'past_k' can't be allowed"),
        ("past_k:4", "axis 4 of 'past_k' can't be allowed"),
        ("past_k:-5", "axis -5 of 'past_k' can't be allowed"),
    ],
)
def test_wrong_items_are_named(item: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        analyze(load(decoder()), allow_io=[item])
    assert what in str(caught.value)
    with pytest.raises(UsageError, match="is a list of globs"):
        analyze(load(decoder()), allow_io="past_k")


def test_first_axis_and_names_with_colons() -> None:
    model = build(
        "(float[4, 6] x) => (float[4, 3] y)",
        "a = Mul (x, s) y = MatMul (a, b.w)",
        {"s": (4, 6), "b.w": (6, 3)},
    )
    model.graph.input[0].name = model.graph.node[0].input[0] = "x:0"
    graph = analyze(load(model), allow_io=["x:0", "y"])
    assert graph.analysis.open_axes == {"x:0": {1}, "y": {1}}
    both = analyze(load(model), allow_io=["x:0:0,1", "y:0"])
    assert both.analysis.open_axes == {"x:0": {0, 1}, "y": {0}}
    removed = removed_of(both, "s:0", [1]) | removed_of(both, "s:1", [2])
    plan = make_plan(both, removed, {})
    assert allowed_by(plan) == ["x:0:0", "x:0:1", "y:0"]
    again = gp.apply(model, plan)
    assert shape_of(again, "x:0") == [3, 5]


# ---- the plan -----------------------------------------------------------------------------------


def test_plan_carries_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    result = gp.prune(
        decoder(),
        tmp_path / "o.onnx",
        target={"params": 0.6},
        criterion="l2",
        allow_io=CACHE,
        floor=0.0,
        plan_out=path,
    )
    entries = json.loads(path.read_text())["interface"]
    assert {(e["name"], e["kind"]) for e in entries} >= {("past_v", "input"), ("present_v", "output")}
    assert all(0 < len(e["keep"]) < e["size"] for e in entries)
    again = gp.apply(decoder(), Plan.load(path))
    assert again.to_proto() == result.model.to_proto()
    with pytest.raises(PlanError, match="which is protected"):
        gp.apply(analyze(load(decoder())), Plan.load(path))


def test_plan_whose_interface_was_changed_is_refused() -> None:
    graph = analyze(load(decoder()), allow_io=CACHE)
    plan = make_plan(graph, removed_of(graph, "q.w:1/heads", [1]), {})
    assert [(e.name, e.axis, e.keep) for e in plan.interface] == [
        (name, 1, [0, 2, 3]) for name in ("past_k", "past_v", "present_k", "present_v")
    ]
    wrong = changed(plan, interface=[changed(plan.interface[0], keep=[0, 1, 2]), *plan.interface[1:]])
    with pytest.raises(PlanError, match="does not fit axis 1 of the input 'past_k'"):
        removed_units(graph, wrong)
    with pytest.raises(PlanError, match="does not fit axis 1 of the input 'past_k'"):
        removed_units(graph, changed(plan, interface=plan.interface[1:]))


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "past_k", "kind": "input", "axis": 1, "size": 4, "keep": []},
        {"name": "past_k", "kind": "input", "axis": 1, "size": 4, "keep": [4]},
        {"name": "past_k", "kind": "inward", "axis": 1, "size": 4, "keep": [0]},
        {"name": "past_k", "kind": "input", "axis": "1", "size": 4, "keep": [0]},
        {"name": "past_k"},
    ],
)
def test_malformed_interface_is_refused(entry: dict[str, Any]) -> None:
    graph = analyze(load(embedder()))
    document = make_plan(graph, np.zeros(len(graph.analysis.algebra), bool), {}).to_json()
    assert Plan.from_json(document).interface == []
    with pytest.raises(PlanError):
        Plan.from_json({**document, "interface": [entry]})


# ---- commands -----------------------------------------------------------------------------------


def test_check_of_other_signatures_says_so() -> None:
    graph = analyze(load(decoder()), allow_io=CACHE)
    pruned = cut(graph.analysis, removed_of(graph, "q.w:1/heads", [1]))
    with pytest.raises(
        ValidationError, match="the models have different signatures: input 'past_k'"
    ) as caught:
        gp.check(decoder(), pruned)
    assert "float[batch, 4, past, 3] and float[batch, 3, past, 3]" in caught.value.what
    with pytest.raises(ValidationError, match="input 'image' is in one of them only"):
        gp.check(embedder(), pruned)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, plan = tmp_path / "m.onnx", tmp_path / "o.onnx", tmp_path / "p.json"
    onnx.save(decoder(), model)

    def graphprune(*arguments: object) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, arguments)])
        assert not exit_.value.code
        return capsys.readouterr().out

    allow = ("--allow-io", "past_*", "--allow-io", "present_*")
    text = graphprune("inspect", model)
    assert text.count("no, protected (--allow-io)") == 6
    text = graphprune("inspect", model, *allow)
    assert text.count("no, protected (--allow-io)") == 2
    assert text.count("axes 1, 3") == 4
    found = json.loads(graphprune("inspect", model, *allow, "--json"))
    assert found["interface"][1] == {
        "name": "past_k", "kind": "input", "shape": ["batch", 4, "past", 3], "open_axes": [1, 3]
    }  # fmt: skip
    assert "model output" not in graphprune("explain", model, "present_k:1", *allow)
    text = graphprune(
        "prune",
        model,
        out,
        "--target",
        "params=60%",
        "--criterion",
        "l2",
        "--floor",
        0,
        *allow,
        "--plan-out",
        plan,
    )
    assert "new signature: input 'past_k', axis 1:" in text
    found = json.loads(graphprune("apply", plan, model, tmp_path / "o2.onnx", "--json"))
    assert found["interface"]
    assert out.read_bytes() == (tmp_path / "o2.onnx").read_bytes()
