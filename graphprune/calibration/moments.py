"""First and second moments of what each layer reads, reduced as the samples go by.

One run of the original model with the tensors in question exposed; products in single precision, sums in
double.  Activations are never kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.landing import Landing
from graphprune.calibration.linear import Linear
from graphprune.calibration.pieces import exposing
from graphprune.calibration.rows import spread, weights_of
from graphprune.calibration.segments import Feeds
from graphprune.calibration.shrinkage import Shrinkage, likeliest
from graphprune.model import Model
from graphprune.progress import Progress, counted, silent
from graphprune.steady import product

Matrix = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]
#: Rows per feature that are looked at: enough to tell which features matter.
ROWS_PER_FEATURE = 24
#: Layers with more features are neither judged nor re-solved: second moments grow with the square.
MAX_FEATURES = 6144
#: Bytes that second moments may take in memory; there are more passes over the samples beyond it.
MOMENTS_BYTES = 1 << 30


@dataclass
class Moments:
    """What is known of the inputs of one layer.

    Attributes:
        count: rows seen.
        mean: ``[groups, d]``.
        second: ``[groups, d, d]``, ``E[x xᵀ]``.
        energy: variance of the layer's output, or of the sum that it is added to, summed over channels; of
            an output that never changes, its square.
        shrinkage: how far its covariances are from certain.
    """

    count: int
    mean: Matrix
    second: Matrix
    energy: float
    shrinkage: Shrinkage = field(default_factory=Shrinkage)

    def about(self, mean: Matrix) -> Matrix:
        """``[groups, d, d]``, second moments about other means."""
        cross = mean[:, :, None] * self.mean[:, None, :]
        return np.asarray(
            self.second - cross - cross.transpose(0, 2, 1) + mean[:, :, None] * mean[:, None, :]
        )

    def shrunk(self, *, centred: bool = True) -> Matrix:
        """The covariance, or the second moment, as far as it is certain."""
        matrices = self.covariance if centred else self.second
        return np.stack([self.shrinkage(matrix, self.count) for matrix in matrices])

    @property
    def covariance(self) -> Matrix:
        """``[groups, d, d]``."""
        return np.asarray(self.second - self.mean[:, :, None] * self.mean[:, None, :])


@dataclass
class Sampler:
    """Which rows of a layer are looked at.

    Attributes:
        seed: of the choice.
        per_feature: rows per feature in all.
        samples: how many samples there are in all.
    """

    seed: int
    samples: int
    per_feature: int = ROWS_PER_FEATURE

    def pick(
        self, layer: Linear, features: int, output: tuple[int, ...], batch: int
    ) -> npt.NDArray[np.int64] | None:
        """``[samples of the batch, k]`` positions of the output; None for all."""
        there = layer.positions(output)
        wanted = max(1, -(-features * self.per_feature // max(self.samples, 1)))
        if there <= 1 or wanted >= there:
            return None
        # A name is the same in the original and in the pruned model: so are the positions.
        name = (layer.output.name or "").encode()
        rng = np.random.default_rng([self.seed, batch, *name])
        return rng.integers(0, there, (output[0], wanted))


def gram(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``XᵀX`` of ``[groups, n, d]``; a product of a matrix with itself takes half the time of any other."""
    return np.stack([product(x.T, x) for x in rows])


@dataclass
class Sums:
    """Sums over rows, one layer."""

    count: float = 0
    first: Matrix | float = 0.0
    second: Matrix | float = 0.0
    out_first: Matrix | float = 0.0
    out_second: float = 0.0
    out_count: float = 0

    def add(self, rows: npt.NDArray[np.float32], count: int | None = None) -> None:
        """Rows ``[groups, n, d]``; there were ``count``, the others are zero."""
        with np.errstate(over="ignore", invalid="ignore"):
            second = gram(rows)
            if not np.isfinite(second.sum()):  # a run that overflows says nothing
                rows, count, second = np.zeros_like(rows), 0, np.zeros_like(second)
        self.count += rows.shape[1] if count is None else count
        self.first = self.first + rows.sum(axis=1, dtype=np.float64)
        self.second = self.second + np.asarray(second, np.float64)

    def add_output(self, values: npt.NDArray[np.float32]) -> None:
        """Values ``[n, channels]`` of what the layer's output becomes part of."""
        with np.errstate(over="ignore", invalid="ignore"):
            second = float(np.vdot(values, values))
        if not np.isfinite(second):
            return
        self.out_count += len(values)
        self.out_first = self.out_first + values.sum(axis=0, dtype=np.float64)
        self.out_second += second

    def moments(self) -> Moments:
        """Means over the rows."""
        n, m = max(self.count, 1), max(self.out_count, 1)
        size = self.out_second / m
        energy = size - float(np.sum(np.square(np.asarray(self.out_first) / m)))
        if energy < 1e-9 * size:  # the same for all samples: no more than rounding is left
            energy = size
        return Moments(
            int(self.count), np.asarray(self.first / n), np.asarray(self.second / n), max(energy, 0.0)
        )


