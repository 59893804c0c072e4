"""Checkpoints of torch with lists in them, and what is said when weights of a live module are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import build, weight
from plans import changed, plan_of

import graphprune as gp
from graphprune.errors import CarryError, ModelError
from graphprune.model import Model, load
from graphprune.plan import GroupPlan, Plan

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*torch.*")]

KEEP = [0, 2, 3, 6]
UP, DOWN = weight("up", (8, 6)), weight("down", (5, 8))


def network() -> tuple[Model, Plan]:
    body = "h = MatMul(x, up)\n r = Relu(h)\n y = MatMul(r, down)"
    model = load(build("(float[n, 6] x) => (float[n, 5] y)", body, {"up": UP.T, "down": DOWN.T}))
    return model, plan_of(model, {"up": {1: KEEP}, "down": {0: KEEP}})


def state() -> dict[str, Any]:
    return {"up.weight": torch.tensor(UP), "down.weight": torch.tensor(DOWN)}


def test_lists_are_searched(tmp_path: Path) -> None:
    model, plan = network()
    content = {
        "models": [state(), ("name", 3)],
        "optimizer": {"param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "shape": torch.Size([2, 3]),
    }
    torch.save(content, tmp_path / "net.pt")
    gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt", model=model)
    small = torch.load(tmp_path / "small.pt", weights_only=True)
    np.testing.assert_array_equal(small["models"][0]["up.weight"], UP[KEEP])
    np.testing.assert_array_equal(small["models"][0]["down.weight"], DOWN[:, KEEP])
    assert small["models"][1] == ("name", 3)
    assert small["optimizer"] == content["optimizer"]
    assert small["shape"] == torch.Size([2, 3])


def test_a_list_of_tensors_is_carried_and_nothing_added_to_it(tmp_path: Path) -> None:
    model, plan = network()
    torch.save([torch.tensor(UP), (torch.tensor(DOWN),)], tmp_path / "net.pt")
    report = gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt", model=model)
    assert [array.name for array in report.arrays] == ["0", "1/0"]
    first, (second,) = torch.load(tmp_path / "small.pt", weights_only=True)
    np.testing.assert_array_equal(first, UP[KEEP])
    np.testing.assert_array_equal(second, DOWN[:, KEEP])
    from graphprune.converters.carrying.torch_file import TorchFile

    torch.save({"all": [torch.tensor(UP)]}, tmp_path / "list.pt")
    file = TorchFile(tmp_path / "list.pt")
    with pytest.raises(ModelError, match="whose entries have no names"):
        file.write(tmp_path / "out.pt", {}, {"all/bias": ("all/0", np.ones(8, np.float32))})
    with pytest.raises(ModelError, match="what follows it would move up"):
        file.write(tmp_path / "out.pt", {"all/0": None}, {})


def test_an_average_equal_to_the_weights_gets_no_half_of_the_new_ones(tmp_path: Path) -> None:
    model, plan = network()
    torch.save({"state_dict": state(), "ema": state()}, tmp_path / "net.pt")
    new = changed(gp.apply(model, plan), up=weight("new", (6, 4)))
    with pytest.raises(CarryError, match="only their order tells which is which"):
        gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt", model=model, weights=new)
    gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt", model=model)
    small = torch.load(tmp_path / "small.pt", weights_only=True)
    for part in ("state_dict", "ema"):
        np.testing.assert_array_equal(small[part]["up.weight"], UP[KEEP])


FACTORY = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
"""


def test_what_is_said_of_another_file_and_of_smaller_heads(tmp_path: Path) -> None:
    """Of a factory, of a pickled module, and of a live one, which has no report."""
    (tmp_path / "nets.py").write_text(FACTORY)
    source = f"{tmp_path / 'nets.py'}:make"
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    torch.save(module, tmp_path / "module.pt")
    gp.convert(source, tmp_path / "net.onnx", inputs=(torch.zeros(2, 6),), exporter="torchscript")
    plan = gp.plan(tmp_path / "net.onnx", target={"params": 0.5}, criterion="l2")
    again = onnx.load(tmp_path / "net.onnx")
    again.graph.doc_string = "the same weights in another file"
    onnx.save(again, tmp_path / "again.onnx")
    asked: dict[str, Any] = {"model": tmp_path / "again.onnx", "inputs": (torch.zeros(2, 6),)}
    said = "the plan was made for another file"
    assert any(said in note for note in gp.carry(plan, source, **asked).notes)
    assert any(said in note for note in gp.carry(plan, tmp_path / "module.pt", trust=True, **asked).notes)
    with pytest.warns(UserWarning, match=said):
        gp.carry(plan, module, **asked)
    groups = [GroupPlan(g.id, "head_dim", g.exact, g.size, g.keep) for g in plan.groups]
    heads = Plan(plan.model_sha256, {}, {}, groups, plan.parameters, model_file=plan.model_file)
    report = gp.carry(heads, source, tmp_path / "small.pt", inputs=(torch.zeros(2, 6),))
    assert any("must keep the old scale" in note for note in report.notes)
