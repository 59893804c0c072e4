"""Names for new values and constants that nothing in a graph has yet."""

from __future__ import annotations

import onnx_ir as ir

_TAKEN = "graphprune.names"


def unique_name(graph: ir.Graph, base: str) -> str:
    """``base``, or ``base_2``, ``base_3``, ...; the name counts as taken from then on."""
    taken = graph.meta.get(_TAKEN)
    if not isinstance(taken, set):
        taken = {value.name for node in graph.all_nodes() for value in node.outputs}
        taken |= {value.name for value in graph.inputs} | set(graph.initializers)
        taken |= {node.name for node in graph.all_nodes()}
        graph.meta[_TAKEN] = taken
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    taken.add(name)
    return name