def valid_rows(
    mask: npt.NDArray[np.bool_] | None, shape: tuple[int, ...], layer: Linear
) -> npt.NDArray[np.bool_] | None:
    """Rows that are no padding, for data of ``[samples, positions, ...]``; None where all count."""
    if mask is None or layer.window is not None or len(shape) < 3 or shape[:2] != mask.shape:
        return None
    per = layer.positions(shape) // mask.shape[1]
    return np.repeat(mask.reshape(-1), per) if per else None


def gather(
    model: Model,
    layers: Mapping[Linear, Landing],
    batches: Sequence[Feeds],
    masks: Sequence[npt.NDArray[np.bool_] | None],
    sampler: Sampler,
    threads: int = 0,
    progress: Progress = silent,
    stage: str = "calibrating",
    held_out: Sequence[bool] = (),
) -> dict[Linear, Moments]:
    """Moments of these layers of ``model`` over all batches; those held out only say how certain they are."""
    sums = {layer: Sums() for layer in layers}
    tests = {layer: Sums() for layer in layers}
    wanted: dict[ir.Value, None] = {}
    for layer, landing in layers.items():
        wanted |= dict.fromkeys((*layer.reads, layer.output, landing.value))
        wanted |= {landing.importance: None} if landing.importance is not None else {}
    session = exposing(model, list(wanted), threads)
    names = [output.name for output in session.get_outputs()]
    read = [value.name for value in session.get_inputs()]
    for b, batch in enumerate(counted(progress, stage, batches)):
        found = dict(zip(names, session.run(names, {n: batch[n] for n in read}), strict=True))
        found |= batch
        into = tests if b < len(held_out) and held_out[b] else sums
        for layer, landing in layers.items():
            data, output = found[layer.source.name or ""], found[layer.output.name or ""]
            weights = weights_of(layer, landing, found, output.shape)
            if weights is not None:
                rows = weights.scaled(weights.take(layer.rows(spread(layer, data, output.shape))))
                into[layer].add(rows, len(weights.factors))
                into[layer].add_output(landed_rows(layer, landing, found))
                continue
            valid = valid_rows(masks[b], output.shape, layer)
            # Where some rows are padding, all others are looked at: there are few enough.
            pick = sampler.pick(layer, layer.features, output.shape, b) if valid is None else None
            rows = layer.rows(data, pick)
            landed = layer.targets(found[landing.value.name or ""], pick)
            landed = landed.transpose(1, 0, 2).reshape(landed.shape[1], -1)
            if valid is not None:
                rows, landed = rows[:, valid], landed[valid]
            into[layer].add(rows)
            into[layer].add_output(landed)
    # One by one: they are large.
    return {layer: _with_shrinkage(sums.pop(layer), tests.pop(layer)) for layer in layers}


def _with_shrinkage(fitted: Sums, held_out: Sums) -> Moments:
    found = fitted.moments()
    if held_out.count and found.count:
        shrinkage = likeliest(found.covariance, held_out.moments().about(found.mean))
        return replace(found, shrinkage=shrinkage)
    return found


def landed_rows(layer: Linear, landing: Landing, found: Mapping[str, npt.NDArray[np.generic]]) -> Array:
    """What the outputs of all rows, each with its weight, become part of."""
    landed = layer.targets(found[landing.value.name or ""])[0]
    if landing.gate is None:
        output = found[layer.output.name or ""].shape
        weights = weights_of(layer, landing, found, output, own=False)
        landed = landed if weights is None else np.asarray(landed * weights.factors[:, None])
    return np.asarray(landed)
