"""``carry`` on files of weights, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphprune.converters.carrying.carry_report import CarryReport
from graphprune.converters.carrying.safetensors_file import read_safetensors, write_safetensors
from networks import build, weight
from plans import noisy

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import CarryError, ModelError, PlanError, UsageError

Array = np.ndarray[Any, Any]


def arrays() -> dict[str, Array]:
    return {
        "up.weight": weight("up", (16, 6)),
        "up.bias": weight("bias", (16,)),
        "down.weight": weight("down", (5, 16)),
        "steps": np.array(7),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a plan that halves it, the pruned model with other numbers, and the source's file."""
    source = arrays()
    weights = {"up": source["up.weight"].T, "up.bias": source["up.bias"], "down": source["down.weight"].T}
    body = "h = MatMul(x, up)\n a = Add(h, up.bias)\n r = Relu(a)\n y = MatMul(r, down)"
    onnx.save(build("(float[n, 6] x) => (float[n, 5] y)", body, weights), tmp_path / "net.onnx")
    result = gp.prune(
        tmp_path / "net.onnx", target={"params": 0.5}, criterion="l2", plan_out=tmp_path / "plan.json"
    )
    noisy(result.model).save(tmp_path / "small.onnx")
    write_safetensors(tmp_path / "net.safetensors", source, {"format": "pt"})
    return tmp_path


def test_the_plan_knows_its_model(folder: Path) -> None:
    plan = gp.Plan.load(folder / "plan.json")
    assert plan.model_file == str(folder / "net.onnx")
    report = gp.carry(folder / "plan.json", folder / "net.safetensors", folder / "out.safetensors")
    assert isinstance(report, CarryReport)
    found, metadata = read_safetensors(folder / "out.safetensors")
    keep = plan.groups[0].keep
    np.testing.assert_array_equal(found["up.weight"], arrays()["up.weight"][keep])
    np.testing.assert_array_equal(found["up.bias"], arrays()["up.bias"][keep])
    np.testing.assert_array_equal(found["down.weight"], arrays()["down.weight"][:, keep])
    assert found["steps"] == 7
    assert metadata == {"format": "pt"}
    assert report.parameters == (sum(a.size for a in arrays().values()), sum(a.size for a in found.values()))
    first = report.arrays[0]
    assert (first.name, first.before, first.after) == ("up.weight", (16, 6), (len(keep), 6))


def test_updated_weights(folder: Path) -> None:
    out = folder / "out.safetensors"
    gp.carry(
        gp.Plan.load(folder / "plan.json"), folder / "net.safetensors", out, weights=folder / "small.onnx"
    )
    small = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(folder / "small.onnx").graph.initializer
    }
    found, _ = read_safetensors(out)
    np.testing.assert_array_equal(found["up.weight"], small["up"].T)
    np.testing.assert_array_equal(found["down.weight"], small["down"].T)


def test_nothing_is_written_without_a_file_to_write(folder: Path) -> None:
    report = gp.carry(folder / "plan.json", folder / "net.safetensors")
    assert report.out is None
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["net.safetensors"]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out.safetensors"
    assert run("carry", folder / "plan.json", folder / "net.safetensors", out) == 0
    said = capsys.readouterr().out
    assert "up.weight" in said
    assert "[16, 6]" in said
    assert "proof: constants made of the carried arrays equal those of the pruned model" in said
    assert f"written: {out}" in said
    assert run("carry", folder / "plan.json", folder / "net.safetensors", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["arrays"][0]["name"] == "up.weight"
    assert document["error"] == 0


def test_example_inputs_are_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = folder / "x.npz"
    np.savez(inputs, x=np.zeros((1, 6), np.float32))
    before = inputs.read_bytes()
    assert run("carry", folder / "plan.json", folder / "net.safetensors", inputs, "--inputs", inputs) == 2
    assert run("convert", folder / "net.onnx", inputs, "--inputs", inputs) == 2
    assert capsys.readouterr().err.count("two of the files are the same") == 2
    assert inputs.read_bytes() == before


def test_a_checkpoint_of_another_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**arrays(), "up.weight": weight("other", (16, 6)), "up.bias": weight("short", (15,))}
    write_safetensors(folder / "other.safetensors", other, {})
    with pytest.raises(CarryError, match="cannot tell what the plan leaves of") as raised:
        gp.carry(folder / "plan.json", folder / "other.safetensors", folder / "out.safetensors")
    reasons = {constant: reason for constant, _, reason in raised.value.unmatched}
    assert reasons["up.bias"] == "it is [16] in the model, and 'up.bias' is [15]"
    assert set(reasons) == {"up", "up.bias"}
    assert not (folder / "out.safetensors").exists()
    assert run("carry", folder / "plan.json", folder / "other.safetensors", folder / "out.safetensors") == 1
    said = capsys.readouterr().err
    assert "not matched: up.bias at a:1: it is [16] in the model" in said
    assert "because: no array of the source holds its numbers (1 more could not be matched)" in said


