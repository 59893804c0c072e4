"""What torch's exporters make of networks, found again in their state dicts; and files that torch saved."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphprune.converters.carrying.safetensors_file import read_safetensors
from plans import noisy

import graphprune as gp
from graphprune.cli import main
from graphprune.errors import CarryError, ModelError

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    # Raised inside torch's own exporters.
    pytest.mark.filterwarnings("ignore"),
]

from graphprune.converters.carrying.matching import Matching, match  # noqa: E402
from graphprune.converters.torch import export_module  # noqa: E402

nn = torch.nn


class Convolutions(nn.Module):
    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.up, self.bn3 = nn.ConvTranspose2d(8, 12, 2, 2), nn.BatchNorm2d(12, eps=1e-3)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + torch.relu(self.bn2(torch.nn.functional.pad(self.conv2(x), (1, 1, 1, 1))))
        return self.head(torch.relu(self.bn3(self.up(x))).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.rnn = getattr(nn, kind)(6, 8, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(self.embed(x))[0])


class Attention(nn.Module):
    """The same layer twice, as nn.TransformerEncoder copies it: equal weights in two places."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.first = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True, norm_first=True)
        self.second = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 20, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Any) -> Any:
        return self.head(self.second(self.first(self.embed(x))))


def perturbed(module: Any) -> Any:
    """All numbers distinct."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.3)
    return module.eval()


IMAGE = (torch.zeros(2, 3, 12, 12),)
TOKENS = (torch.zeros(2, 7, dtype=torch.int64),)
NETWORKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "convolutions": (lambda: perturbed(Convolutions()), IMAGE),
    "convolutions with bias": (lambda: perturbed(Convolutions(bias=True)), IMAGE),
    "fresh convolutions": (lambda: Convolutions().eval(), IMAGE),
    "lstm": (lambda: Recurrent("LSTM").eval(), TOKENS),
    "gru": (lambda: Recurrent("GRU").eval(), TOKENS),
    "attention": (lambda: perturbed(Attention()), TOKENS),
    "fresh attention": (lambda: Attention().eval(), TOKENS),
    "tied attention": (lambda: perturbed(Attention(tied=True)), TOKENS),
}


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    def export(name: str, exporter: str) -> tuple[Any, Path]:
        torch.manual_seed(0)
        make, inputs = NETWORKS[name]
        module, file = make(), tmp_path / "net.onnx"
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operator is not exported
        try:
            export_module(module, inputs, file, source="the test", exporter=exporter)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        return module, file

    return export


def arrays_of(module: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: each.detach().numpy() for name, each in module.state_dict(keep_vars=True).items()}


def shapes(found: Matching, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, tuple[int, ...]]:
    made = {}
    for name, array in arrays.items():
        for axis, keep in found.cut.kept.get(name, {}).items():
            array = array.take(keep, axis)
        made[name] = array.shape
    return made


@pytest.mark.parametrize(
    ("name", "exporter"),
    # The second exporter takes seconds, and sees the same in the others.
    [*((name, "torchscript") for name in NETWORKS)]
    + [(name, "dynamo") for name in ("fresh convolutions", "lstm", "fresh attention", "tied attention")],
)
def test_everything_is_found(name: str, exporter: str, exported: Callable[..., tuple[Any, Path]]) -> None:
    module, file = exported(name, exporter)
    plan = gp.plan(file, target={"params": 0.6}, criterion="l2", allocator="uniform")
    assert len(plan.groups) > 1
    arrays = arrays_of(module)
    found = match(gp.load(file), plan, arrays)
    assert found.unmatched == ()
    assert found.error < 1e-6
    after = shapes(found, arrays)
    for norm in ("bn1", "bn2", "bn3", "first.norm1"):
        sizes = {shape for n, shape in after.items() if n.startswith(f"{norm}.") and shape}
        assert len(sizes) <= 1
    if "bn1.bias" in after:
        assert after["bn1.bias"][0] == after["conv1.weight"][0] == after["conv2.weight"][1]
        assert after["bn3.bias"][0] == after["up.weight"][1] == after["head.weight"][1]
    if "tied" in name:
        assert after["embed.weight"] == after["head.weight"]
    if name not in ("fresh attention", "tied attention"):  # what is equal or tied can't get two values
        pruned = noisy(gp.apply(file, plan))
        found = match(gp.load(file), plan, arrays, pruned)
        assert found.unmatched == ()
        assert found.error < 1e-5
        assert found.cut.values


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_saved_state_dict(exporter: str, exported: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    module, file = exported("tied attention", exporter)
    plan = gp.plan(
        file, target={"params": 0.7}, criterion="l2", kinds=["channels"], exclude=["*embed*", "*head*"]
    )
    checkpoint = {
        "epoch": 3,
        "state_dict": module.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.rand(16)}}, "lr": 0.1},
    }
    torch.save(checkpoint, tmp_path / "net.pt")
    report = gp.carry(plan, tmp_path / "net.pt", tmp_path / "small.pt")
    assert "left as it was, since the model does not read it: 'optimizer'" in report.notes
    small = torch.load(tmp_path / "small.pt", weights_only=True)
    assert small["epoch"] == 3
    assert torch.equal(
        small["optimizer"]["state"][0]["exp_avg"], checkpoint["optimizer"]["state"][0]["exp_avg"]
    )
    state = small["state_dict"]
    assert list(state) == list(module.state_dict())
    assert state["embed.weight"].data_ptr() == state["head.weight"].data_ptr()
    assert state["first.linear1.weight"].shape[0] < 24
    assert state["first.linear1.weight"].shape[0] == state["first.linear2.weight"].shape[1]


def test_types_of_numbers_stay(exported: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    module, file = exported("convolutions", "torchscript")
    plan = gp.plan(file, target={"params": 0.6}, criterion="l2", allocator="uniform")
    torch.save(module.double().state_dict(), tmp_path / "double.pt")
    gp.carry(plan, tmp_path / "double.pt", tmp_path / "small.pt")
    small = torch.load(tmp_path / "small.pt", weights_only=True)
    assert small["conv1.weight"].dtype == torch.float64
    assert small["bn1.num_batches_tracked"].dtype == torch.int64


FACTORY = """
import torch

