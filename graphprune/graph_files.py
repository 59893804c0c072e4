"""The dependency graph as a file: Graphviz DOT, GraphML or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx

from graphprune.errors import UsageError
from graphprune.graph import DependencyGraph
from graphprune.storage.text_files import write_text


def write_graph(graph: DependencyGraph, path: str | Path) -> None:
    """Writes the bipartite graph of nodes and coupled axes; the ending picks the format.

    Raises:
        UsageError: the ending is none of ``.dot``, ``.graphml``, ``.json``.
        ModelError: the path can't be written.
    """
    path = Path(path)
    flat = _flat(graph)
    writers = {".dot": _dot, ".graphml": _graphml, ".json": _json}
    if path.suffix not in writers:
        message = f"cannot write a graph to '{path}'"
        raise UsageError(message, because=f"unknown ending '{path.suffix}'", hint=", ".join(writers))
    write_text(path, writers[path.suffix](flat), "the graph")


def _flat(graph: DependencyGraph) -> nx.Graph[Any]:
    """Vertices named by text and attributes of plain types, as file formats need them."""
    flat: nx.Graph[Any] = nx.Graph()
    for vertex, data in graph.nx.nodes(data=True):
        name = "/".join(str(part) for part in vertex)
        if vertex[0] == "op":
            flat.add_node(name, kind="op", op_type=data["op_type"], label=data["name"] or data["op_type"])
        else:
            label = f"{vertex[1]}[{vertex[2]}]={data['size']}"
            groups = " ".join(data["groups"])
            flat.add_node(name, kind="axis", size=data["size"], groups=groups, label=label)
    for a, b in graph.nx.edges:
        flat.add_edge("/".join(map(str, a)), "/".join(map(str, b)))
    return flat


def _dot(flat: nx.Graph[Any]) -> str:
    lines = ["graph dependencies {"]
    for name, data in flat.nodes(data=True):
        shape = "box" if data["kind"] == "op" else "ellipse"
        lines.append(f"  {json.dumps(name)} [shape={shape}, label={json.dumps(data['label'])}];")
    lines += [f"  {json.dumps(a)} -- {json.dumps(b)};" for a, b in flat.edges]
    return "\n".join([*lines, "}", ""])


def _graphml(flat: nx.Graph[Any]) -> str:
    return "\n".join(nx.generate_graphml(flat)) + "\n"


def _json(flat: nx.Graph[Any]) -> str:
    return json.dumps(nx.node_link_data(flat, edges="edges"), indent=1) + "\n"
