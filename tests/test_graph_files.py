"""The dependency graph as a file, read again by those who know the format."""

from __future__ import annotations

import io
import json
from pathlib import Path

import networkx as nx
import pytest
from networks import NETWORKS, graph_of

from graphprune.errors import ModelError, UsageError
from graphprune.graph import analyze
from graphprune.graph_files import write_graph
from graphprune.model import load


@pytest.mark.parametrize("name", ["cnn", "attention", "conditional"])
def test_graphml_and_json_hold_the_same_graph(name: str, tmp_path: Path) -> None:
    graph = graph_of(name)
    write_graph(graph, tmp_path / "g.graphml")
    write_graph(graph, tmp_path / "g.json")
    from_xml = nx.read_graphml(io.BytesIO((tmp_path / "g.graphml").read_bytes()))
    from_json = nx.node_link_graph(json.loads((tmp_path / "g.json").read_text()), edges="edges")
    assert len(from_xml) == len(from_json) == len(graph.nx)
    assert from_xml.number_of_edges() == from_json.number_of_edges() == graph.nx.number_of_edges()
    for vertex, data in from_xml.nodes(data=True):
        assert {k: data[k] for k in ("kind", "label")} == {
            k: from_json.nodes[vertex][k] for k in ("kind", "label")
        }


def test_names_sizes_and_groups_are_in_the_file(tmp_path: Path) -> None:
    write_graph(graph_of("cnn"), tmp_path / "g.json")
    nodes = {n["id"]: n for n in json.loads((tmp_path / "g.json").read_text())["nodes"]}
    stem = nodes["axis/stem.w/0"]
    assert (stem["size"], stem["groups"], stem["label"]) == (8, "stem.w:0", "stem.w[0]=8")
    assert nodes["op/s"]["op_type"] == "Conv"


def test_dot_has_a_line_per_vertex_and_edge_and_escapes_names(tmp_path: Path) -> None:
    model = NETWORKS["mlp"]()
    model.graph.node[0].name = 'a "quoted" name \\ with ümlaut'
    graph = analyze(load(model))
    write_graph(graph, tmp_path / "g.dot")
    lines = (tmp_path / "g.dot").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "graph dependencies {"
    assert lines[-1] == "}"
    assert len(lines) == 2 + len(graph.nx) + graph.nx.number_of_edges()
    assert any(r"a \"quoted\" name" in line for line in lines)
    assert all(line.endswith(";") for line in lines[1:-1])


def test_same_graph_same_bytes(tmp_path: Path) -> None:
    for ending in ("dot", "graphml", "json"):
        for number in (1, 2):
            graph = analyze(load(NETWORKS["attention"]()))
            write_graph(graph, tmp_path / f"{number}.{ending}")
        assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"2.{ending}").read_bytes()


def test_unknown_ending_and_bad_path_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown ending '\.png'"):
        write_graph(graph_of("mlp"), tmp_path / "g.png")
    with pytest.raises(UsageError, match="unknown ending ''"):
        write_graph(graph_of("mlp"), tmp_path / "g")
    with pytest.raises(ModelError, match="cannot write the graph"):
        write_graph(graph_of("mlp"), tmp_path / "none" / "g.dot")
    assert list(tmp_path.iterdir()) == []
