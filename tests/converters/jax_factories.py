"""Factories that the JAX converter's tests name; imported only where JAX is."""

from __future__ import annotations

from typing import Any

import equinox
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import same_network
from flax import nnx

ZEROS = nnx.initializers.zeros_init()  # to compile a random initialiser takes seconds


class Tokens(nnx.Module):
    """Two inputs, one by keyword; a dropout; outputs in a mapping."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.table = nnx.Embed(11, 6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, ids: jax.Array, offset: float = 0.0, *, mask: jax.Array) -> dict[str, Any]:
        hidden = self.drop(self.table(ids)) * mask[..., None] + offset
        return {"pooled": hidden.mean(1), "all": (self.head(hidden),)}


def tokens() -> tuple[nnx.Module, dict[str, Any]]:
    ids = np.arange(14).reshape(2, 7) % 11
    return Tokens(), {"ids": ids, "mask": np.ones((2, 7)), "offset": 0.5}


def equinox_mlp() -> tuple[equinox.Module, jax.Array]:
    """Takes one sample; the example has a batch of them."""
    parts = [equinox.nn.Linear(6, 8, key=jax.random.key(0)), equinox.nn.Lambda(jax.nn.relu)]
    parts += [equinox.nn.Dropout(0.5), equinox.nn.Linear(8, 3, key=jax.random.key(1))]
    return equinox.nn.Sequential(parts), jax.random.normal(jax.random.key(2), (2, 6))


def function() -> tuple[Any, jax.Array]:
    weight = jax.random.normal(jax.random.key(0), (6, 3))
    return jax.jit(lambda x: jnp.tanh(x @ weight)), jnp.ones((2, 6))


def plain_function() -> tuple[Any, np.ndarray]:
    weight = jax.random.normal(jax.random.key(0), (6, 3))
    return lambda x: jnp.tanh(x @ weight), np.ones((2, 6))


def linen() -> tuple[Any, jax.Array]:
    network, example = flax.linen.Dense(3), jnp.ones((2, 6))
    return network.bind(network.init(jax.random.key(0), example)), example


def unbound() -> tuple[Any, jax.Array]:
    return flax.linen.Dense(3), jnp.ones((2, 6))


def bare() -> nnx.Module:
    return nnx.Linear(6, 3, rngs=nnx.Rngs(0))


def misfit() -> tuple[Any, tuple[jax.Array, jax.Array]]:
    return bare(), (jnp.ones((2, 6)),) * 3


def fixed_batch() -> tuple[Any, jax.Array]:
    return lambda x: x.reshape(2, 3), jnp.ones((2, 3))


def linear(weight: np.ndarray, bias: np.ndarray) -> nnx.Linear:
    layer = nnx.Linear(*weight.shape, kernel_init=ZEROS, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = jnp.asarray(weight), jnp.asarray(bias)
    return layer


class SameDense(nnx.Module):
    def __init__(self) -> None:
        self.a, self.b, self.c = (linear(*layer) for layer in same_network.dense_layers())

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.c(nnx.relu(self.b(nnx.relu(self.a(x)))))


def same_dense() -> tuple[nnx.Module, np.ndarray]:
    return SameDense(), same_network.rows()


def same_dense_in_equinox() -> tuple[equinox.Module, np.ndarray]:
    network = equinox.nn.MLP(6, 4, 16, 2, key=jax.random.key(0))
    made = []
    for weight, bias in same_network.dense_layers():
        layer = equinox.nn.Linear(*weight.shape, key=jax.random.key(0))
        arrays = (jnp.asarray(weight.T), jnp.asarray(bias))
        made.append(equinox.tree_at(lambda part: (part.weight, part.bias), layer, arrays))
    return equinox.tree_at(lambda part: part.layers, network, tuple(made)), same_network.rows()


def same_dense_as_a_function() -> tuple[Any, jax.Array]:
    layers = [tuple(map(jnp.asarray, layer)) for layer in same_network.dense_layers()]

    def network(x: jax.Array) -> jax.Array:
        for weight, bias in layers[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ layers[-1][0] + layers[-1][1]

    return network, jnp.asarray(same_network.rows())


class SameImage(nnx.Module):
    def __init__(self) -> None:
        convolutions, head = same_network.image_layers()
        self.convolutions = nnx.List([self.convolution(c.kernel) for c in convolutions])
        self.norms = nnx.List([self.norm(c) for c in convolutions])
        self.head = linear(*head)

    @staticmethod
    def convolution(kernel: np.ndarray) -> nnx.Conv:
        sizes = (kernel.shape[1], len(kernel), (3, 3))
        layer = nnx.Conv(*sizes, use_bias=False, kernel_init=ZEROS, rngs=nnx.Rngs(0))
        layer.kernel[...] = jnp.asarray(kernel.transpose(2, 3, 1, 0))
        return layer

    @staticmethod
    def norm(numbers: same_network.Convolution) -> nnx.BatchNorm:
        layer = nnx.BatchNorm(len(numbers.mean), epsilon=same_network.EPSILON, rngs=nnx.Rngs(0))
        layer.scale[...], layer.bias[...] = jnp.asarray(numbers.gamma), jnp.asarray(numbers.beta)
        layer.mean[...], layer.var[...] = jnp.asarray(numbers.mean), jnp.asarray(numbers.variance)
        return layer

    def layer(self, i: int, x: jax.Array) -> jax.Array:
        return self.norms[i](self.convolutions[i](x))

    def __call__(self, x: jax.Array) -> jax.Array:
        stem = nnx.relu(self.layer(0, x))
        h = nnx.relu(stem + self.layer(2, nnx.relu(self.layer(1, stem))))
        h = nnx.max_pool(h, window_shape=(2, 2), strides=(2, 2))  # jax2onnx wants it by keyword
        return self.head(nnx.relu(self.layer(3, h)).mean((1, 2)))


def same_image() -> tuple[nnx.Module, np.ndarray]:
    return SameImage(), same_network.images().transpose(0, 2, 3, 1)
