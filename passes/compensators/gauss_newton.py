"""Fits ``V`` and ``U`` of a couple, ``y = φ(x V) U``, to what ``y`` should be.

Gauss-Newton steps in ``V``, least squares in ``U``.  The curvature in ``V`` is taken as a product of what
``V`` reads and of what its outputs are worth behind ``φ`` (Kronecker factors, Martens & Grosse 2015,
arXiv:1503.05671, here of a squared error, so that no labels are needed).  Steps are conjugate (Polak &
Ribière), and as long as lets the error fall most.  Rows that were held out say when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from graphprune.passes.compensators.hidden import Hidden
from graphprune.passes.compensators.normal_equations import NormalEquations
from graphprune.passes.compensators.taps import backward, forward, windows

Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
#: Steps at most; more change the last percent.
STEPS = 6
#: Relative to the mean of the diagonal, for the two factors of the curvature.
_DAMPING = 1e-4, 1e-3
#: A step that gains less, relative to the error on rows that were held out, is the last.
_GAIN = 2e-3


@dataclass(frozen=True)
class Patches:
    """Rows of a couple.

    Attributes:
        inputs: what each producer reads, ``[groups, rows, d]``; with a bias the last feature is one.
        sides: ``[rows, k]`` each.
        reads: ``[n, w]`` rows of the hidden tensor that each output reads; the number of rows for padding.
            If that is one, it is the row with the same number.
        wanted: ``[n, o]``.
    """

    inputs: tuple[Array, ...]
    sides: tuple[Array, ...]
    reads: Index
    wanted: Array


@dataclass
class Weights:
    """What is fitted.

    Attributes:
        made: of each producer, ``[groups, d, k / groups]``.
        read: of the consumer, ``[groups, w * k / groups, o / groups]``, features ordered window by window.
        shift: bias of the consumer, ``[o]``.
    """

    made: list[Array]
    read: Array
    shift: Array


@dataclass
class Fit:
    """A couple on its way.

    Attributes:
        hidden: the elementwise way.
        fitted: rows to fit.
        held_out: rows to judge by.
        weights: as they are.
        centred: has the consumer a bias that may change?
    """

    hidden: Hidden
    fitted: Patches
    held_out: Patches
    weights: Weights
    centred: bool
    _damping: float | None = None
    _factors: list[tuple[list[Array], list[Array]]] = field(default_factory=list)
    _rest: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def run(self, steps: int = STEPS) -> tuple[float, float]:
        """Improves the weights; squared errors on rows held out: with new ``U`` alone, and with both."""
        self._read_again()
        start = best = self._error(self.held_out)
        if not np.isfinite(start + _mean_square(self._rest)):
            return start, start
        found = self._copy()
        made = _made(self.fitted, self.weights.made)
        self._factors = [self._curvature(made, i) for i in range(len(made))]
        direction: list[Array] = []
        old: list[Array] = []
        last, length, worse = 1.0, 1.0, 0
        for _ in range(steps):
            gradient = self._gradient(made)
            ahead = [self._natural(g, i) for i, g in enumerate(gradient)]
            size = _dot(gradient, ahead)
            turn = max(0.0, (size - _dot(old, ahead)) / last) if direction and last > 0 else 0.0
            direction = [
                a + np.float32(min(turn, 1.0)) * d for a, d in zip(ahead, direction or ahead, strict=True)
            ]
            direction = direction if turn else ahead
            old, last = gradient, size
            length = self._search(made, direction, length)
            if not length:
                break
            for i, d in enumerate(direction):
                self.weights.made[i] = self.weights.made[i] + np.float32(length) * d
            made = _made(self.fitted, self.weights.made)
            self._read_again(made)
            error = self._error(self.held_out)
            worse = 0 if error < best * (1.0 - _GAIN) else worse + 1
            if error < best:
                best, found = error, self._copy()
            if worse == 2:
                break
        self.weights = found
        return start, best

    def _copy(self) -> Weights:
        return Weights(list(self.weights.made), self.weights.read, self.weights.shift)

    def _output(self, patches: Patches, made: Sequence[Array]) -> Array:
        values = self.hidden.value(made, patches.sides)
        return np.asarray(forward(values, patches.reads, self.weights.read) + self.weights.shift)

    def _error(self, patches: Patches, made: Sequence[Array] | None = None) -> float:
        made = _made(patches, self.weights.made) if made is None else made
        rest = patches.wanted - self._output(patches, made)
        return _mean_square(rest)

    def _read_again(self, made: Sequence[Array] | None = None) -> None:
        """The consumer's weights for the hidden tensor as it is now, and what they leave unexplained."""
        groups, old = len(self.weights.read), self.weights
        sums, known = NormalEquations(), {}
        for patches in (self.fitted, self.held_out) if self._damping is None else (self.fitted,):
            values = _made(patches, old.made) if made is None else made
            rows = windows(self.hidden.value(values, patches.sides), patches.reads, groups)
            rest = _grouped(patches.wanted - old.shift, groups) - rows @ old.read
            sums.add(rows, rest, held_out=patches is self.held_out)
            known[patches is self.held_out] = rows, rest
        rows, rest = known[False]
        if not sums.is_empty:
            change, shift, self._damping = sums.solve(centred=self.centred, damping=self._damping)
            old.read = (old.read + change).astype(np.float32)
            old.shift = (old.shift + shift.reshape(-1)).astype(np.float32)
            rest = rest - rows @ change.astype(np.float32) - shift.astype(np.float32)[:, None]
        self._rest = rest.transpose(1, 0, 2).reshape(len(self.fitted.wanted), -1)

    def _gradient(self, made: Sequence[Array]) -> list[Array]:
        """By which changes of ``V`` the squared error falls fastest, ``[groups, d, k / groups]`` each."""
        patches = self.fitted
        n = len(patches.reads)
        worth = backward(self._rest, patches.reads, self.weights.read, len(made[0]))
        found = []
        for i, x in enumerate(patches.inputs):
            by_made = worth * self.hidden.slope(made, patches.sides, i)
            grouped = by_made.reshape(len(by_made), len(x), -1).transpose(1, 0, 2)
            found.append(np.asarray(np.matmul(x.transpose(0, 2, 1), grouped) / n))
        return found

    def _curvature(self, made: Sequence[Array], which: int) -> tuple[list[Array], list[Array]]:
        """Inverses of the two factors for one producer: per group of it, and per block of its outputs."""
        patches, x = self.fitted, self.fitted.inputs[which]
        reads = [_inverse(np.asarray(g.T @ g, np.float64) / g.shape[0], _DAMPING[0]) for g in x]
        n, w = patches.reads.shape
        slope = self.hidden.slope(made, patches.sides, which)
        slope = np.concatenate([slope, np.zeros_like(slope[:1])])
        groups, k = len(self.weights.read), slope.shape[1]
        blocks = groups if len(x) == 1 else len(x) if groups in (1, len(x)) else k
        wide, per = k // blocks, k // groups
        weights = self.weights.read.reshape(groups, w, per, -1)
        worth = np.zeros((blocks, wide, wide))
        for tap in range(w):
            own = slope[patches.reads[:, tap]].reshape(n, blocks, wide).transpose(1, 0, 2)
            rows = weights[:, tap].reshape(blocks, wide, -1)  # a block lies in one group of the consumer
            products = np.matmul(own.transpose(0, 2, 1), own)
            worth += products * np.matmul(rows, rows.transpose(0, 2, 1)) / n
        return reads, [_inverse(matrix, _DAMPING[1]) for matrix in worth]

    def _natural(self, gradient: Array, which: int) -> Array:
        """The step that the curvature makes of a gradient."""
        reads, worth = self._factors[which]
        by_reads = np.stack([inverse @ g for inverse, g in zip(reads, gradient, strict=True)])
        groups, d, _ = by_reads.shape
        flat = by_reads.transpose(1, 0, 2).reshape(d, len(worth), -1)
        turned = np.stack([flat[:, b] @ inverse for b, inverse in enumerate(worth)], axis=1)
        return np.ascontiguousarray(turned.reshape(d, groups, -1).transpose(1, 0, 2), np.float32)

    def _search(self, made: Sequence[Array], direction: Sequence[Array], length: float) -> float:
        """A length of step under which the error falls, 0 if there is none."""
        moves = _made(self.fitted, direction)
        best, found = _mean_square(self._rest), 0.0
        for _ in range(4):
            for trial in (length, 2 * length) if not found else (2 * length,):
                ahead = [z + np.float32(trial) * m for z, m in zip(made, moves, strict=True)]
                error = self._error(self.fitted, ahead)
                if error >= best:
                    break
                best, found = error, trial
            if found:
                return found
            length /= 4
        return found


def _made(patches: Patches, weights: Sequence[Array]) -> list[Array]:
    """What the producers make, ``[rows, k]`` each."""
    found = [np.matmul(x, v) for x, v in zip(patches.inputs, weights, strict=True)]
    return [z[0] if len(z) == 1 else z.transpose(1, 0, 2).reshape(z.shape[1], -1) for z in found]


def _grouped(values: Array, groups: int) -> Array:
    """``[n, o]`` as ``[groups, n, o / groups]``."""
    return np.ascontiguousarray(values.reshape(len(values), groups, -1).transpose(1, 0, 2))


def _mean_square(rest: Array) -> float:
    error = float(np.vdot(rest, rest)) / max(rest.size, 1)
    return error if np.isfinite(error) else np.inf


def _inverse(matrix: npt.NDArray[np.float64], damping: float) -> Array:
    d = len(matrix)
    load = damping * float(np.trace(matrix)) / d or 1.0
    return np.asarray(np.linalg.inv(matrix + np.eye(d) * load), np.float32)


def _dot(a: Sequence[Array], b: Sequence[Array]) -> float:
    return float(sum(float(np.vdot(x, y)) for x, y in zip(a, b, strict=False)))
