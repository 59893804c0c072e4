"""Fresh layers of torch, whose numbers say little: zeros that exporters leave out, the identity, copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphprune as gp
from graphprune.compare import run
from graphprune.errors import CarryError

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    # Raised inside torch's own exporters.
    pytest.mark.filterwarnings("ignore"),
]

from graphprune.converters.carrying.torch_module import carry_module  # noqa: E402
from graphprune.converters.torch import export_module  # noqa: E402

nn = torch.nn


class Layers(nn.Module):
    """Three layers; the one in the middle is fresh."""

    def __init__(self, widths: tuple[int, int] = (16, 16), *, is_identity: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, widths[0]), nn.Linear(*widths)
        self.c = nn.Linear(widths[1], 4)
        nn.init.zeros_(self.b.bias)
        if is_identity:
            nn.init.eye_(self.b.weight)

    def forward(self, x: Any) -> Any:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_bias_of_zeros(tmp_path: Path, exporter: str) -> None:
    net, file = Layers().eval(), tmp_path / "net.onnx"
    export_module(net, (torch.randn(2, 8),), file, exporter=exporter, source="test")
    plan = gp.plan(file, target={"params": 0.5}, criterion="l2")
    torch.save(net.state_dict(), tmp_path / "net.pt")
    gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt", model=file)
    state = torch.load(tmp_path / "small.pt", weights_only=True)
    small = Layers((state["a.bias"].numel(), state["b.bias"].numel()))
    small.load_state_dict(state)
    assert state["b.weight"].numel() < 16 * 16
    x = torch.randn(2, 8)
    cut = gp.apply(file, plan)
    (expected,) = run(cut, {str(cut.ir.graph.inputs[0].name): x.numpy()}).values()
    torch.testing.assert_close(small(x), torch.as_tensor(expected), rtol=1e-4, atol=1e-5)
    carried, report = carry_module(plan, net, model=file)
    assert report.error < 1e-5
    assert carried.b.bias.shape == state["b.bias"].shape


def test_an_identity_of_which_a_run_tells_the_order(tmp_path: Path) -> None:
    net, file = Layers(is_identity=True).eval(), tmp_path / "net.onnx"
    # Three axes: the exporter writes MatMul, with the weights transposed and without their names.
    export_module(net, (torch.randn(2, 3, 8),), file, exporter="torchscript", source="test")
    plan = gp.plan(file, target={"params": 0.5}, criterion="random", seed=3)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(CarryError, match="cannot tell what the plan leaves") as raised:
        gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt", model=file)
    assert any("in several orders of its axes" in reason for _, _, reason in raised.value.unmatched)
    carried, report = carry_module(plan, net, model=file)
    assert report.error < 1e-5
    assert carried.b.weight.shape == (carried.b.bias.numel(), carried.a.bias.numel())
