"""Concrete shapes of every value, from one set of telling sizes and one set of usual ones.

Static inference with concrete input sizes settles nearly everything without touching a weight. What
it can't tell (shape arithmetic it doesn't follow, ops it doesn't know, sizes that depend on values)
is run in onnxruntime, with zeros in place of large tensors of known shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.model import Model
from graphprune.runtime import EvaluationError
from graphprune.shapes.inference import Skeleton, contradiction
from graphprune.shapes.propagation import Propagation
from graphprune.shapes.shape_run import run_rest
from graphprune.shapes.sizes import Interface
from graphprune.shapes.unsettled import Run, unsettled

#: How many sizes are tried with the real weights, once all have failed with zeros.
_EARNEST_TRIES = 3
#: No further sizes are tried once so many numbers were fed in vain.
_MOST_ELEMENTS = 1 << 27


@dataclass(frozen=True)
class Trace:
    """Sizes and small values of a model under two assignments of its symbolic dims.

    A value that could not be traced (what an unknown op makes, sequences) is in none of the maps.

    Attributes:
        shapes: of every tensor in the main graph, initializers included, under the analysis sizes:
            distinct primes for symbolic dims as far as the model runs with these.
        nominal: the same under usual sizes (batch 1, length 128, sides 224, and overrides).
        values: under the analysis sizes, what small tensors (up to 256 elements) hold that are
            constants or computed from sizes and constants alone, or that an op reads as a shape.
        dims: the analysis size of every symbolic dim, by name.
        nominal_dims: the same, nominal.
        traced: False if no assignment was free of contradictions: the shapes are then those that
            static inference gives for the nominal sizes.
        symbolic: further axes that are not fixed: those that static inference names after a symbolic
            dim; and of the values that are `unsettled`, or where the two assignments agree in some dim,
            those whose size static inference can't tell.
    """

    shapes: Mapping[str, tuple[int, ...]]
    nominal: Mapping[str, tuple[int, ...]]
    values: Mapping[str, np.ndarray]
    dims: Mapping[str, int]
    nominal_dims: Mapping[str, int]
    traced: bool
    symbolic: frozenset[tuple[str, int]] = field(repr=False)

    def is_dynamic(self, name: str, axis: int) -> bool:
        """Whether the size of this axis depends on the symbolic dims, or on data.

        Args:
            name: of a value.
            axis: counted from the front, or from the back if negative.
        """
        shape, nominal = self.shapes.get(name), self.nominal.get(name)
        if shape is None or nominal is None:
            return True
        axis %= max(len(shape), 1)
        return len(shape) != len(nominal) or shape[axis] != nominal[axis] or (name, axis) in self.symbolic


def trace(model: Model, dims: Mapping[str, int] | None = None, *, only_nominal: bool = False) -> Trace:
    """Find the shape of every value of ``model``, and the values of its shape arithmetic.

    Args:
        model: in canonical form.
        dims: nominal sizes for symbolic dims, by name (an unnamed one is ``input:axis``).
        only_nominal: leave out the run under the analysis sizes if the nominal one succeeds; every axis
            then looks fixed.

    Raises:
        UsageError: ``dims`` names a dim that the model doesn't have.
    """
    overrides = dict(dims or {})
    interface = Interface(model.ir)
    interface.check(overrides)
    skeleton = Skeleton(model.ir)
    nominal = _first_run(model.ir, skeleton, interface, interface.nominal(overrides))
    if only_nominal and nominal is not None:
        return Trace(
            shapes=nominal.shapes,
            nominal=nominal.shapes,
            values=nominal.values,
            dims=nominal.sizes,
            nominal_dims=nominal.sizes,
            traced=True,
            symbolic=frozenset(),
        )
    analysis = None
    if interface.dims or nominal is None:
        usual = nominal.sizes if nominal is not None else {}
        candidates = interface.analysis(overrides, usual)
        analysis = _first_run(model.ir, skeleton, interface, candidates)
    run = analysis or nominal
    traced = run is not None
    if run is None:
        sizes = next(iter(interface.nominal(overrides)))
        run = _static_run(model.ir, skeleton, interface, sizes)
    analysis, nominal = analysis or run, nominal or run
    differ = not analysis.sizes.items() & nominal.sizes.items()
    doubtful = analysis.shapes
    if differ:
        names = unsettled(model.ir.graph, skeleton.structural, analysis, nominal)
        doubtful = {name: shape for name, shape in analysis.shapes.items() if name in names}
    symbolic = _symbolic_axes(skeleton, interface, doubtful)
    return Trace(
        shapes=analysis.shapes,
        nominal=nominal.shapes,
        values=analysis.values,
        dims=analysis.sizes,
        nominal_dims=nominal.sizes,
        traced=traced,
        symbolic=symbolic,
    )


def _first_run(
    model: ir.Model, skeleton: Skeleton, interface: Interface, candidates: Iterator[dict[str, int]]
) -> Run | None:
    """The run under the first of ``candidates`` that contradicts nothing."""
    tried: list[dict[str, int]] = []
    spent = 0
    for sizes in candidates:
        if spent > _MOST_ELEMENTS:
            break
        tried.append(sizes)
        run = _try(model, skeleton, interface, sizes)
        if run is not None:
            return run
        spent += _elements(interface, sizes)
    earnest = _EARNEST_TRIES if spent <= _MOST_ELEMENTS else 0
    runs = (_try(model, skeleton, interface, sizes, in_earnest=True) for sizes in tried[:earnest])
    return next((run for run in runs if run is not None), None)


def _elements(interface: Interface, sizes: dict[str, int]) -> int:
    """How many numbers are fed with these sizes."""
    try:
        return sum(prod(shape) for shape in interface.shapes(sizes).values())
    except (ModelError, ZeroDivisionError):
        return 0


def _try(
    model: ir.Model,
    skeleton: Skeleton,
    interface: Interface,
    sizes: dict[str, int],
    *,
    in_earnest: bool = False,
) -> Run | None:
    """The run with these sizes; None if it contradicts itself."""
    try:
        shapes = interface.shapes(sizes)
    except (ModelError, ZeroDivisionError):  # a dim that is no arithmetic on the others
        return None
    if any(size < 0 for shape in shapes.values() for size in shape):
        return None
    known = Propagation(model, skeleton, skeleton.infer(shapes, sizes=sizes))
    try:
        known.run()
        run_rest(model, known, in_earnest=in_earnest)
    except EvaluationError:
        return None
    if contradiction(model.graph, known.shapes) is not None:
        return None
    return _complete(skeleton, known, sizes)


def _static_run(model: ir.Model, skeleton: Skeleton, interface: Interface, sizes: dict[str, int]) -> Run:
    """What static inference alone tells."""
    try:
        shapes = interface.shapes(sizes)
    except (ModelError, ZeroDivisionError):
        shapes = {}
    known = Propagation(model, skeleton, skeleton.infer(shapes, sizes=sizes))
    return _complete(skeleton, known, sizes)


def _complete(skeleton: Skeleton, known: Propagation, sizes: Mapping[str, int]) -> Run:
    """Add the constants to the values."""
    constants = {name: array for name, array in skeleton.constants.items() if _is_telling(array)}
    return Run(sizes, known.shapes, constants | known.values)


def _is_telling(array: np.ndarray) -> bool:
    """Whether a small constant is one that can be a shape, a padding, an axis, a scale or a count."""
    kind = array.dtype.kind
    if kind in "biu" or kind in "OSU":
        return kind in "biu"
    return array.size <= 1 or not ir.DataType.from_numpy(array.dtype).is_floating_point()


def _symbolic_axes(
    skeleton: Skeleton, interface: Interface, doubtful: Mapping[str, tuple[int, ...]]
) -> frozenset[tuple[str, int]]:
    """Axes that inference names after a symbolic dim when all of them are left open.

    Of the ``doubtful`` values also those axes whose size it can't tell.
    """
    names = {axis for axes in interface.symbols().values() for axis in axes if isinstance(axis, str)}
    if not names and not doubtful:
        return frozenset()
    found = skeleton.infer(interface.symbols())
    named = {
        (name, axis) for name, axes in found.axes.items() for axis, size in enumerate(axes) if size in names
    }
    untold = {
        (name, axis)
        for name, shape in doubtful.items()
        for axis, size in enumerate(found.axes.get(name, (None,) * len(shape)))
        if not isinstance(size, int)
    }
    return frozenset(named | untold)
