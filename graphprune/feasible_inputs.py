"""Random inputs on which a model really runs.

Sizes that a file names apart may hang together: a decoder's mask is as long as its cache and its new tokens
are, and an exporter may call that ``total``.  Only running tells, so where inputs have different sizes
of their own, further sizes are tried until the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice, permutations

import numpy as np
import numpy.typing as npt

from graphprune.compare import run, session
from graphprune.errors import ValidationError
from graphprune.model import Model
from graphprune.sample_inputs import sample_inputs
from graphprune.shapes.sizes import Interface

Arrays = dict[str, npt.NDArray[np.generic]]
#: Sizes tried beyond the proposed ones.
_MOST = 40


def feasible_inputs(model: Model, proposals: Sequence[Mapping[str, int]], seed: int) -> list[Arrays]:
    """Inputs for each proposal of sizes; other sizes where the model can't be run with these.

    Args:
        model: what has to run.
        proposals: sizes of its symbolic dims.
        seed: of the random numbers.
    """
    rngs = [np.random.default_rng(seed + i) for i in range(len(proposals))]
    if not _may_hang_together(model):
        return [sample_inputs(model, sizes, rng) for sizes, rng in zip(proposals, rngs, strict=True)]
    runner = session(model)
    found = []
    for sizes, rng in zip(proposals, rngs, strict=True):
        proposed = sample_inputs(model, sizes, rng)
        for number, other in enumerate((sizes, *islice(_related(model, sizes), _MOST))):
            feeds = sample_inputs(model, other, np.random.default_rng(seed)) if number else proposed
            try:
                run(runner, feeds)
            except ValidationError:
                continue
            found.append(feeds)
            break
        else:
            found.append(proposed)  # and the reason why it does not run is told where it is run
    return found


def _dims(model: Model) -> list[str]:
    return [dim.name for dim in Interface(model.ir).dims if dim.role != "batch"]


def _may_hang_together(model: Model) -> bool:
    """Have two inputs symbolic sizes, the batch aside, that are not the same?"""
    dims = set(_dims(model))
    sets = {
        frozenset(axis for axis in axes if isinstance(axis, str)) & dims
        for axes in Interface(model.ir).symbols().values()
    }
    return len(sets - {frozenset()}) > 1


def _related(model: Model, sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The same sizes, with one dim as long as two others together, or as another; then smaller ones."""
    dims = _dims(model)
    small = {name: 3 + 2 * i for i, name in enumerate(dims)}
    for start in (dict(sizes), {**sizes, **small}):
        for total in dims:
            for a, b in combinations([name for name in dims if name != total], 2):
                yield start | {total: start[a] + start[b]}
        for same, other in permutations(dims, 2):
            yield start | {same: start[other]}
