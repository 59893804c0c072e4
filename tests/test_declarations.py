"""Operators that a user describes: read, refused with the place, analysed, cut and verified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Array, build, initializer, replace

import graphprune as gp
from graphprune.cli import main
from graphprune.declaration_text import SizeError, Tensor, parse_text, solve_sizes
from graphprune.declarations import read_declarations
from graphprune.errors import UsageError, ValidationError
from graphprune.graph import DependencyGraph, analyze
from graphprune.model import load
from graphprune.oracle import verify
from graphprune.plan import Plan
from graphprune.rewrite import cut

SCALE = {"com.example.Scale": {"axes": "... c, c -> ... c", "zero": "any"}}
HEADS: dict[str, Any] = {
    "com.example.Mixer": {
        "axes": "b t (h d), b t (h d) -> b t (h d)",
        "statistic": ["t"],
        "attributes": {"num_heads": "h"},
        "zero": "any",
    }
}


def scaled() -> onnx.ModelProto:
    """Two custom operators in a row, of which the file says nothing."""
    return build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        """a = MatMul (x, a.w) g = com.example.Scale (a, s.w) h = com.example.Scale (g, t.w)
           y = MatMul (h, b.w)""",
        {"a.w": (6, 8), "s.w": (8,), "t.w": (8,), "b.w": (8, 3)},
        domains={"com.example": 1},
    )


def mixed() -> onnx.ModelProto:
    return build(
        "(float[batch, time, 6] x) => (float[batch, time, 3] y)",
        """q = MatMul (x, q.w) k = MatMul (x, k.w) m = com.example.Mixer <num_heads = 4> (q, k)
           y = MatMul (m, o.w)""",
        {"q.w": (6, 12), "k.w": (6, 12), "o.w": (12, 3)},
        domains={"com.example": 1},
    )


def removed_of(graph: DependencyGraph, count: int = 1) -> Array:
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable:
            removed[group.units[:count]] = True
    return removed


# ---- the text -----------------------------------------------------------------------------------


def test_text_is_read() -> None:
    text = parse_text("...c (h d), [c!],_ ->... (h d) 1")
    assert text.inputs == (
        Tensor((("c",), ("h", "d")), leading=True),
        Tensor((("c",),), is_optional=True),
        Tensor(is_described=False),
    )
    assert text.outputs == (Tensor((("h", "d"), ()), leading=True),)
    assert text.frozen == {"c"}


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("b c", "there is not exactly one '->'"),
        ("b c -> b c -> b", "there is not exactly one '->'"),
        ("b c, -> b c", "an empty group"),
        ("b (c d -> b", "'(' without ')'"),
        ("b c) -> b", "unexpected ')'"),
        ("b (c c) -> b", "'c' twice in one product"),
        ("b [c] -> b", "unexpected '['"),
        ("[b -> b", "'[' without ']'"),
        ("b -> [b]", "brackets around an output"),
        ("b -> ... b", "no input has the leading axes '...' of an output"),
        ("b ... -> b", "unexpected '...'"),
        ("b 2 -> b", "unexpected '2'"),
        ("b () -> b", "unexpected ')'"),
    ],
)
def test_wrong_text_is_named(text: str, because: str) -> None:
    with pytest.raises(UsageError, match=r"cannot use the declaration of 'com\.example\.Op'") as caught:
        read_declarations({"com.example.Op": text})
    assert because in (caught.value.because or "")
    assert repr(text) in (caught.value.because or "")


@pytest.mark.parametrize(
    ("keys", "because"),
    [
        ({"axe": "b -> b"}, "no text under 'axes'"),
        ({"axes": "b -> b", "zeros": True}, "unknown key 'zeros'"),
        ({"axes": "b -> b", "zero": "first"}, "'zero' is 'first'"),
        ({"axes": "b -> b", "zero": 1}, "'zero' is 1"),
        ({"axes": "b -> b c", "statistic": ["c"]}, "'statistic' names 'c', which is no axis of any input"),
        ({"axes": "b -> b", "statistic": "b"}, "'statistic' is no list of names"),
        ({"axes": "b -> b", "repeated": ["b"]}, "'repeated' names 'b', which is no axis of an output alone"),
        ({"axes": "b -> b", "attributes": {"n": "h"}}, "attribute 'n' follows 'h'"),
        ({"axes": "b -> b", "attributes": ["b"]}, "'attributes' is no table"),
        ({"axes": "b -> b", "override": "yes"}, "'override' is neither true nor false"),
    ],
)
def test_wrong_keys_are_named(keys: Mapping[str, Any], because: str) -> None:
    with pytest.raises(UsageError, match="cannot use the declaration") as caught:
        read_declarations({"com.example.Op": keys})
    assert because in (caught.value.because or "")


def test_operator_with_a_rule_needs_override() -> None:
    with pytest.raises(UsageError, match="'Relu'") as caught:
        read_declarations({"Relu": "... -> ..."})
    assert caught.value.hint == "override = true"
    assert ("", "Relu") in read_declarations({"ai.onnx.Relu": {"axes": "... -> ...", "override": True}}).table


def test_one_operator_is_declared_once() -> None:
    with pytest.raises(UsageError, match=r"declaration of 'com\.example::Op'"):
        read_declarations({"com.example.Op": "b -> b", "com.example::Op": "b -> b"})


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("com.example.Op = 'b -> b'", "no text under 'axes'"),  # without quotes: nested tables
        ("'com.example.Op' = ", "Invalid value"),
        ("'com.example.Op' = 3", "no text under 'axes'"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, text: str, because: str) -> None:
    path = tmp_path / "ops.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_declarations(path)
    assert because in (caught.value.because or "")
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="cannot read the declarations"):
        read_declarations(tmp_path / "none.toml")


def test_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "declarations.md").read_text(encoding="utf-8")
    path = tmp_path / "ops.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    table = read_declarations(path).table
    assert set(table) == {("com.example", "Scale"), ("com.example", "WindowAttention")}
    assert table["com.example", "WindowAttention"].attributes == {"num_heads": ("h",)}


def test_sizes_are_solved_or_refused() -> None:
    assert solve_sizes([(("h", "d"), 12), (("d",), 4)]) == {"d": 4, "h": 3}
    with pytest.raises(SizeError, match="can't be told from their product 12"):
        solve_sizes([(("h", "d"), 12)])
    with pytest.raises(SizeError, match="'c' is 5 here and 4 elsewhere"):
        solve_sizes([(("c",), 4), (("c",), 5)])
    with pytest.raises(SizeError, match="'h d' is 12"):
        solve_sizes([(("h", "d"), 12), (("d",), 5)])


# ---- models -------------------------------------------------------------------------------------


def test_without_a_declaration_nothing_around_the_operator_goes() -> None:
    assert not any(g.prunable for g in analyze(load(scaled())).groups)


def test_declared_operators_couple_and_give_shapes() -> None:
    graph = analyze(load(scaled()), declarations=SCALE)
    (group,) = [g for g in graph.groups if g.prunable]
    assert {(m.name, m.axis) for m in group.members} == {("a.w", 1), ("s.w", 0), ("t.w", 0), ("b.w", 0)}
    assert group.exact
    assert not [op for op in gp.report.inspect(graph).ops if not op.rule]


@pytest.mark.parametrize(("zero", "is_exact"), [("any", True), (True, False), (False, False)])
def test_a_sum_is_exact_if_zeros_add_nothing(zero: object, is_exact: bool) -> None:
    """The sigmoid's results are not zero where a channel is removed, the weight's rows are."""
    model = build(
        "(float[batch, 6] x) => (float[batch, 3] y)",
        "a = MatMul (x, a.w) s = Sigmoid (a) y = com.example.Project (s, b.w)",
        {"a.w": (6, 8), "b.w": (8, 3)},
        domains={"com.example": 1},
    )
    declared = {"com.example.Project": {"axes": "b k, k n -> b n", "zero": zero}}
    (group,) = [g for g in analyze(load(model), declarations=declared).groups if g.prunable]
    assert group.exact == is_exact


def test_declared_axes_that_do_not_fit_block_with_the_reason() -> None:
    graph = analyze(load(scaled()), declarations={"com.example.Scale": "a b c, c -> a b c"})
    reasons = {g.reason or "" for g in graph.groups}
    assert any(
        "it does not fit its declaration: a tensor has 2 axes, and its declaration 3" in r for r in reasons
    )


@pytest.mark.parametrize("name", ["a.w", "b.w"])
def test_pieces_before_and_behind_a_cut_operator_are_compared(name: str) -> None:
    graph = analyze(load(scaled()), declarations=SCALE)
    removed = removed_of(graph, 3)
    right = cut(graph.analysis, removed)
    verdict = verify(graph.analysis, removed, right)
    assert verdict.exact
    assert len(verdict.not_run) == 2
    wrong = right.to_proto()
    axis = {"a.w": 1, "b.w": 0}[name]
    replace(wrong, name, np.roll(initializer(wrong, name), 1, axis=axis))
    with pytest.raises(ValidationError, match="differs"):
        verify(graph.analysis, removed, load(wrong))


def test_attribute_follows_its_name() -> None:
    graph = analyze(load(mixed()), declarations=HEADS)
    kinds = {g.id: g.size for g in graph.groups if g.prunable}
    assert sorted(kinds.values()) == [3, 4]
    removed = np.zeros(len(graph.analysis.algebra), bool)
    heads = next(g for g in graph.groups if g.prunable and g.size == 4)
    removed[heads.units[[1, 3]]] = True
    pruned = cut(graph.analysis, removed)
    (node,) = [n for n in pruned.ir.graph if n.op_type == "Mixer"]
    assert node.attributes["num_heads"].as_int() == 2
    kept = [0, 1, 2, 6, 7, 8]
    for name in ("q.w", "k.w"):
        assert np.array_equal(initializer(pruned.to_proto(), name), initializer(mixed(), name)[:, kept])
    dims = [n for g in graph.groups if g.prunable and g.size == 3 for n in g.units[:1]]
    removed[dims] = True
    (node,) = [n for n in cut(graph.analysis, removed).ir.graph if n.op_type == "Mixer"]
    assert node.attributes["num_heads"].as_int() == 2


def test_attribute_that_contradicts_the_shapes_blocks() -> None:
    model = mixed()
    model.graph.node[2].attribute[0].i = 5
    reasons = {g.reason or "" for g in analyze(load(model), declarations=HEADS).groups}
    assert any("it does not fit its declaration" in reason for reason in reasons)


def test_marked_axes_stay_and_repeated_ones_go() -> None:
    body = """a = MatMul (x, a.w) g = com.example.Tile <n = 5> (a) h = Mul (g, s.w)
              s = ReduceSum <keepdims = 0> (h, axes) y = MatMul (s, b.w)"""
    weights = {"a.w": (6, 8), "s.w": (5, 8), "axes": [1], "b.w": (8, 3)}
    model = build("(float[batch, 6] x) => (float[batch, 3] y)", body, weights, domains={"com.example": 1})

    def prunable(**keys: Any) -> set[tuple[str, int]]:
        text = {"axes": "b c -> b n c", "attributes": {"n": "n"}, "zero": True, **keys}
        groups = analyze(load(model), declarations={"com.example.Tile": text}).groups
        return {(m.name, m.axis) for g in groups if g.prunable for m in g.members}

    assert prunable() == {("a.w", 1), ("s.w", 1), ("b.w", 0)}
    assert prunable(repeated=["n"]) == {("a.w", 1), ("s.w", 1), ("b.w", 0), ("s.w", 0)}
    assert prunable(axes="b c! -> b n c") == set()


def test_plan_carries_its_declarations(tmp_path: Path) -> None:
    plan_path = tmp_path / "plan.json"
    result = gp.prune(
        scaled(),
        tmp_path / "o.onnx",
        target={"params": 0.6},
        criterion="l2",
        declarations=SCALE,
        plan_out=plan_path,
    )
    assert result.verdict is not None
    again = gp.apply(scaled(), Plan.load(plan_path))
    assert again.to_proto() == result.model.to_proto()


def test_declarations_come_with_the_analysis() -> None:
    graph = analyze(load(scaled()), declarations=SCALE)
    with pytest.raises(UsageError, match="come too late for a dependency graph"):
        gp.plan(graph, target={"params": 0.6}, criterion="l2", declarations=SCALE)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, ops = tmp_path / "m.onnx", tmp_path / "ops.toml"
    onnx.save(scaled(), model)
    ops.write_text('["com.example.Scale"]\naxes = "... c, c -> ... c"\nzero = "any"\n', encoding="utf-8")

    def run(*arguments: object) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, arguments), "--json"])
        out = capsys.readouterr().out
        return int(exit_.value.code or 0), json.loads(out) if out else None

    code, found = run("inspect", model, "--declare", ops)
    assert code == 0
    assert [g["id"] for g in found["groups"] if g["prunable"]] == ["a.w:1"]
    assert run("explain", model, "a.w:1", "--declare", ops)[1]["reasons"] == []
    plan = tmp_path / "p.json"
    arguments = ("--target", "params=60%", "--declare", ops, "--plan-out", plan)
    assert run("prune", model, tmp_path / "o.onnx", *arguments)[0] == 0
    assert run("apply", plan, model, tmp_path / "o2.onnx")[0] == 0
    assert (tmp_path / "o.onnx").read_bytes() == (tmp_path / "o2.onnx").read_bytes()
    assert run("inspect", model, "--declare", tmp_path / "none.toml")[0] == 2
