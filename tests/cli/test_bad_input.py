"""Bad input: a clear error, the right exit code, nothing written, nothing left behind, nothing changed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds, initializer, replace, run
from onnx import helper

Break = Callable[[Path], None]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def not_onnx(path: Path) -> None:
    path.write_bytes(b"this is a letter, not a network" * 20)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text('{"weights": [1, 2, 3]}')


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def missing_data(path: Path) -> None:
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()


def short_data(path: Path) -> None:
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    data = path.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-40])


def cycle(path: Path) -> None:
    model = onnx.load(path)
    nodes = {n.output[0]: n for n in model.graph.node}
    nodes["s"].input[0] = "last"
    nodes["a"].input[0] = "b"
    onnx.save(model, path)


def undefined(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[2].input[0] = "nowhere"
    onnx.save(model, path)


def defined_twice(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Relu", ["s"], ["sr"]))
    onnx.save(model, path)


def no_graph(path: Path) -> None:
    onnx.save(onnx.ModelProto(ir_version=9), path)


def no_opset(path: Path) -> None:
    model = onnx.load(path)
    del model.opset_import[:]
    model.opset_import.add(domain="com.example", version=1)
    onnx.save(model, path)


def too_few_bytes(path: Path) -> None:
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    onnx.save(model, path)


def sparse(path: Path) -> None:
    model = onnx.load(path)
    values = helper.make_tensor("values", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", onnx.TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    onnx.save(model, path)


BROKEN: dict[Break, str] = {
    not_onnx: "is not an ONNX file",
    empty: "",
    text: "is not an ONNX file",
    truncated: "is truncated",
    cut_in_half: "is truncated",
    missing: "does not exist",
    folder: "is a folder",
    missing_data: "weights.bin' of tensor 'stem.w' does not exist",
    short_data: "is too short",
    cycle: "the graph has a cycle",
    undefined: "'nowhere' of",
    defined_twice: "'sr' is defined more than once",
    no_graph: "holds no graph",
    no_opset: "does not say which version of the ONNX operators",
    too_few_bytes: "bytes, not",
    sparse: "sparse initializer 'values' can't be kept",
}


@pytest.mark.parametrize("command", ["inspect", "explain", "prune", "apply", "check", "profile", "convert"])
@pytest.mark.parametrize("damage", BROKEN, ids=lambda f: f.__name__)
def test_models_that_cannot_be_read(cli, tmp_path: Path, damage: Break, command: str) -> None:  # type: ignore[no-untyped-def]
    path, good, plan = tmp_path / "model.onnx", tmp_path / "good.onnx", tmp_path / "plan.json"
    onnx.save(NETWORKS["cnn"](), path)
    onnx.save(NETWORKS["cnn"](), good)
    plan.write_text(json.dumps(PLAN))
    damage(path)
    before = contents(tmp_path)
    if command in ("profile", "convert") and damage in (no_opset, sparse):
        pytest.skip("onnxruntime can run it")
    arguments = {
        "inspect": (path,),
        "explain": (path, "fc.w"),
        "prune": (path, tmp_path / "o.onnx", "--target", "macs=50%", "--plan-out", tmp_path / "p.json"),
        "apply": (plan, path, tmp_path / "o.onnx"),
        "check": (good, path),
        "profile": (path, "--repeat", 1),
        "convert": (path, tmp_path / "o.onnx"),
    }[command]
    error = cli(command, *arguments).error(1)
    if command in ("profile", "convert"):  # these hand the file to onnxruntime as it is
        assert "model.onnx" in error or BROKEN[damage] in error
    else:
        assert BROKEN[damage] in error
    assert contents(tmp_path) == before


PLAN = {
    "schema_version": 1, "model_sha256": "", "target": {}, "reached": {}, "groups": [], "parameters": [],
}  # fmt: skip


# ---- numbers ------------------------------------------------------------------------------------


def with_nan(tmp_path: Path) -> Path:
    model = NETWORKS["cnn"]()
    array = initializer(model, "b.w").copy()
    array[:] = np.nan
    replace(model, "b.w", array)
    onnx.save(model, tmp_path / "nan.onnx")
    return tmp_path / "nan.onnx"


def test_nan_weights_cannot_be_ranked(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = with_nan(tmp_path)
    before = contents(tmp_path)
    error = cli("prune", path, tmp_path / "o.onnx", "--target", "macs=50%", "--criterion", "l2").error(1)
    assert "the weights of 'b.w' hold NaN" in error
    assert contents(tmp_path) == before


def test_nan_weights_cannot_be_verified(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = with_nan(tmp_path)
    before = contents(tmp_path)
    command = ("prune", path, tmp_path / "o.onnx", "--target", "macs=80%", "--criterion", "random")
    assert "is not finite on random inputs" in cli(*command).error(3)
    assert contents(tmp_path) == before


def test_nan_weights_can_be_inspected(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert cli("inspect", with_nan(tmp_path), "--json").json()["groups"]


# ---- operators from elsewhere -------------------------------------------------------------------


def test_operator_without_a_rule_blocks_and_the_rest_is_pruned(cli, save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = save("other_domain")
    done = cli("prune", model, tmp_path / "o.onnx", "--target", "macs=70%", "--criterion", "l2", "--json")
    assert {g["id"] for g in done.json()["groups"]} == {"a.w:1", "c.w:1"}
    (found,) = run(onnx.load(tmp_path / "o.onnx"), feeds(onnx.load(model), batch=3))
    assert found.shape == (3, 3)


def foreign(path: Path, *, declared: bool) -> Path:
    """An operator that nobody here has ever heard of."""
    model = NETWORKS["other_domain"]()
    node = next(n for n in model.graph.node if n.domain)
    node.domain, node.op_type = "com.example", "Mystery"
    model.opset_import[1].domain = "com.example"
    if declared:
        kind = helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT, ["batch", 9])
        model.graph.value_info.append(kind)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("declared", [True, False])
def test_unknown_domain_is_reported(cli, tmp_path: Path, declared: bool) -> None:  # type: ignore[no-untyped-def]
    path = foreign(tmp_path / "m.onnx", declared=declared)
    found = cli("inspect", path, "--json").json()
    assert {"domain": "com.example", "op_type": "Mystery", "count": 1, "rule": False} in found["ops"]
    prunable = {g["id"] for g in found["groups"] if g["prunable"]}
    assert "a.w:1" in prunable
    assert ("c.w:1" in prunable) == declared
    assert "no coupling rule for com.example::Mystery" in cli("explain", path, "b.w:1").out


@pytest.mark.parametrize("declared", [True, False])
def test_unknown_domain_is_pruned_around(cli, tmp_path: Path, declared: bool) -> None:  # type: ignore[no-untyped-def]
    """onnxruntime can't run it, so the parts before and behind the operator are verified."""
    path = foreign(tmp_path / "m.onnx", declared=declared)
    done = cli("prune", path, tmp_path / "o.onnx", "--target", "macs=85%", "--criterion", "l2", "--json")
    assert done.code == 0, done.err
    assert done.json()["verify"]["scale"] > 0
    before, after = onnx.load(path), onnx.load(tmp_path / "o.onnx")
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
    assert initializer(after, "a.w").shape[1] < 8
    assert initializer(after, "b.w").shape[1] == 9
    assert initializer(after, "b.b").shape == (9,)


