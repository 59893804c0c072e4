"""Does a Keras model compute what an ONNX model computes?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from graphprune.converters.carrying.noise import MAGNIFIED, MOST, MOVED
from graphprune.converters.carrying.source_cut import Array
from graphprune.converters.quiet import quiet

from graphprune.compare import compare_outputs, run
from graphprune.errors import ModelError, ValidationError
from graphprune.feasible_inputs import feasible_inputs
from graphprune.foreign import runnable
from graphprune.model import Model
from graphprune.plan import Plan
from graphprune.shapes.trace import trace

#: Two right evaluations of a float32 network stay below 1e-5 of the output's scale; a wrong one makes
#: more than 1e-3.
FLOAT32, HALF = 1e-4, 5e-2


class Proof:
    """The same random inputs for both sides.

    Args:
        source: the uncut ONNX model.
        plan: that was applied.
        original: the Keras model that it was made from.
        seed: of the inputs.

    Raises:
        ModelError: the two are not the same function to begin with.
    """

    def __init__(self, source: Model, plan: Plan, original: Any, seed: int) -> None:
        self._feeds = feasible_inputs(runnable(source), [trace(source).dims], seed)[0]
        self._smaller = dict(self._feeds)
        for entry in plan.interface:
            if entry.kind == "input":
                self._smaller[entry.name] = self._smaller[entry.name].take(entry.keep, axis=entry.axis)
        halves = any(keras.backend.standardize_dtype(w.dtype) != "float32" for w in original.weights)
        self.tolerance = HALF if halves else FLOAT32
        self._expected = run(source, self._feeds)
        error = self._distance(original, self._feeds, self._expected)
        if not error <= self.tolerance:
            what = "the Keras model is not what the ONNX model was made from"
            because = f"it is off by {error:.2g} of the outputs' scale on the same random input"
            hint = "the model with the weights that were converted"
            raise ModelError(what, because=because, hint=hint)

    def uncut_tolerance(self, original: Any, source: Model) -> float | None:
        """What is rounding where both hold random weights.

        Returns:
            None if they are not the same function, or what they were with their own weights.

        Raises:
            ValidationError: the ONNX model does not run with them.
        """
        made = run(source, self._feeds)
        finite = all(np.isfinite(np.asarray(array, np.float64)).any() for array in made.values())
        error = self._distance(original, self._feeds, made)
        moved = max(d.passing_tolerance for d in compare_outputs(made, self._expected))
        if not finite or not error <= self.tolerance or moved < MOVED:
            return None
        return max(self.tolerance, min(MAGNIFIED * error, MOST))

    def error(self, carried: Any, pruned: Model, tolerance: float | None = None) -> float:
        """The largest difference of the carried model from the pruned one, of the outputs' scale.

        Args:
            carried: the Keras model.
            pruned: the ONNX model.
            tolerance: difference that is rounding; None: what is usual.

        Raises:
            ValidationError: it is more than rounding.
        """
        found = self._distance(carried, self._smaller, run(pruned, self._smaller))
        if not found <= (self.tolerance if tolerance is None else tolerance):
            what = "the carried Keras model is not what the pruned model computes"
            because = f"it is off by {found:.2g} of the outputs' scale"
            raise ValidationError(what, because=because, hint="please report it, with the model")
        return found

    def change(self, pruned: Model) -> float | None:
        """How far the cut moved the outputs; None where they have other shapes."""
        try:
            differences = compare_outputs(self._expected, run(pruned, self._smaller))
        except ValidationError:
            return None
        return max(d.passing_tolerance for d in differences)

    def _distance(self, model: Any, feeds: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
        names = [tensor.name for tensor in model.inputs]
        if not set(names) <= set(feeds):
            names = list(feeds)  # the exporter renamed them, in order
        given = [keras.ops.convert_to_tensor(feeds[name]) for name in names]
        with quiet():
            result = model(given if len(given) > 1 else given[0], training=False)
        flat = [np.asarray(tensor) for tensor in keras.tree.flatten(result)]
        if len(flat) != len(expected):
            return float("inf")
        try:
            differences = compare_outputs(expected, dict(zip(expected, flat, strict=True)))
        except ValidationError:
            return float("inf")
        return max(d.passing_tolerance for d in differences)
