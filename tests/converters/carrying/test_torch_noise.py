"""Networks whose outputs hide what was done to their layers: random weights show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphprune as gp
from graphprune.errors import ModelError, ValidationError

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    # Raised inside torch's own exporters.
    pytest.mark.filterwarnings("ignore"),
]

from graphprune.converters.carrying import torch_module, torch_noise  # noqa: E402
from graphprune.converters.carrying.torch_module import carry_module  # noqa: E402
from graphprune.converters.torch import export_module  # noqa: E402


class Attention(torch.nn.Module):
    """Any divisor of the width is a number of heads with which it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.h = 4
        self.q, self.k, self.v, self.o = (torch.nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        split = lambda t: t.reshape(batch, length, self.h, -1).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        mixed = (q @ k.transpose(-1, -2) * 0.35).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(batch, length, -1))


class Net(torch.nn.Module):
    """Attention behind something that lets little or nothing of it pass."""

    def __init__(self, hidden_by: str) -> None:
        super().__init__()
        self.stem, self.attention, self.head = torch.nn.Linear(8, 32), Attention(), torch.nn.Linear(32, 5)
        self.mix = torch.nn.Linear(32, 32)
        self.scale = torch.nn.Parameter(torch.full((32,), 1e-6 if hidden_by == "layer scale" else 1.0))
        self.gate = torch.nn.Parameter(torch.zeros(1) if hidden_by == "gate" else torch.ones(1))
        if hidden_by in ("head", "mix"):
            layer = getattr(self, hidden_by)
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.gate * (self.scale * self.mix(self.attention(x))))


HIDDEN = ["nothing", "layer scale", "gate", "head", "mix"]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Any, Path, gp.Plan]]:
    def make(hidden_by: str, exporter: str = "torchscript") -> tuple[Any, Path, gp.Plan]:
        torch.manual_seed(0)
        module, file = Net(hidden_by).eval(), tmp_path / "model.onnx"
        # Behind a head of zeros the parity check of the export has nothing to see.
        export_module(module, torch.randn(2, 6, 8), file, source="the test", exporter=exporter)
        return module, file, gp.plan(file, target={"params": 0.8}, criterion="l2", kinds=["heads"])

    return make


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("hidden_by", HIDDEN)
def test_hidden_heads_are_counted(made: Callable[..., Any], hidden_by: str, exporter: str) -> None:
    module, file, plan = made(hidden_by, exporter)
    (kept,) = {len(group.keep) for group in plan.groups if group.kind == "heads"}
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    carried, report = carry_module(plan, module, model=file)
    assert carried.attention.h == kept == 2
    assert report.error <= 1e-5
    assert not report.notes
    for name, parameter in carried.named_parameters():  # the random numbers are gone again
        assert set(parameter.flatten().tolist()) <= set(weights[name].flatten().tolist())
        assert torch.equal(module.get_parameter(name), weights[name])


@pytest.mark.parametrize("hidden_by", ["head", "layer scale"])
def test_another_architecture_is_told_behind_zeros(made: Callable[..., Any], hidden_by: str) -> None:
    module, file, plan = made(hidden_by)
    module.attention.h = 8  # with these heads it is another function, and nothing shows it
    with pytest.raises((ModelError, ValidationError), match="nothing shows"):
        carry_module(plan, module, model=file)


def test_without_random_weights_zeros_are_refused(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_module, "find_noise", lambda *_: None)
    module, file, plan = made("head")
    with pytest.raises(ValidationError, match="nothing shows that the carried module is right"):
        carry_module(plan, module, model=file)
    module, file, plan = made("nothing")
    carried, report = carry_module(plan, module, model=file)
    assert carried.attention.h == 2
    assert any("own weights alone" in note for note in report.notes)


def test_numbers_are_held_for_a_while() -> None:
    module = torch.nn.Linear(2, 2)
    module.weight.requires_grad_(False)
    before = module.weight.clone()
    with torch_noise.holding(module, {"weight": torch.full((2, 2), 3.0)}):
        assert module(torch.ones(1, 2)).tolist() == [[6.0, 6.0]]
    assert torch.equal(module.weight, before)
