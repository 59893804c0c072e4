"""The proof of a carried Keras model once more, with random numbers in place of its weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from graphprune.converters.carrying import noise as numbers
from graphprune.converters.carrying.keras_arrays import variables_of
from graphprune.converters.carrying.keras_proof import Proof
from graphprune.converters.carrying.links import Link
from graphprune.converters.carrying.places import Place
from graphprune.converters.carrying.source_cut import Array

from graphprune.errors import ValidationError
from graphprune.model import Model
from graphprune.plan import Plan

NOT_REPEATED = (
    "proven with the model's own weights alone, since the ONNX model can't be given random ones: where the "
    "outputs hardly depend on a layer, they do not show what was done to it"
)


def proven_again(
    proof: Proof,
    pair: tuple[Model, Model],
    plan: Plan,
    links: Mapping[Place, Link],
    planned: Collection[str],
    models: tuple[Any, Any],
    smaller: Callable[[Mapping[str, Array]], Mapping[str, Array]],
) -> bool:
    """Compares with random weights; False if none make the uncut two the same function.

    Args:
        proof: the inputs and the comparison.
        pair: the uncut ONNX model and the plain cut of it.
        plan: of the cut.
        links: what the uncut model's constants are made of.
        planned: arrays that the plan cuts.
        models: the original Keras model and the carried one.
        smaller: makes the carried model's arrays of the original's.

    Raises:
        ValidationError: the carried model computes something else than the cut one.
    """
    original, carried = models
    arrays = {name: np.array(variable) for name, variable in variables_of(original).items()}
    for way, names, seed in numbers.draws(pair[0], plan, links, arrays, planned):
        noisy = arrays | {n: numbers.drawn(arrays[n], seed).astype(arrays[n].dtype) for n in names}
        given = numbers.constants(way, names, noisy)
        uncut = numbers.reading(pair[0], given, is_cut=False)
        cut = numbers.reading(pair[1], given, is_cut=True)
        if uncut is None or cut is None:
            continue
        with _holding(original, noisy):
            try:
                tolerance = proof.uncut_tolerance(original, uncut)
            except ValidationError:
                continue
        if tolerance is not None:
            with _holding(carried, smaller(noisy)):
                proof.error(carried, cut, tolerance)
            return True
    return False


@contextmanager
def _holding(model: Any, arrays: Mapping[str, Array]) -> Iterator[None]:
    """A model holds other numbers inside this block; zeros where there are none (a new bias)."""
    variables = variables_of(model)
    real = {name: np.array(variable) for name, variable in variables.items()}
    try:
        for name, variable in variables.items():
            variable.assign(arrays[name] if name in arrays else np.zeros_like(real[name]))
        yield
    finally:
        for name, variable in variables.items():
            variable.assign(real[name])
