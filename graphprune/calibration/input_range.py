"""The range that a model expects its pictures in, found from what it does with them.

The file does not say whether pixels are 0..255, 0..1, -1..1 or normalised. The model does: in a wrong range
its biases are far too large or too small, so that samples drown in what all have in common, and
activation functions see one sign only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.pieces import exposing
from graphprune.errors import GraphPruneError
from graphprune.model import Model

Array = npt.NDArray[np.generic]
_ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSwish", "HardSigmoid", "Sigmoid",
     "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Erf", "Mish", "Softplus", "Swish"}
)  # fmt: skip
_MOST_ACTIVATIONS = 12


@dataclass(frozen=True)
class InputRange:
    """How pictures of zero mean and unit variance become a model's inputs.

    Attributes:
        name: as people call it.
        spread: standard deviation of pixels.
        centre: their mean, which in photographs is a little darker than the middle.
        low: least value.
        high: largest value.
    """

    name: str
    spread: float
    centre: float
    low: float
    high: float

    def of(self, pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Pictures in this range."""
        placed = pictures * np.float32(self.spread) + np.float32(self.centre)
        return np.clip(placed, self.low, self.high, out=placed)


NORMALISED = InputRange("normalised", 1.1, 0.0, -2.7, 2.7)
BYTES = InputRange("0..255", 64.0, 115.0, 0.0, 255.0)
RANGES = (
    NORMALISED,
    InputRange("-1..1", 0.5, -0.1, -1.0, 1.0),
    InputRange("0..1", 0.25, 0.45, 0.0, 1.0),
    BYTES,
)


def best_range(
    model: Model, picture: str, probes: Mapping[InputRange, Sequence[Mapping[str, Array]]]
) -> InputRange:
    """The range in which the model is most itself; the first one if that can't be told.

    With BatchNormalization: where its inputs have the stored mean and variance. Otherwise: where outputs
    differ most between samples, compared with how they differ between each other, and where
    activation functions get both signs.

    Args:
        model: the model.
        picture: name of an input of pictures.
        probes: batches of the same samples in every range, two samples at least.
    """
    try:
        norms = _nodes(model, {"BatchNormalization"})
        judge: _Norms | _Liveliness = _Norms(model) if norms else _Liveliness(model, picture)
        scores = {candidate: judge.score(batches) for candidate, batches in probes.items()}
    except (GraphPruneError, RuntimeError, ValueError):  # it does not run here, or not with such inputs
        return next(iter(probes))
    return max(scores, key=lambda candidate: scores[candidate])


def _nodes(model: Model, kinds: frozenset[str] | set[str]) -> list[ir.Node]:
    return [node for node in model.ir.graph if node.op_type in kinds and node.inputs[0] is not None]


class _Exposed:
    """Runs a model and gives some of its values."""

    def __init__(self, model: Model, values: Sequence[ir.Value]) -> None:
        unique = {v.name or "": v for v in values}
        self._made = [name for name, v in unique.items() if v.producer() is not None]
        self._fed = [name for name in unique if name not in self._made]
        self._session = exposing(model, [unique[name] for name in self._made]) if self._made else None

    def run(self, batches: Sequence[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        for feeds in batches:
            values = {name: feeds[name] for name in self._fed if name in feeds}
            if self._session is not None:
                read = {i.name for i in self._session.get_inputs()}
                results = self._session.run(self._made, {k: v for k, v in feeds.items() if k in read})
                values |= dict(zip(self._made, results, strict=True))
            yield values


class _Norms:
    """How well the inputs of BatchNormalization agree with what it has stored."""

    def __init__(self, model: Model) -> None:
        stored = {}
        for node in _nodes(model, {"BatchNormalization"}):
            tensors = [v.const_value if v is not None else None for v in node.inputs[3:5]]
            value = node.inputs[0]
            if value is not None and len(tensors) == 2 and tensors[0] is not None and tensors[1] is not None:
                stored[value.name or ""] = (value, tensors[0].numpy(), tensors[1].numpy())
        self._stored = {name: (mean, var) for name, (_, mean, var) in stored.items()}
        self._exposed = _Exposed(model, [value for value, _, _ in stored.values()])

    def score(self, batches: Sequence[Mapping[str, Array]]) -> float:
        """Minus the median over norms of the mean divergence of normal distributions."""
        sums: dict[str, list[npt.NDArray[np.float64]]] = {}
        for values in self._exposed.run(batches):
            for name, array in values.items():
                rows = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1]).astype(np.float64)
                found = np.stack([np.full(rows.shape[1], len(rows)), rows.sum(0), (rows**2).sum(0)])
                sums.setdefault(name, []).append(found)
        divergences = []
        for name, parts in sums.items():
            count, total, squares = np.sum(parts, axis=0)
            mean, (stored_mean, stored_var) = total / count, self._stored[name]
            ratio = (squares / count - mean**2 + 1e-9) / (stored_var + 1e-9)
            shift = (mean - stored_mean) ** 2 / (stored_var + 1e-9)
            divergences.append(np.mean(ratio - 1 - np.log(np.maximum(ratio, 1e-12)) + shift))
        return -float(np.median(divergences)) if divergences else 0.0


class _Liveliness:
    """How much of what a model computes depends on the sample."""

    def __init__(self, model: Model, picture: str) -> None:
        outputs = [v for v in model.ir.graph.outputs if v.dtype is not None and v.dtype.is_floating_point()]
        read = [n.inputs[0] for n in _nodes(model, _ACTIVATIONS)]
        step = -(-len(read) // _MOST_ACTIVATIONS) or 1
        self._exposed = _Exposed(model, [*outputs, *(v for v in read[::step] if v is not None)])
        self._outputs = {v.name or "" for v in outputs}
        self._picture = picture

    def score(self, batches: Sequence[Mapping[str, Array]]) -> float:
        """Variety of the outputs times two-sidedness of the activations, each from 0 to 1."""
        outputs: dict[str, list[Array]] = {}
        signs: dict[str, list[Array]] = {}
        for feeds, values in zip(batches, self._exposed.run(batches), strict=True):
            size = len(feeds[self._picture])
            for name, array in values.items():
                if not array.ndim or len(array) != size:
                    continue
                if name in self._outputs:
                    outputs.setdefault(name, []).append(array.reshape(size, -1).astype(np.float64))
                else:
                    signs.setdefault(name, []).append((array > 0).reshape(size, -1))  # type: ignore[operator]
        variety = [_variety(np.concatenate(parts)) for parts in outputs.values()]
        sided = [_both_signs(np.concatenate(parts)) for parts in signs.values()]
        return float(np.mean(variety or [1.0]) * np.mean(sided or [1.0]))


def _variety(rows: npt.NDArray[np.float64]) -> float:
    """Variance between samples as a part of all variance; of one number, that it has any."""
    total = rows.var() if rows.shape[1] > 1 else np.mean(rows**2)
    return float(rows.var(axis=0).mean() / total) if np.isfinite(total) and total > 0 else 0.0


def _both_signs(positive: npt.NDArray[np.generic]) -> float:
    share = positive.mean(axis=0)
    return float(np.mean(4 * share * (1 - share)))
