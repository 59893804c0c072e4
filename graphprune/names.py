"""Names for new values and constants that nothing in a graph has yet."""

from __future__ import annotations

import onnx_ir as ir

_TAKEN = "graphprune.names"


def unique_name(graph: ir.Graph, base: str) -> str:
    """``base``, or ``base_2``, ``base_3``, ...; the name counts as taken from then on."""
    taken = graph.meta.get(_TAKEN)
    if not isinstance(taken, set):
        taken = graph.meta[_TAKEN] = _names(graph)
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    taken.add(name)
    return name


def share_names(graph: ir.Graph) -> None:
    """Let the bodies inside ``graph`` take their new names from the same store: none may hide another."""
    taken = _names(graph)
    for each in (graph, *graph.subgraphs()):
        each.meta[_TAKEN] = taken


def _names(graph: ir.Graph) -> set[str | None]:
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    taken |= {node.name for node in graph.all_nodes()}
    for each in (graph, *graph.subgraphs()):
        taken |= {value.name for value in each.inputs} | set(each.initializers)
    return taken
