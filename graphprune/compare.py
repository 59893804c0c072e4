"""Are two models the same function?  Same inputs, all outputs, and the tolerance that would pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from graphprune.errors import ValidationError
from graphprune.fed import FedSession, can_be_fed, contiguous
from graphprune.model import Model
from graphprune.runtime import session_options
from graphprune.storage.streaming import Stream
from graphprune.widened import wide_float, widened

Feeds = Mapping[str, npt.NDArray[np.generic]]
#: Protobuf messages end at 2 GiB; the weights of larger models stay where they are.
_IN_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Difference:
    """How far one output is apart.

    Attributes:
        output: its name.
        max_error: largest absolute difference (infinite when only one side is finite).
        mean_error: mean absolute difference.
        scale: largest absolute value of the reference.
        cosine: cosine similarity of the flattened outputs.
        compared: number of elements that are finite on both sides.
    """

    output: str
    max_error: float
    mean_error: float
    scale: float
    cosine: float
    compared: int = 1

    def within(self, tolerance: float) -> bool:
        """Is the largest difference at most ``tolerance`` times the reference's scale?"""
        return self.max_error <= tolerance * max(self.scale, 1e-6)

    @property
    def passing_tolerance(self) -> float:
        """The smallest tolerance that would pass."""
        return self.max_error / max(self.scale, 1e-6)

    @property
    def round_tolerance(self) -> str:
        """The smallest of two digits that would pass."""
        least = self.passing_tolerance
        if not 0 < least < np.inf:
            return f"{least:g}"
        digit = 10.0 ** (np.floor(np.log10(least)) - 1)
        return f"{np.ceil(least / digit * (1 + 1e-9)) * digit:.2g}"


def session(model: Model, *, optimize: bool = False) -> ort.InferenceSession | FedSession:
    """An onnxruntime CPU session; in float32 for what the model does in bfloat16.

    Raises:
        ValidationError: onnxruntime refuses the model.
    """
    model = widened(model)
    options = session_options()
    if optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    try:
        if model.weight_bytes < _IN_MEMORY_BYTES:
            return ort.InferenceSession(
                model.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        stream = Stream(model.ir)
        weights = {name: tensor for name, tensor in stream.weights.items() if can_be_fed(tensor)}
        proto = stream.skeleton(weights)
        return FedSession(proto, {name: contiguous(t) for name, t in weights.items()}, options)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        message = "onnxruntime refuses the model"
        raise ValidationError(message, because=_short(error)) from error


def run(model: Model | ort.InferenceSession | FedSession, feeds: Feeds) -> dict[str, npt.NDArray[np.generic]]:
    """All outputs of a model (run as written, unless a session is given).

    Raises:
        ValidationError: the model does not load or run.
    """
    runner = session(model) if isinstance(model, Model) else model
    try:
        names = [o.name for o in runner.get_outputs()]
        known = {i.name for i in runner.get_inputs()}
        wide = {i.name for i in runner.get_inputs() if i.type == "tensor(float)"}
        given = {k: v for k, v in feeds.items() if k in known}
        for name in wide & given.keys():
            given[name] = wide_float(given[name])  # see `widened`
        results = runner.run(names, given)
    except Exception as error:
        message = "onnxruntime can't run the model"
        shapes = ", ".join(f"{k}{list(v.shape)}" for k, v in feeds.items())
        raise ValidationError(message, where=shapes, because=_short(error)) from error
    return dict(zip(names, results, strict=True))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def compare_outputs(
    reference: Mapping[str, npt.NDArray[np.generic]], other: Mapping[str, npt.NDArray[np.generic]]
) -> list[Difference]:
    """Differences of all outputs.

    Raises:
        ValidationError: an output is missing or has another shape; never a skip.
    """
    found: list[Difference] = []
    for name, expected in reference.items():
        if name not in other:
            message = f"output '{name}' is missing"
            raise ValidationError(message, because=f"the model has {', '.join(other)}")
        found.extend(_difference(name, expected, other[name]))
    return found


def _difference(name: str, expected: object, actual: object) -> Sequence[Difference]:
    if isinstance(expected, (list, dict)):
        return _entries(name, expected, actual)
    if isinstance(expected, (int, float)) and isinstance(actual, (int, float)):  # entries of a map
        expected, actual = np.asarray(expected), np.asarray(actual)
    if not isinstance(expected, np.ndarray) or not isinstance(actual, np.ndarray):
        # An optional without a value is equal to no array.
        return [_same(name, type(expected) is type(actual) and bool(expected == actual))]
    if expected.dtype.kind in "OUS":
        return [_same(name, bool(np.array_equal(expected, np.asarray(actual, object))))]
    if expected.shape != actual.shape:
        message = f"output '{name}' has shape {list(actual.shape)} instead of {list(expected.shape)}"
        raise ValidationError(message)
    a, b = expected.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
    if not a.size:
        return [Difference(name, 0.0, 0.0, 0.0, 1.0)]  # an empty output is equal to itself
    finite = np.isfinite(a) & np.isfinite(b)
    same = finite | (a == b) | (np.isnan(a) & np.isnan(b))
    error = np.abs(a[finite] - b[finite])
    worst = float(error.max(initial=0.0)) if same.all() else float("inf")
    scale = float(np.abs(a[finite]).max(initial=0.0))
    norm = float(np.linalg.norm(a[finite]) * np.linalg.norm(b[finite]))
    cosine = float(a[finite] @ b[finite]) / norm if norm else float(worst == 0)
    return [
        Difference(
            name,
            worst,
            float(error.mean()) if error.size else 0.0,
            scale,
            cosine,
            int(finite.sum()),
        )
    ]


def _entries(name: str, expected: object, actual: object) -> Sequence[Difference]:
    """Differences of all entries of a sequence or of a map, each under a name of its own."""
    if type(expected) is not type(actual):
        return [_same(name, False)]
    mine, others = _by_key(expected), _by_key(actual)
    if list(mine) != list(others):
        message = f"output '{name}' has {len(others)} entries instead of {len(mine)}, or others"
        raise ValidationError(message)
    entries = [found for key in mine for found in _difference(f"{name}[{key}]", mine[key], others[key])]
    return entries or [_same(name, True)]


def _by_key(entries: object) -> dict[object, object]:
    if isinstance(entries, list):
        return dict(enumerate(entries))
    return entries if isinstance(entries, dict) else {}


def _same(name: str, same: bool) -> Difference:
    """Of what has no distance."""
    return Difference(name, 0.0 if same else float("inf"), 0.0, 1.0, float(same))
