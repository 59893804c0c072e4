"""What names say, which sizes have changed, and which numbers of a module follow."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from graphprune.converters.carrying.source_cut import SizeChange, SourceCut  # noqa: E402
from graphprune.converters.carrying.torch_attributes import choices  # noqa: E402
from graphprune.converters.carrying.torch_cut import cut_tensors  # noqa: E402
from graphprune.converters.carrying.torch_facts import Sizes  # noqa: E402
from graphprune.converters.carrying.torch_layers import Layer, mend_layer  # noqa: E402
from graphprune.converters.carrying.torch_level import level  # noqa: E402
from graphprune.converters.carrying.torch_words import kinds  # noqa: E402

from graphprune.errors import ModelError  # noqa: E402
from graphprune.plan import GroupPlan, Plan  # noqa: E402


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("num_attention_heads", "heads"),
        ("n_head", "heads"),
        ("num_kv_heads", "heads"),
        ("attention_head_size", "head_dim"),
        ("head_dim", "head_dim"),
        ("num_key_value_groups", "repeats"),
        ("n_rep", "repeats"),
        ("all_head_size", "size"),
        ("num_experts", "experts"),
        ("embed_dim", "size"),
        ("out_channels", "size"),
        ("intermediateSize", "size"),
        ("num_groups", "groups"),
        ("window_size", None),
        ("kernel_size", None),
        ("patch_size", None),
        ("layer_idx", None),
        ("num_experts_per_tok", None),
        ("max_position_embeddings", None),
        ("vocab_size", None),
    ],
)
def test_names(name: str, expected: str | None) -> None:
    assert (kinds(name) or (None,))[0] == expected


def test_all_heads_of_grouped_queries() -> None:
    heads, size = SizeChange("h", "heads", 4, 2), SizeChange("d", "head_dim", 8, 6)
    cut = SourceCut({}, {"q": {0: (heads, size)}, "k": {0: (heads, size)}})
    facts = Sizes(cut, {"q": (64,), "k": (32,)}, {"q": (24,), "k": (12,)}).facts(["q", "k"])
    known = {(f.kind, f.before, f.after) for f in facts}
    assert {("heads", 8, 4), ("heads", 4, 2), ("head_dim", 8, 6), ("repeats", 2, 2)} <= known


def linear(outs: int, ins: int) -> torch.nn.Module:
    return torch.nn.Linear(ins, outs)


class Holder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = linear(16, 8)
        self.hidden_size = 16
        self.splits = {"left": 16, "window": 16}
        self.shape = (2, 16)
        self.scale = 16.0
        self.is_size = True


def test_numbers_in_containers_follow_and_floats_stay() -> None:
    module = Holder()
    cut = SourceCut({"wide.weight": {0: np.arange(10)}, "wide.bias": {0: np.arange(10)}})
    before = {name: tuple(p.shape) for name, p in module.named_parameters()}
    cut_tensors(module, cut)
    settled = {path: mend_layer(m, Layer(path, cut, before)) for path, m in module.named_modules()}
    after = {name: tuple(p.shape) for name, p in module.named_parameters()}
    for choice in choices(module, Sizes(cut, before, after), settled, None):
        choice.set(choice.options[0])
    assert module.hidden_size == module.wide.out_features == 10
    assert module.shape == (2, 10)
    assert module.scale == 16.0
    assert module.is_size is True


def test_grouped_convolutions_lose_whole_groups() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(12, 24, 1, groups=4))
    kept = np.array([0, 1, 3, 6, 7, 9, 18, 19, 20])  # three of six channels of groups 0, 1 and 3
    cut = SourceCut({"0.weight": {0: kept}, "0.bias": {0: kept}})
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    cut_tensors(module, cut)
    mend_layer(module[0], Layer("0", cut, shapes))
    assert (module[0].in_channels, module[0].out_channels, module[0].groups) == (9, 9, 3)
    assert module(torch.rand(1, 9, 2, 2)).shape == (1, 9, 2, 2)
    uneven = SourceCut({"0.weight": {0: np.array([0, 1, 6])}})
    module = torch.nn.Sequential(torch.nn.Conv2d(12, 24, 1, groups=4))
    cut_tensors(module, uneven)
    with pytest.raises(ModelError, match="different numbers of channels"):
        mend_layer(module[0], Layer("0", uneven, shapes))


def test_recurrent_layers_of_two_sizes_are_refused() -> None:
    module = torch.nn.Sequential(torch.nn.LSTM(4, 6, num_layers=2))
    gates = np.concatenate([np.arange(5) + 6 * gate for gate in range(4)])
    kept = {"0.weight_ih_l0": {0: gates}, "0.weight_hh_l0": {0: gates, 1: np.arange(5)}}
    kept |= {f"0.bias_{k}_l0": {0: gates} for k in ("ih", "hh")} | {"0.weight_ih_l1": {1: np.arange(5)}}
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    cut_tensors(module, SourceCut(kept))
    with pytest.raises(ModelError, match="different hidden sizes"):
        mend_layer(module[0], Layer("0", SourceCut(kept), shapes))


def test_padding_index_follows_its_row() -> None:
    module = torch.nn.Sequential(torch.nn.Embedding(6, 4, padding_idx=3))
    cut = SourceCut({"0.weight": {0: np.array([1, 3, 5])}})
    cut_tensors(module, cut)
    mend_layer(module[0], Layer("0", cut, {"0.weight": (6, 4)}))
    assert (module[0].num_embeddings, module[0].padding_idx) == (3, 1)


def test_added_biases_need_a_place() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=False), torch.nn.Embedding(3, 3))
    cut_tensors(module, SourceCut({}, added={"0.bias": np.ones(3, np.float32)}))
    assert isinstance(module[0].bias, torch.nn.Parameter)
    assert torch.equal(module[0](torch.zeros(1, 4)), torch.ones(1, 3))
    with pytest.raises(ModelError, match="has no place for one"):
        cut_tensors(module, SourceCut({}, added={"1.bias": np.ones(3, np.float32)}))


def test_ties_and_types_stay() -> None:
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)}).to(torch.bfloat16)
    module["b"].weight = module["a"].weight
    module["a"].weight.requires_grad_(False)
    kept = {axis: np.array([0, 2]) for axis in (0, 1)}
    assert cut_tensors(module, SourceCut({"a.weight": kept, "b.weight": kept})) == ()
    assert module["a"].weight is module["b"].weight
    assert module["a"].weight.dtype == torch.bfloat16
    assert not module["a"].weight.requires_grad
    one, other = ({0: np.array([position])} for position in (0, 1))
    assert cut_tensors(module, SourceCut({"a.weight": one, "b.weight": other})) == ("b.weight",)
    assert module["a"].weight.shape == module["b"].weight.shape == (1, 2)


def heads_of_two_sizes(second: list[int]) -> tuple[torch.nn.Module, Plan, SourceCut]:
    """Two heads of four; queries keep two of them, values as said."""
    module = torch.nn.ModuleDict({name: torch.nn.Linear(3, 8, bias=False) for name in ("q", "v")})
    units = {"q": [0, 1], "v": second}
    groups = [GroupPlan(name, "head_dim", True, 4, keep) for name, keep in units.items()]
    kept = {f"{n}.weight": {0: np.array([*keep, *(k + 4 for k in keep)])} for n, keep in units.items()}
    sizes = {f"{n}.weight": {0: (SizeChange(n, "head_dim", 4, len(keep)),)} for n, keep in units.items()}
    return module, Plan("", {}, {}, groups, []), SourceCut(kept, sizes)


def test_the_smaller_side_of_heads_is_filled_up_with_zeros() -> None:
    module, plan, cut = heads_of_two_sizes([0, 2, 3])
    arrays = {name: p.detach().numpy() for name, p in module.named_parameters()}
    leveled = level(module, plan, cut, arrays)
    assert leveled is not None
    new, filled = leveled
    assert filled == ("q.weight",)
    assert new.kept["q.weight"][0].tolist() == [0, 1, 2, 4, 5, 6]
    rows = new.values["q.weight"]
    assert np.array_equal(rows[[0, 1, 3, 4]], arrays["q.weight"][[0, 1, 4, 5]])
    assert not rows[[2, 5]].any()
    module, plan, cut = heads_of_two_sizes([2, 3])
    assert level(module, plan, cut, arrays) is None
