"""Graphs that no exporter writes: each is refused in one paragraph, or pruned around."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import seed_models
from networks import NETWORKS, initializer, replace
from onnx import TensorProto, helper

import graphprune as gp
from graphprune.cli import main
from graphprune.storage import function_sizes, wire

PRUNE = ("--target", "macs=60%", "--criterion", "l2")


def refused(refusal: Callable[..., str], tmp_path: Path, model: onnx.ModelProto | bytes) -> str:
    path, out = tmp_path / "m.onnx", tmp_path / "o.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    error = refusal("prune", path, out, *PRUNE)
    assert refusal("inspect", path).splitlines()[0] == error.splitlines()[0]
    assert not out.exists()
    return error


def test_a_cycle_within_a_body(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = seed_models.built("nested")
    body = model.graph.node[-1].attribute[0].g
    body.node.append(helper.make_node("Add", ["loop2", "loop2"], ["loop1"]))
    body.node.append(helper.make_node("Relu", ["loop1"], ["loop2"]))
    assert "cycle" in refused(refusal, tmp_path, model)


def test_a_cycle_through_a_body(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = seed_models.built("nested")
    name = model.graph.node[-1].output[0]
    inner = model.graph.node[-1].attribute[0].g
    inner.node[0].input[0] = name
    refused(refusal, tmp_path, model)


def test_a_node_that_reads_itself(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["mlp"]()
    model.graph.node[1].input[0] = model.graph.node[1].output[0]
    assert "cycle" in refused(refusal, tmp_path, model)


def test_a_function_that_calls_itself(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = seed_models.built("function")
    model.functions[0].node[0].op_type, model.functions[0].node[0].domain = "Squash", "local"
    model.functions[0].opset_import.append(helper.make_opsetid("local", 1))
    refused(refusal, tmp_path, model)


def test_functions_that_grow_exponentially(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each calls the one before twice: 2^60 nodes when they are all written out."""
    model = seed_models.built("function")
    for level in range(60):
        name = "Squash" if level == 0 else f"F{level}"
        nodes = [
            helper.make_node(name, ["a"], ["t"], domain="local"),
            helper.make_node(name, ["t"], ["b"], domain="local"),
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", f"F{level + 1}", ["a"], ["b"], nodes, opsets))
    for node in model.graph.node:
        if node.domain == "local":
            node.op_type = "F60"
    assert "too many nodes" in refused(refusal, tmp_path, model)


def test_a_large_model_with_functions_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many nodes as it stores, whatever their number, are not what its functions have made of it."""
    monkeypatch.setattr(function_sizes, "MOST_NODES", 2)
    path = tmp_path / "m.onnx"
    onnx.save(seed_models.built("function"), path)
    assert len(list(gp.load(path).ir.graph)) > 2


@pytest.mark.parametrize("depth", [10, 40, 2000])
def test_bodies_nested_deeply(refusal, tmp_path: Path, depth: int) -> None:  # type: ignore[no-untyped-def]
    """protobuf reads no more than 100 messages within each other."""
    path = tmp_path / "m.onnx"
    path.write_bytes(nested_bytes(depth))
    refusal("inspect", path)


def nested_bytes(depth: int) -> bytes:
    """A model whose Ifs are nested, made of bytes: the library would not write it."""
    body = b""
    for _ in range(depth):
        attribute = wire.head(1, 4) + b"then" + wire.head(6, len(body)) + body + b"\xa0\x01\x05"
        node = wire.head(4, 2) + b"If" + wire.head(5, len(attribute)) + attribute
        body = wire.head(1, len(node)) + node
    return b"\x08\x08" + wire.head(7, len(body)) + body


def test_text_nested_deeply(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "m.textproto"
    path.write_text("graph { node { attribute { g { " * 2000)
    refusal("inspect", path)
    path = tmp_path / "m.json"
    path.write_text('{"graph": {"node": [{"attribute": [{"g": ' * 2000)
    refusal("inspect", path)


@pytest.mark.parametrize("version", [0, -1, 1, 99, 1 << 31, (1 << 63) - 1])
def test_unknown_operator_sets(tmp_path: Path, version: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = NETWORKS["mlp"]()
    model.opset_import[0].version = version
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SystemExit) as exit_:
        main(["prune", str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx"), *PRUNE])
    assert exit_.value.code in (1, 3, 4), capsys.readouterr().err
    assert not (tmp_path / "o.onnx").exists()


TEXT = b"\xff\xfe\xc3("


@pytest.mark.parametrize("where", ["node", "input", "initializer", "operator", "domain", "dim", "property"])
def test_names_that_are_not_utf_8(refusal, tmp_path: Path, where: str) -> None:  # type: ignore[no-untyped-def]
    model, mark = NETWORKS["mlp"](), "MARK"
    if where == "node":
        model.graph.node[0].name = mark
    elif where == "input":
        model.graph.node[0].input[0] = model.graph.input[0].name = mark
    elif where == "initializer":
        model.graph.initializer.add(name=mark, data_type=TensorProto.FLOAT, dims=[0])
    elif where == "operator":
        model.graph.node[0].op_type = mark
    elif where == "domain":
        model.graph.node[0].domain = mark
    elif where == "dim":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = mark
    else:
        model.metadata_props.add(key=mark, value="x")
    data = model.SerializeToString().replace(mark.encode(), TEXT)
    assert "is no text" in refused(refusal, tmp_path, data)


def test_a_huge_attribute_is_not_looked_at_for_long(tmp_path: Path, printed) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["mlp"]()
    model.graph.node[0].doc_string = "d" * (1 << 22)
    model.graph.node[0].attribute.append(helper.make_attribute("huge", list(range(1 << 18))))
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.example", "Mystery"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "m.onnx")
    assert "Mystery" in printed("inspect", tmp_path / "m.onnx")


def test_a_constant_that_would_fill_the_memory_is_not_computed(tmp_path: Path, refusal) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["mlp"]()
    shape = helper.make_tensor("huge", TensorProto.INT64, [1], [1 << 50])
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))
    total = helper.make_node("ReduceSum", ["zeros"], ["total"], keepdims=0)
    model.graph.node.insert(1, total)
    add = helper.make_node("Add", [model.graph.output[0].name, "total"], ["more"])
    model.graph.node.append(add)
    model.graph.output[0].name = "more"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SystemExit) as exit_:
        main(["prune", str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx"), *PRUNE])
    assert exit_.value.code in (1, 3, 4)


def test_an_attribute_that_refers_to_no_function(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["cnn"]()
    model.graph.node[0].attribute[0].ref_attr_name = "outer"
    assert "has no value" in refused(refusal, tmp_path, model)


@pytest.mark.parametrize("size", [-1, -(1 << 63)])
def test_a_negative_size_of_an_input_is_open(tmp_path: Path, printed, size: int) -> None:  # type: ignore[no-untyped-def]
    model = NETWORKS["mlp"]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(model, tmp_path / "m.onnx")
    printed("prune", tmp_path / "m.onnx", tmp_path / "o.onnx", *PRUNE)
    dim = onnx.load(tmp_path / "o.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert not dim.HasField("dim_value")


def test_a_branch_that_fits_so_little_that_sizes_are_negative(tmp_path: Path, printed) -> None:  # type: ignore[no-untyped-def]
    """It is never taken, so the model runs."""
    model = NETWORKS["cnn"]()
    source, shape = model.graph.input[0].name, [1, 3, 99, 99]
    body = helper.make_graph(
        [helper.make_node("Conv", [source, "large"], ["then"])], "then", [],
        [helper.make_empty_tensor_value_info("then")],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", [source], ["else"])], "else", [],
        [helper.make_empty_tensor_value_info("else")],
    )  # fmt: skip
    model.graph.initializer.append(
        helper.make_tensor("large", TensorProto.FLOAT, shape, bytes(4 * 3 * 99 * 99), True)
    )
    model.graph.input.append(helper.make_tensor_value_info("take", TensorProto.BOOL, []))
    model.graph.node.append(helper.make_node("If", ["take"], ["y2"], then_branch=body, else_branch=other))
    model.graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "m.onnx")
    printed("inspect", tmp_path / "m.onnx")


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e30])
@pytest.mark.parametrize("criterion", ["l2", "obs", None])
def test_weights_so_large_that_sums_overflow(  # type: ignore[no-untyped-def]
    tmp_path: Path, value: float, criterion: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = NETWORKS["mlp"]()
    array = initializer(model, "a.w").copy()
    array[0] = value
    replace(model, "a.w", array)
    onnx.save(model, tmp_path / "m.onnx")
    more = ("--criterion", criterion) if criterion else ()
    with pytest.raises(SystemExit) as exit_:
        main(["prune", str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx"), "--target", "macs=60%", *more])
    assert exit_.value.code in (0, None, 1, 3, 4), capsys.readouterr().err


def test_shapes_that_do_not_fit_each_other_are_left_alone(tmp_path: Path, printed) -> None:  # type: ignore[no-untyped-def]
    """A Reshape to a size that no batch has: nothing can be run, and nothing is explained."""
    model = NETWORKS["attention"]()
    node = next(node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] != "x")
    last = [n for n in model.graph.node if n.op_type == "Reshape"][-1]
    last.input[0] = node.input[0]
    onnx.save(model, tmp_path / "m.onnx")
    printed("inspect", tmp_path / "m.onnx")


def test_no_regular_file(refusal, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refusal("inspect", "/dev/zero")
    refusal("inspect", tmp_path)
