"""The weights of a Keras model by names that are unique and say where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from graphprune.converters.carrying.source_cut import Array


def layers_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer that is no model itself, once, with its name: ``encoder/conv1``."""
    yield from _layers(model, prefix, set())


def _layers(model: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        name = f"{prefix}{layer.name}"
        if isinstance(layer, keras.Model) and hasattr(layer, "layers"):
            yield from _layers(layer, f"{name}/", seen)
        else:
            yield name, layer


def variables_of(model: Any) -> dict[str, Any]:
    """Variables by name: ``conv1/kernel``, ``encoder/attention/query/kernel``."""
    found: dict[str, Any] = {}
    for name, layer in layers_of(model):
        for variable in layer.weights:
            found[named(name, layer, variable)] = variable
    return found


def named(name: str, layer: Any, variable: Any) -> str:
    """The name of one variable of a layer."""
    _, found, rest = variable.path.partition(f"{layer.name}/")
    return f"{name}/{rest if found else variable.name}"


def arrays_of(model: Any) -> dict[str, Array]:
    """Copies of all weights; a layer that is used twice is there once."""
    return {name: np.array(variable) for name, variable in variables_of(model).items()}
