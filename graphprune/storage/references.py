"""Files that name others beside them: ONNX models with external data, indices of safetensors files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import onnx

_INDEX = ".index.json"
_WEIGHTS = "weight_map"
#: Models of more bytes hold their weights themselves.
_LARGEST_GRAPH = 1 << 28


def references(path: Path, *, even_large: bool = False) -> list[str]:
    """What a file reads, each file once; nothing if it is missing, or no such file.

    Args:
        path: the file.
        even_large: look into models that seem to hold their weights themselves.

    Raises:
        OSError: it is there, and can't be read: nobody knows what it reads.
    """
    try:
        if path.stat().st_size > _LARGEST_GRAPH and not even_large:
            return []
        if path.name.endswith(_INDEX):
            index = json.loads(path.read_text(encoding="utf-8"))
            return list(dict.fromkeys(map(str, index[_WEIGHTS].values())))
        model = onnx.load(path, load_external_data=False)
        return list(dict.fromkeys(entry.value for entry in _locations(model.graph)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        raise
    except Exception:  # it names no files, whatever else is wrong with it
        return []


def redirected(path: Path, names: Collection[str], folder: str) -> bytes:
    """The bytes of a file that reads these from a folder beside it."""
    if path.name.endswith(_INDEX):
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        weights = index[_WEIGHTS].items()
        index[_WEIGHTS] = {key: f"{folder}/{name}" if name in names else name for key, name in weights}
        return json.dumps(index, indent=2).encode()
    model = onnx.load(path, load_external_data=False)
    for entry in _locations(model.graph):
        if entry.value in names:
            entry.value = f"{folder}/{entry.value}"
    return bytes(model.SerializeToString())


def _locations(graph: onnx.GraphProto) -> Iterator[onnx.StringStringEntryProto]:
    for tensor in stored_in(graph):
        yield from (entry for entry in tensor.external_data if entry.key == "location")


def stored_in(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph or a function, bodies included."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from stored_in(inner)