def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    return net, (torch.zeros(2, 6),)

def broken():
    raise RuntimeError("no weights here")
"""


def test_a_factory_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    source = f"{tmp_path / 'nets.py'}:make"
    gp.convert(source, tmp_path / "net.onnx", exporter="torchscript")
    plan = tmp_path / "plan.json"
    result = gp.prune(tmp_path / "net.onnx", target={"params": 0.5}, criterion="l2", plan_out=plan)
    noisy(result.model).save(tmp_path / "small.onnx")
    for out in ("small.safetensors", "small.pt"):
        arguments = ["carry", plan, source, tmp_path / out, "--weights", tmp_path / "small.onnx"]
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert stopped.value.code == 0, said.err
        assert "the outputs equal those of the pruned model" in said.out
    state = torch.load(tmp_path / "small.pt", weights_only=True)
    keep = len(result.plan.groups[0].keep)
    assert state["0.weight"].shape == (keep, 6)
    arrays, _ = read_safetensors(tmp_path / "small.safetensors")
    np.testing.assert_array_equal(arrays["2.weight"], state["2.weight"].numpy())
    with pytest.raises(ModelError, match="no weights here"):
        gp.carry(plan, f"{tmp_path / 'nets.py'}:broken", tmp_path / "again.pt")


def test_a_checkpoint_with_other_objects_in_it(
    exported: Callable[..., tuple[Any, Path]], tmp_path: Path
) -> None:
    module, file = exported("convolutions", "torchscript")
    plan = gp.plan(file, target={"params": 0.6}, criterion="l2", allocator="uniform")
    content = {"state_dict": module.state_dict(), "args": Namespace(lr=0.1)}
    torch.save(content, tmp_path / "all.pt")
    with pytest.raises(ModelError, match="--trust") as raised:
        gp.carry(plan, tmp_path / "all.pt", tmp_path / "small.pt")
    assert "\x1b" not in str(raised.value)
    gp.carry(plan, tmp_path / "all.pt", tmp_path / "small.pt", trust=True)
    found = torch.load(tmp_path / "small.pt", weights_only=False)
    assert found["args"].lr == 0.1
    assert found["state_dict"]["conv1.weight"].shape[0] < 8
    (tmp_path / "broken.pt").write_bytes((tmp_path / "all.pt").read_bytes()[:900])
    with pytest.raises(ModelError) as raised:
        gp.carry(plan, tmp_path / "broken.pt", trust=True)
    assert "--trust" not in str(raised.value)


def test_files_that_are_no_weights(exported: Callable[..., tuple[Any, Path]], tmp_path: Path) -> None:
    module, file = exported("convolutions", "torchscript")
    plan = gp.plan(file, target={"params": 0.6}, criterion="l2", allocator="uniform")
    torch.save(module, tmp_path / "module.pt")
    with pytest.raises(ModelError, match="cannot read the weights in") as raised:
        gp.carry(plan, tmp_path / "module.pt")
    assert "--trust for a pickled module" in str(raised.value)
    gp.carry(plan, tmp_path / "module.pt", tmp_path / "trusted.pt", trust=True)
    state = torch.load(tmp_path / "trusted.pt", weights_only=True)
    assert state["conv1.weight"].shape[0] < 8
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="holds no tensors"):
        gp.carry(plan, tmp_path / "empty.pt")
    torch.save(perturbed(Convolutions()).state_dict(), tmp_path / "other.pt")
    with pytest.raises(CarryError, match="cannot tell what the plan leaves of"):
        gp.carry(plan, tmp_path / "other.pt", tmp_path / "small.pt")
    assert not (tmp_path / "small.pt").exists()
