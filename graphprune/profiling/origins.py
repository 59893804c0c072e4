"""Which nodes of the file a node of onnxruntime's fused graph comes from.

onnxruntime keeps the name of a value that it still computes, and names a convolution in its blocked layout
after its output.  So the origins of a fused node are the nodes of the file that lie between what it computes
and what other nodes of the fused graph compute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import onnx

#: Endings that onnxruntime gives to nodes it replaced.
_ENDINGS = ("_nchwc", "_nhwc")
#: Which input of a blocked convolution is added to its result.
_SUMMAND = 3
#: Copies between layouts and devices: what they read is computed by another node.
_COPIES = frozenset({"ReorderOutput", "ReorderInput", "MemcpyFromHost", "MemcpyToHost", "Cast", "Transpose"})


class Origins:
    """The nodes of a file by the nodes of the graph that onnxruntime made of it.

    Args:
        model: the ONNX file.
        optimized: that graph, where it is known; else names alone decide.
    """

    def __init__(self, model: Path, optimized: bytes | None) -> None:
        original = onnx.load_model(str(model), load_external_data=False).graph
        self._producers: dict[str, onnx.NodeProto] = {}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._indices: dict[str, str] = {}
        for number, node in enumerate(original.node):
            self._indices[f"{node.op_type}_{number}"] = name_of(node)
        for node in _all_nodes(original.node):
            self._nodes[name_of(node)] = node
            self._producers.update({output: node for output in node.output if output})
            for value in _reads(node):
                self._consumers.setdefault(value, []).append(node)
        self._made: dict[str, list[str]] = {}  # values of the file that a fused node computes
        if optimized is not None:
            self._read(onnx.load_model_from_string(optimized).graph)
        self._claimed = {value for values in self._made.values() for value in values}

    def of(self, name: str) -> tuple[str, ...]:
        """Names of the file's nodes, in no more than the order of computation; empty if nothing tells.

        Args:
            name: of a node, as the profiler calls it.
        """
        made = self._made.get(name) or self._by_names_alone(name)
        found: dict[str, None] = {}
        stack = [(value, True) for value in made]
        while stack:
            value, own = stack.pop()
            node = self._producers.get(value)
            if node is None or (not own and value in self._claimed) or name_of(node) in found:
                continue
            if node.op_type == "Constant":
                continue
            found[name_of(node)] = None
            if self._claimed:  # else nothing would end the way back
                stack += [(source, False) for source in _reads(node)]
        if not found and name in self._nodes:
            return (name,)
        if not found and (known := [part for part in _parts(name) if part in self._nodes]):
            return tuple(known)
        if not found and name in self._indices:
            return (self._indices[name],)
        return tuple(reversed(found))

    def _by_names_alone(self, name: str) -> list[str]:
        for ending in _ENDINGS:
            value = name.removesuffix(ending)
            if value != name and value in self._producers:
                return [value]
        return []

    def _behind_fused(self, node: onnx.NodeProto, value: str) -> str:
        """What a convolution computes that was named before a sum or an activation was fused into it."""
        kinds: list[tuple[str, ...]] = (
            [("Add", "Sum")] if len(node.input) > _SUMMAND and node.input[_SUMMAND] else []
        )
        kinds += [(a.s.decode(),) for a in node.attribute if a.name == "activation"]
        for kind in kinds:
            following = [n for n in self._consumers.get(value, ()) if n.op_type in kind]
            if self._producers[value].op_type not in kind and following:
                value = following[0].output[0]
        return value

    def _read(self, graph: onnx.GraphProto) -> None:
        """Notes what each fused node computes, looking through copies into other layouts."""
        nodes = list(_all_nodes(graph.node))
        producers = {output: node for node in nodes for output in node.output if output}
        for node in nodes:
            made = [output for output in node.output if output in self._producers]
            if node.op_type in _COPIES and all(self._producers[v].op_type != node.op_type for v in made):
                source = producers.get(node.input[0]) if node.input else None
                if source is not None:
                    self._made.setdefault(source.name, []).extend(made)
                continue
            same = self._nodes.get(node.name)
            known = self._by_names_alone(node.name)
            known += [self._behind_fused(node, value) for value in known]
            if same and not made and not known:
                known = list(same.output)
            self._made.setdefault(node.name, []).extend(dict.fromkeys([*made, *known]))


def _parts(name: str) -> list[str]:
    """Names in the name of a layer of TensorRT: ``conv + relu``, ``PWN(sigmoid, mul)``."""
    return [part for part in re.split(r" \+ |, |[(){}]", name) if part]


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or its first output for one without."""
    return node.name or next((output for output in node.output if output), node.op_type)


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            for graph in graphs:
                yield from _all_nodes(graph.node)


def _reads(node: onnx.NodeProto) -> list[str]:
    return [value for value in node.input if value]