# ---- where to write -----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["out", "plan", "graph"])
@pytest.mark.parametrize("place", ["no folder", "a folder", "below a file"])
def test_paths_that_cannot_be_written(cli, save, tmp_path: Path, which: str, place: str) -> None:  # type: ignore[no-untyped-def]
    model = save("mlp")
    (tmp_path / "sub.json").mkdir()
    bad = {
        "no folder": tmp_path / "none" / "o.json",
        "a folder": tmp_path / "sub.json",
        "below a file": model / "o.json",
    }[place]
    before = contents(tmp_path)
    good = tmp_path / "good.json"
    if which == "graph":
        done = cli("inspect", model, "--graph", bad)
    else:
        out, plan = (bad, good) if which == "out" else (good, bad)
        done = cli("prune", model, out, "--target", "macs=60%", "--criterion", "l2", "--plan-out", plan)
    assert "cannot write" in done.error(1)
    assert contents(tmp_path) == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mlp.onnx", "sub.json"]


def test_demo_path_that_cannot_be_written(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("x")
    assert "cannot" in cli("demo", "--out", tmp_path / "file" / "o.onnx").error(1)
    assert contents(tmp_path) == {"file": b"x"}


def test_convert_path_that_cannot_be_written(cli, save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model = save("mlp")
    before = contents(tmp_path)
    cli("convert", model, model / "o.onnx").error(1)
    cli("convert", model, tmp_path / "none" / "o.onnx").error(1)
    assert contents(tmp_path) == before


# ---- plans and data -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 2}',
        json.dumps({**PLAN, "parameters": [1]}).encode(),
        json.dumps({**PLAN, "parameters": [{"name": "a.w", "axis": "1", "size": 10, "keep": [0],
                                            "uses": None, "groups": []}]}).encode(),
        json.dumps({**PLAN, "parameters": [{"name": "zzz", "axis": 0, "size": 10, "keep": [0],
                                            "uses": None, "groups": []}]}).encode(),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_used(cli, save, tmp_path: Path, plan: bytes) -> None:  # type: ignore[no-untyped-def]
    model = save("mlp")
    (tmp_path / "plan.json").write_bytes(plan)
    before = contents(tmp_path)
    assert "plan" in cli("apply", tmp_path / "plan.json", model, tmp_path / "o.onnx").error(1)
    assert contents(tmp_path) == before


def test_plan_of_another_model(cli, save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan = tmp_path / "plan.json"
    cli(
        "prune",
        save("mlp"),
        tmp_path / "o.onnx",
        "--target",
        "macs=60%",
        "--criterion",
        "l2",
        "--plan-out",
        plan,
    )
    model = save("cnn")
    before = contents(tmp_path)
    assert "a plan made for this model" in cli("apply", plan, model, tmp_path / "p.onnx").error(1)
    assert contents(tmp_path) == before


def test_missing_plan(cli, save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "cannot read the plan" in cli("apply", tmp_path / "none", save("mlp"), tmp_path / "o").error(1)


def test_data_that_cannot_be_used(cli, save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, data = save("mlp"), tmp_path / "d.npz"

    def check() -> str:
        error: str = cli("check", model, model, "--data", data).error(1)
        return error

    assert "cannot read the data file" in check()
    np.savez(data, x=np.array([{"any": "object"}], object))
    assert "cannot read the data file" in check()
    data.write_bytes(pickle.dumps({"x": 1}))
    assert "cannot read the data file" in check()
    np.savez(data, x=np.ones((2, 6), np.float32))
    data.write_bytes(data.read_bytes()[:50])
    assert "cannot read the data file" in check()
    np.savez(data, x=np.ones((2, 7), np.float32))
    assert "does not run on these data" in check()
    np.savez(data, x=np.ones((2, 6), np.int32))
    assert "does not run on these data" in check()
    np.savez(data, z=np.ones((2, 6), np.float32))
    assert "lack the input 'x'" in cli("check", model, model, "--data", data).error(2)