def test_another_model(folder: Path) -> None:
    plan = gp.Plan.load(folder / "plan.json")
    model = onnx.load(folder / "net.onnx")
    model.graph.doc_string = "the same weights in another file"
    onnx.save(model, folder / "again.onnx")
    report = gp.carry(plan, folder / "net.safetensors", model=folder / "again.onnx")
    assert "its parameters fit this one" in report.notes[-1]
    onnx.save(model, folder / "net.onnx")
    with pytest.raises(PlanError, match="the plan was made for another model") as raised:
        gp.carry(plan, folder / "net.safetensors")
    assert "sha256" in str(raised.value)
    body = "y = MatMul(x, up)"
    onnx.save(build("(float[n, 6] x) => (float[n, 9] y)", body, {"up": (6, 9)}), folder / "wide.onnx")
    with pytest.raises(PlanError, match=r"'up' is \[6, 9\] there, and axis 1 has 16 in the plan"):
        gp.carry(plan, folder / "net.safetensors", model=folder / "wide.onnx")
    (folder / "net.onnx").unlink()
    with pytest.raises(PlanError, match="which is not there"):
        gp.carry(plan, folder / "net.safetensors")


def test_equal_arrays_that_only_their_order_tells_apart(folder: Path) -> None:
    zeros = np.zeros(8, np.float32)
    weights = {name: weight(name, (8, 8)) for name in ("up", "mid", "down")} | {"zero": zeros}
    body = (
        "h = MatMul(x, up)\n a = Add(h, zero)\n r = Relu(a)\n g = MatMul(r, mid)\n b = Add(g, zero)\n"
        " s = Relu(b)\n y = MatMul(s, down)"
    )
    onnx.save(build("(float[n, 8] x) => (float[n, 8] y)", body, weights), folder / "fresh.onnx")
    plan = gp.plan(folder / "fresh.onnx", target={"params": 0.8}, criterion="l2", include=["up"])
    assert [entry.uses for entry in plan.parameters if entry.name == "zero"] == [["a:1"]]
    source = {n: weights[n] for n in ("up", "mid", "down")} | {"first.b": zeros, "second.b": zeros.copy()}
    write_safetensors(folder / "fresh.safetensors", source, {})
    with pytest.raises(CarryError, match="only their order tells which is which"):
        gp.carry(plan, folder / "fresh.safetensors")


@pytest.mark.parametrize("name", ["plan.json", "net.onnx", "small.onnx", "net.safetensors"])
def test_nothing_that_is_read_is_replaced(folder: Path, name: str) -> None:
    before = {file: file.read_bytes() for file in folder.iterdir()}
    options = {"weights": folder / "small.onnx"}
    with pytest.raises(UsageError, match="two of the files are the same"):
        gp.carry(folder / "plan.json", folder / "net.safetensors", folder / name, **options)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["out.pt", "out.onnx", "out", "out.safetensors.index.json"])
def test_a_name_of_another_kind_of_file(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        gp.carry(folder / "plan.json", folder / "net.safetensors", folder / name)
    assert not (folder / name).exists()


def test_new_weights_of_a_model_that_the_plan_does_not_make(folder: Path) -> None:
    for wrong in ("net.onnx", "other.onnx"):
        body = "y = MatMul(x, up)"
        onnx.save(build("(float[n, 6] x) => (float[n, 9] y)", body, {"up": (6, 9)}), folder / "other.onnx")
        with pytest.raises(CarryError, match="the new weights can't be carried") as raised:
            gp.carry(folder / "plan.json", folder / "net.safetensors", weights=folder / wrong)
        assert "--weights" in str(raised.value.hint)


def test_wrong_sources(folder: Path) -> None:
    plan = folder / "plan.json"
    with pytest.raises(UsageError, match="two of the files are the same"):
        gp.carry(plan, folder / "net.safetensors", folder / "net.safetensors")
    with pytest.raises(ModelError, match="cannot tell what"):
        gp.carry(plan, folder / "net.onnx")
    with pytest.raises(ModelError, match="cannot carry a plan to a list"):
        gp.carry(plan, [1, 2])
    with pytest.raises(UsageError, match="a live network is returned"):
        gp.carry(plan, [1, 2], folder / "out.pt")
