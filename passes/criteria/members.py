"""Which slices of which weights go with a unit, for criteria that look at weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Use
from graphprune.errors import ModelError
from graphprune.graph import DependencyGraph
from graphprune.halves import single
from graphprune.quantization import QUANTIZED, real_weights
from graphprune.storage.slices import blocks_of_rows

#: Weights of more bytes are read a few rows at a time.
LARGE_BYTES = 1 << 23
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Slices:
    """The axes of one weight that hold units.

    Attributes:
        use: the weight.
        rows: axis -> ``[size, k]``, the units of each position.
    """

    use: Use
    rows: Mapping[int, Rows]


def slices_of(graph: DependencyGraph) -> Iterator[Slices]:
    """All weights that lose positions along an axis; a tied matrix comes once, however often it is used."""
    seen: set[tuple[int, int]] = set()
    for use in graph.analysis.uses.values():
        keys = {(id(use.value), id(a.labels)): d for d, a in enumerate(use.axes) if not a.is_plain}
        rows_of = {d: graph.analysis.algebra.live(use.axes[d]) for key, d in keys.items() if key not in seen}
        rows_of = {d: rows for d, rows in rows_of.items() if rows.shape[1]}
        if rows_of and counts(use):
            seen.update(keys)
            yield Slices(use, rows_of)


def whole_weights(graph: DependencyGraph) -> Iterator[tuple[int, list[Use]]]:
    """Units with which whole weights go, and these weights."""
    uses = graph.analysis.uses
    for unit, nodes in graph.analysis.spans.items():
        places = [(n, i) for n in nodes for i in range(len(n.inputs))]
        found = [uses[place] for place in places if place in uses]
        yield unit, [u for u in found if u.axes and counts(u) and u.node in graph.analysis.contractions]


def counts(use: Use) -> bool:
    """Does this constant carry signal?  Divisors, running statistics and plain integers don't."""
    tensor = use.value.const_value
    is_quantized = (use.node.op_type, use.index) in QUANTIZED
    return use.is_zeroed and tensor is not None and (tensor.dtype.is_floating_point() or is_quantized)


def numbers_of(use: Use) -> npt.NDArray[np.float32]:
    """A weight as the numbers it stands for; they may hold NaN."""
    tensor = use.value.const_value
    assert tensor is not None
    array = tensor.numpy()
    real = real_weights(use.node, use.index, array)
    return np.asarray(array if real is None else real, np.float32)


def rows_of(use: Use) -> Iterator[Callable[[], npt.NDArray[np.float32]]] | None:
    """What reads the same numbers a few rows at a time; None of a weight that is small, or quantized."""
    tensor = use.value.const_value
    assert tensor is not None
    is_quantized = (use.node.op_type, use.index) in QUANTIZED
    if is_quantized or tensor.nbytes <= LARGE_BYTES or tensor.dtype.bitwidth < 8 or not len(tensor.shape):
        return None
    array = tensor.numpy()
    return (partial(_stretch, array, block) for block in blocks_of_rows(array))


def _stretch(array: npt.NDArray[np.generic], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return single(array[rows[0] : rows[-1] + 1])


def finite_numbers_of(use: Use) -> npt.NDArray[np.float32]:
    """The same.

    Raises:
        ModelError: they do hold NaN.
    """
    array = numbers_of(use)
    if array.size and np.isnan(array.min()):
        raise nan_error(use)
    return array


def nan_error(use: Use) -> ModelError:
    """What is said of a weight that no importance can be computed from."""
    message = f"the weights of '{use.value.name}' hold NaN"
    return ModelError(
        message,
        where=f"{use.node.op_type} '{use.node.name}', input {use.index}",
        because="no importance can be computed from them",
        hint="export the model again from a checkpoint that is finite",
    )


def group_of_units(graph: DependencyGraph) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int32]]]:
    """Per unit, the number of its pool of competitors (-1: it can't go), and the units of each pool.

    The units of a group compete with each other; a block is a group of one unit, so all blocks do.
    """
    pools = [g.units for g in graph.groups if g.prunable and g.kind != "blocks"]
    blocks = [g.units for g in graph.groups if g.prunable and g.kind == "blocks"]
    if blocks:
        pools.append(np.concatenate(blocks))
    owner = np.full(len(graph.analysis.algebra), -1, np.int64)
    for i, units in enumerate(pools):
        owner[units] = i
    return owner, pools
