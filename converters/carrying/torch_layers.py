"""The attributes of torch's own layers, read off their cut parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from graphprune.converters.carrying.source_cut import SourceCut
from graphprune.converters.carrying.torch_multihead import CutMultiheadAttention
from torch import nn

from graphprune.errors import ModelError


@dataclass(frozen=True)
class Layer:
    """A layer after its tensors have been cut.

    Attributes:
        path: of the module.
        cut: what was cut.
        shapes: of all tensors before, by name.
    """

    path: str
    cut: SourceCut
    shapes: Mapping[str, tuple[int, ...]]

    def name(self, key: str) -> str:
        """The full name of one of its tensors."""
        return f"{self.path}.{key}" if self.path else key

    def size(self, key: str, axis: int) -> int:
        """What an axis of one of its tensors was."""
        return self.shapes[self.name(key)][axis]

    def kept(self, key: str, axis: int) -> np.ndarray:
        """Positions of an axis of one of its tensors that stayed."""
        found = self.cut.kept.get(self.name(key), {}).get(axis)
        return np.arange(self.size(key, axis)) if found is None else np.asarray(found)

    def refusal(self, module: nn.Module, because: str) -> ModelError:
        """An error that names the layer."""
        what = f"'{self.path}', a {type(module).__name__}, can't be carried"
        return ModelError(what, because=because, hint="leave its groups out: --exclude")


def _conv(module: Any, layer: Layer) -> None:
    outs, ins = module.weight.shape[:2]
    if module.transposed:
        outs, ins = ins, outs
    module.groups = _runs_left(module, layer, "weight", module.groups)
    if module.transposed:
        module.in_channels, module.out_channels = ins, outs * module.groups
    else:
        module.in_channels, module.out_channels = ins * module.groups, outs


def _runs_left(module: nn.Module, layer: Layer, key: str, runs: int) -> int:
    """Axis 0 is made of equal runs: of how many does something stay?"""
    if runs == 1:
        return 1
    _, counts = np.unique(layer.kept(key, 0) // (layer.size(key, 0) // runs), return_counts=True)
    if len(set(counts.tolist())) > 1:
        raise layer.refusal(module, "its groups would have different numbers of channels")
    return len(counts)


def _linear(module: Any, layer: Layer) -> None:
    module.out_features, module.in_features = module.weight.shape


def _bilinear(module: Any, layer: Layer) -> None:
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _batch_norm(module: Any, layer: Layer) -> None:
    tensor = module.weight if module.weight is not None else module.running_mean
    if tensor is not None:
        module.num_features = len(tensor)


def _group_norm(module: Any, layer: Layer) -> None:
    if module.weight is not None:
        module.num_groups = _runs_left(module, layer, "weight", module.num_groups)
        module.num_channels = len(module.weight)


def _layer_norm(module: Any, layer: Layer) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _embedding(module: Any, layer: Layer) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape
    if module.padding_idx is not None:
        at = np.flatnonzero(layer.kept("weight", 0) == module.padding_idx)
        module.padding_idx = int(at[0]) if len(at) else None


def _prelu(module: Any, layer: Layer) -> None:
    module.num_parameters = module.weight.numel()


def _recurrent(module: Any, layer: Layer) -> None:
    """One input size and one hidden size for all layers and directions."""
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    directions = 2 if module.bidirectional else 1
    hidden = {w.shape[0] // gates for name, w in module._parameters.items() if name.startswith("weight_ih")}
    outs = {w.shape[1] for name, w in module._parameters.items() if name.startswith("weight_hh")}
    if len(hidden) > 1 or len(outs) > 1:
        because = "its layers or directions would have different hidden sizes"
        raise layer.refusal(module, because)
    (size,), (out,) = hidden, outs
    for i in range(1, module.num_layers):
        if module._parameters[f"weight_ih_l{i}"].shape[1] != out * directions:
            raise layer.refusal(module, f"layer {i} would not read all that layer {i - 1} gives")
    module.hidden_size, module.proj_size = size, out if module.proj_size else 0
    module.input_size = module._parameters["weight_ih_l0"].shape[1]
    # The list by which the kernels get the weights still holds the uncut ones.
    module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
    module.flatten_parameters()


def _recurrent_cell(module: Any, layer: Layer) -> None:
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


def _attention(module: Any, layer: Layer) -> None:
    heads, size = module.num_heads, module.head_dim
    had = (size, size, size)
    if isinstance(module, CutMultiheadAttention):
        had = (module.key_dim, module.key_dim, module.value_dim)
    if module.bias_k is not None or module.add_zero_attn:
        changed = any(layer.cut.kept.get(layer.name(key)) for key in module._parameters)
        if changed:
            raise layer.refusal(module, "it adds a key and a value of its own (add_bias_kv, add_zero_attn)")
        return
    if module.in_proj_weight is not None:
        ends = np.cumsum([heads * each for each in had])
        kept = np.isin(np.arange(ends[-1]), layer.kept("in_proj_weight", 0))
        sections = np.split(kept, ends[:-1])
        width = kdim = vdim = module.in_proj_weight.shape[1]
    else:
        keys = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        lengths = [heads * each for each in had]
        sections = [np.isin(np.arange(n), layer.kept(key, 0)) for n, key in zip(lengths, keys, strict=True)]
        width, kdim, vdim = (module._parameters[key].shape[1] for key in keys)
    counts = [section.reshape(heads, -1).sum(axis=1) for section in sections]
    alive = counts[0] > 0
    for count in counts:
        if (alive != (count > 0)).any() or len(set(count[alive].tolist())) > 1:
            raise layer.refusal(module, "its heads would have different sizes")
    key_dim, query_dim, value_dim = (int(count[alive][0]) for count in (counts[1], counts[0], counts[2]))
    if key_dim != query_dim:
        raise layer.refusal(module, "its queries and keys would have different sizes")
    module.num_heads = int(alive.sum())
    module.embed_dim, module.kdim, module.vdim = width, kdim, vdim
    fits = module.out_proj.weight.shape[0] == width == module.num_heads * key_dim
    if fits and key_dim == value_dim == size and not isinstance(module, CutMultiheadAttention):
        return
    scale = module.scale if isinstance(module, CutMultiheadAttention) else size**-0.5
    module.__class__ = CutMultiheadAttention
    module.head_dim, module.key_dim, module.value_dim, module.scale = key_dim, key_dim, value_dim, scale
    module._qkv_same_embed_dim = False  # or the fused layer around it computes by the old sizes


Rule = Callable[[Any, Layer], None]
#: A class, its rule, and the attributes that the rule settles.
RULES: tuple[tuple[type[nn.Module], Rule, frozenset[str]], ...] = tuple(
    (cls, rule, frozenset(names.split()))
    for cls, rule, names in (
        (nn.modules.conv._ConvNd, _conv, "in_channels out_channels groups"),
        (nn.Linear, _linear, "in_features out_features"),
        (nn.Bilinear, _bilinear, "in1_features in2_features out_features"),
        (nn.modules.batchnorm._NormBase, _batch_norm, "num_features"),
        (nn.GroupNorm, _group_norm, "num_groups num_channels"),
        (nn.LayerNorm, _layer_norm, "normalized_shape"),
        (nn.RMSNorm, _layer_norm, "normalized_shape"),
        (nn.Embedding, _embedding, "num_embeddings embedding_dim padding_idx"),
        (nn.EmbeddingBag, _embedding, "num_embeddings embedding_dim padding_idx"),
        (nn.PReLU, _prelu, "num_parameters"),
        (nn.RNNBase, _recurrent, "input_size hidden_size proj_size num_layers"),
        (nn.RNNCellBase, _recurrent_cell, "input_size hidden_size"),
        (nn.MultiheadAttention, _attention, "embed_dim kdim vdim num_heads head_dim"),
    )
)


def mend_layer(module: nn.Module, layer: Layer) -> frozenset[str]:
    """Sets the attributes of a layer that is, or is derived from, one of torch's.

    Returns:
        names of the attributes that are settled; empty if it is none of torch's layers.

    Raises:
        ModelError: the layer can't have these sizes.
    """
    for cls, rule, names in RULES:
        if isinstance(module, cls):
            if not any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in module.parameters()):
                rule(module, layer)
            return names
    return frozenset()
