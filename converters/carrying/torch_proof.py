"""Does a torch module compute what an ONNX model computes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphprune.converters.carrying.source_cut import Array
from graphprune.converters.carrying.torch_arrays import to_numpy
from graphprune.converters.torch_example import flatten_outputs

from graphprune.compare import Difference, Feeds, compare_outputs, run
from graphprune.errors import ModelError, ValidationError
from graphprune.model import Model

#: Two right evaluations of a float32 network stay below 1e-5 of the output's scale; a wrong one makes
#: more than 1e-3.
TOLERANCE = {"float16": 2e-2}
FLOAT32 = 1e-4


@dataclass(frozen=True)
class Reference:
    """What an ONNX model computes, and where the module gives the same.

    Attributes:
        places: name of an ONNX output -> name of the module's.
        tolerance: largest difference, of an output's scale, that is rounding.
    """

    places: Mapping[str, str]
    tolerance: float


def outputs_of(result: Any) -> dict[str, Array]:
    """The tensors that a module gives, by name."""
    return {name: to_numpy(tensor) for name, tensor in flatten_outputs(result).items()}


def reference(model: Model, feeds: Feeds, result: Any, dtype: str, where: str) -> Reference:
    """Finds the outputs of the uncut model among those of the module.

    Raises:
        ModelError: the module computes something else: the model was not made from it.
    """
    given = outputs_of(result)
    tolerance = TOLERANCE.get(dtype, FLOAT32)
    places: dict[str, str] = {}
    for name, array in run(model, feeds).items():
        free = [key for key in given if key not in places.values()]
        likely = sorted(free, key=lambda key: key != name)
        shapes = [key for key in likely if given[key].shape == array.shape]
        errors = {key: _error({name: array}, {name: given[key]}) for key in shapes}
        place = next((key for key in shapes if errors[key] <= tolerance), None)
        if place is None:
            what = f"the module is not what the model was made from: output '{name}' differs"
            if errors:
                because = f"it is off by {min(errors.values()):.2g} of its scale on the same random input"
            else:
                held = ", ".join(f"{key}{list(a.shape)}" for key, a in given.items())
                because = f"the model gives {list(array.shape)}, the module {held or 'no tensor'}"
            hint = "the module with the weights that were exported, or an example of its inputs"
            raise ModelError(what, where=where, because=because, hint=hint)
        places[name] = place
    return Reference(places, tolerance)


def distance(expected: Mapping[str, Any], result: Any, found: Reference) -> float:
    """The largest difference of the outputs, of their scale.

    Infinite where an output is missing or has another shape.
    """
    given = outputs_of(result)
    named = {name: given[place] for name, place in found.places.items() if place in given}
    return _error(expected, named)


def _error(expected: Mapping[str, Any], given: Mapping[str, Array]) -> float:
    try:
        differences: Sequence[Difference] = compare_outputs(expected, given)
    except ValidationError:
        return float("inf")
    return max((d.passing_tolerance for d in differences), default=0.0)
