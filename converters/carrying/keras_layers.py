"""How a layer's configuration says the sizes of its weights: one small function per kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras import layers

from graphprune.errors import ModelError

Config = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What becomes of one layer's variables.

    Attributes:
        shapes: id of a variable -> its new shape.
        groups: kind of a structure -> units before -> units after, as the layer's axes hold them.
    """

    shapes: Mapping[int, tuple[int, ...]]
    groups: Mapping[str, Mapping[int, int]]

    def of(self, variable: Any) -> tuple[int, ...]:
        """The new shape of a variable."""
        return self.shapes[id(variable)]

    def changed(self, variable: Any) -> bool:
        """Is it another one?"""
        return self.of(variable) != tuple(variable.shape)


def mended(layer: Any, config: Config, sizes: Sizes) -> Config:
    """The configuration of the smaller layer.

    Raises:
        ModelError: there is no rule for the layer, and one of its weights is cut.
    """
    found = {key: value for key, value in config.items() if key != "build_config"}
    for kinds, rule in RULES:
        if isinstance(layer, kinds):
            rule(layer, found, sizes)
            return found
    if any(sizes.changed(variable) for variable in layer.weights):
        what = f"there is no telling how a {type(layer).__name__} gets smaller"
        hint = f"leave its weights out of the plan: --exclude '*{layer.name}*'"
        raise ModelError(what, where=f"layer '{layer.name}'", hint=hint)
    return found


def _dense(layer: Any, config: Config, sizes: Sizes) -> None:
    config["units"] = sizes.of(layer.kernel)[-1]


def _convolution(layer: Any, config: Config, sizes: Sizes) -> None:
    config["filters"] = sizes.of(layer.kernel)[-1]
    _groups(config, sizes, "conv_groups")


def _transposed(layer: Any, config: Config, sizes: Sizes) -> None:
    config["filters"] = sizes.of(layer.kernel)[-2]


def _depthwise(layer: Any, config: Config, sizes: Sizes) -> None:
    config["depth_multiplier"] = sizes.of(layer.kernel)[-1]


def _separable(layer: Any, config: Config, sizes: Sizes) -> None:
    config["filters"] = sizes.of(layer.pointwise_kernel)[-1]
    config["depth_multiplier"] = sizes.of(layer.depthwise_kernel)[-1]


def _embedding(layer: Any, config: Config, sizes: Sizes) -> None:
    config["input_dim"], config["output_dim"] = sizes.of(layer.embeddings)


def _einsum(layer: Any, config: Config, sizes: Sizes) -> None:
    inputs, output = layer.equation.replace("...", "").split("->")
    letters = dict(zip(inputs.split(",")[1], sizes.of(layer.kernel), strict=True))
    asked = config["output_shape"]
    asked = list(asked) if isinstance(asked, (list, tuple)) else [asked]
    names = output[len(output) - len(asked) :]
    config["output_shape"] = [letters.get(n, size) for n, size in zip(names, asked, strict=True)]


def _recurrent(layer: Any, config: Config, sizes: Sizes) -> None:
    config["units"] = sizes.of(layer.cell.recurrent_kernel)[0]


def _group_norm(layer: Any, config: Config, sizes: Sizes) -> None:
    if config["groups"] != -1:
        _groups(config, sizes, "norm_groups")


def _attention(layer: Any, config: Config, sizes: Sizes) -> None:
    width, config["num_heads"], config["key_dim"] = sizes.of(layer.query_dense.kernel)
    config["value_dim"] = sizes.of(layer.value_dense.kernel)[-1]
    made = sizes.of(layer.output_dense.kernel)[-1]
    config["output_shape"] = None if made == width and config.get("output_shape") is None else [made]


def _grouped_attention(layer: Any, config: Config, sizes: Sizes) -> None:
    _, config["num_query_heads"], config["head_dim"] = sizes.of(layer._query_dense.kernel)
    config["num_key_value_heads"] = sizes.of(layer._key_dense.kernel)[1]


def _wrapped(layer: Any, config: Config, sizes: Sizes) -> None:
    inner = layer.forward_layer if isinstance(layer, layers.Bidirectional) else layer.layer
    config["layer"] = {**config["layer"], "config": mended(inner, config["layer"]["config"], sizes)}
    config["layer"].pop("build_config", None)
    if config.get("backward_layer"):
        back = config["backward_layer"]
        config["backward_layer"] = {**back, "config": mended(layer.backward_layer, back["config"], sizes)}
        config["backward_layer"].pop("build_config", None)


def _sizeless(layer: Any, config: Config, sizes: Sizes) -> None:
    """Vectors as long as the data is wide: nothing in the configuration."""


def _groups(config: Config, sizes: Sizes, kind: str) -> None:
    before = config.get("groups", 1)
    config["groups"] = sizes.groups.get(kind, {}).get(before, before)


# The first that fits; subclasses therefore stand before their bases.
RULES: tuple[tuple[tuple[type, ...], Callable[[Any, Config, Sizes], None]], ...] = (
    ((layers.Dense,), _dense),
    ((layers.EinsumDense,), _einsum),
    ((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
    ((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _convolution),
    ((layers.Embedding,), _embedding),
    ((layers.LSTM, layers.GRU, layers.SimpleRNN), _recurrent),
    ((layers.GroupNormalization,), _group_norm),
    (
        (layers.BatchNormalization, layers.LayerNormalization, layers.RMSNormalization, layers.PReLU),
        _sizeless,
    ),
    ((layers.MultiHeadAttention,), _attention),
    ((layers.GroupQueryAttention,), _grouped_attention),
    ((layers.TimeDistributed, layers.Bidirectional), _wrapped),
)
