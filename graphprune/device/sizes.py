"""At which sizes of a model's symbolic dims its latency is measured."""

from __future__ import annotations

from graphprune.graph import DependencyGraph
from graphprune.shapes.sizes import Interface, evaluate_dim


def sizes_of(graph: DependencyGraph, batch: int) -> dict[str, int]:
    """Those that costs are counted at, an unnamed one as ``input:axis``.

    Args:
        graph: of the model.
        batch: size of the batch; 1 leaves it as it is, so that ``--dim`` can say it too.
    """
    found = dict(graph.analysis.trace.nominal_dims)
    return {**found, **dict.fromkeys(_batch_dims(graph), batch)} if batch != 1 else found


def axes_of(graph: DependencyGraph, batch: int) -> dict[str, int]:
    """These as the inputs' axes are called in the file, where one may be ``2*h``."""
    sizes = sizes_of(graph, batch)
    symbols = Interface(graph.model.ir).symbols().values()
    return {axis: evaluate_dim(axis, sizes) for axes in symbols for axis in axes if isinstance(axis, str)}


def batch_in(graph: DependencyGraph, batch: int) -> int:
    """The batch size that these sizes make."""
    sizes = sizes_of(graph, batch)
    return max((sizes.get(name, batch) for name in _batch_dims(graph)), default=batch)


def _batch_dims(graph: DependencyGraph) -> list[str]:
    return [dim.name for dim in Interface(graph.model.ir).dims if dim.role == "batch"]
