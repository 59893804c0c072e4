"""What BatchNormalization should know of made-up samples, for as long as these are looked at.

A trained norm holds the mean and the variance of what it read in training.  So behind it, each channel has
the mean ``shift`` and the variance ``scale²``: on the data that nobody gave us, and not on made-up samples,
whose statistics are others.  With those of the made-up samples in their place, measured norm after norm along
the graph, it is so again, and the layers behind see moments that they were trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.axes_kept import Keeps
from graphprune.calibration.batch_norms import Norm, Statistics, norms_of, statistics_of
from graphprune.calibration.segments import Feeds, Segments
from graphprune.errors import GraphPruneError
from graphprune.model import Model

Vector = npt.NDArray[np.float64]
#: A channel that varies less than this part of its variance in training is not blown up to all of it.
_LEAST = 1e-4


class Substitutes:
    """Changes constants of a model, and puts them back.

    Args:
        model: the original; changed only within :meth:`applied`.
        threads: of onnxruntime.
    """

    def __init__(self, model: Model, threads: int = 0) -> None:
        self._model, self._threads = model, threads
        self._norms = {norm.name: norm for norm in norms_of(model) if norm.has_own_statistics}
        self._batches: Sequence[Feeds] | None = None
        self._found: dict[str, Statistics] | None = None
        self._pruned: tuple[Model, Keeps] | None = None
        self._applied = False
        self._true: dict[ir.Value, ir.TensorProtocol] = {}

    def fit(self, batches: Sequence[Feeds]) -> None:
        """The samples are known: within :meth:`applied`, statistics change now."""
        self._batches = batches
        if self._applied:
            self._exchange()

    @contextmanager
    def applied(self, pruned: Model | None = None, keeps: Keeps | None = None) -> Iterator[None]:
        """As soon as there are made-up samples, the norms hold the statistics of these.

        Args:
            pruned: a model that was cut before, with its true constants.  It has the substitutes too, and
                gets its true constants back; where its norms were changed in between, that counts
                relative to the substitutes.
            keeps: what it has kept.
        """
        self._pruned = (pruned, keeps) if pruned is not None and keeps is not None else None
        self._applied = True
        try:
            if self._batches is not None:
                self._exchange()
            yield
            if self._true and self._pruned is not None:
                self._translate(*self._pruned)
        finally:
            self._applied, self._pruned = False, None
            for value, tensor in self._true.items():
                value.const_value = tensor
            self._true.clear()

    def stored(self, norm: Norm) -> Statistics:
        """What a norm of the original holds in the file."""
        mean, variance = (self._true.get(v, v.const_value) for v in (norm.constant(3), norm.constant(4)))
        return Statistics(_numbers(mean), _numbers(variance))

    def _exchange(self) -> None:
        if self._found is None:
            self._measure()
        for name, found in (self._found or {}).items():
            self._set(self._norms[name], found)
        if self._pruned is not None:
            pruned, keeps = self._pruned
            for norm, found in self._pairs(pruned, keeps):
                self._set(norm, found)

    def _measure(self) -> None:
        assert self._batches is not None
        known: dict[str, Statistics] = {}
        segments = Segments(self._model, self._batches, self._threads) if self._norms else None
        try:
            for name, norm in self._norms.items():
                assert segments is not None
                segments.advance([norm.source])
                found = statistics_of(segments.values(norm.source.name or ""))
                if found is not None and found.mean.shape == self.stored(norm).mean.shape:
                    known[name] = self._substitute(norm, found)
                    self._set(norm, known[name])  # before the next norm is measured
        except GraphPruneError:
            # Whoever runs the whole model is told what is wrong with it.
            pass
        self._found = known

    def _substitute(self, norm: Norm, found: Statistics) -> Statistics:
        """With these, a norm makes of the samples what it makes of the training data."""
        true, epsilon = self.stored(norm).variance, norm.epsilon
        spread = np.maximum(found.variance, _LEAST * true)
        # The part of the variance that is left is var / (var + epsilon), in both cases.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            variance = spread + epsilon * (spread / true - 1.0)
        alive = np.isfinite(variance) & (true > 0)
        variance = np.where(alive, np.maximum(variance, _LEAST * true), np.maximum(true, spread))
        return Statistics(found.mean, variance)

    def _set(self, norm: Norm, found: Statistics) -> None:
        for value, numbers in ((norm.constant(3), found.mean), (norm.constant(4), found.variance)):
            assert value.const_value is not None
            self._true.setdefault(value, value.const_value)
            value.const_value = _like(self._true[value], numbers)

    def _pairs(self, pruned: Model, keeps: Keeps) -> Iterator[tuple[Norm, Statistics]]:
        """Norms of a pruned model with the substitutes of what they have kept."""
        for norm in norms_of(pruned):
            twin = self._norms.get(norm.name)
            found = (self._found or {}).get(norm.name)
            if twin is None or found is None or not norm.has_own_statistics:
                continue
            kept = keeps.of_input(twin.node, 3)
            mine = found.take(kept[0] if kept else None)
            if mine.mean.shape == tuple(norm.constant(3).const_value.shape.numpy()):  # type: ignore[union-attr]
                yield norm, mine

    def _translate(self, pruned: Model, keeps: Keeps) -> None:
        """Changes of a pruned model's norms are made to their true constants instead.

        The mean moved by so much, and the variance by this factor: that holds for the training data as well.
        """
        for norm, substitute in self._pairs(pruned, keeps):
            mean, variance = norm.constant(3), norm.constant(4)
            if mean not in self._true or variance not in self._true:
                continue  # it had others to begin with
            before = [_numbers(_like(self._true[v], x)) for v, x in (
                (mean, substitute.mean), (variance, substitute.variance)
            )]  # fmt: skip
            now = [_numbers(mean.const_value), _numbers(variance.const_value)]
            if all(map(np.array_equal, before, now)):
                continue
            true = [_numbers(self._true[mean]), _numbers(self._true[variance])]
            ratio = (now[1] + norm.epsilon) / (before[1] + norm.epsilon)
            moved = now[0] + (true[0] - before[0]) * np.sqrt(ratio)
            spread = np.maximum((true[1] + norm.epsilon) * ratio - norm.epsilon, 0.0)
            self._true[mean] = _like(self._true[mean], moved)
            self._true[variance] = _like(self._true[variance], spread)


def _numbers(tensor: ir.TensorProtocol | None) -> Vector:
    assert tensor is not None
    return np.asarray(tensor.numpy(), np.float64)


def _like(tensor: ir.TensorProtocol, numbers: Vector) -> ir.TensorProtocol:
    """Other numbers of the same type, as large as it can hold."""
    dtype = tensor.dtype.numpy()
    most = (
        float(np.finfo(dtype).max) if np.issubdtype(dtype, np.floating) else float(np.finfo(np.float32).max)
    )
    array = np.clip(numbers, -most, most).astype(dtype)
    return ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=tensor.name)
