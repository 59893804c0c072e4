"""The test models that ship in the onnx wheel, collected once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    _ALL: list[Any] = collect_testcases(None)

#: Test cases (``model``, ``data_sets``, ``name``) of one node; not those expanded into other operators.
CASES: list[Any] = [c for c in _ALL if len(c.model.graph.node) == 1 and "_expanded" not in c.name]
#: The same functions written out in other operators: graphs of up to some hundred nodes.
EXPANDED: list[Any] = [c for c in _ALL if "_expanded" in c.name]
#: What is left of them, which should be nothing.
OTHERS: list[Any] = [c for c in _ALL if len(c.model.graph.node) != 1 and "_expanded" not in c.name]


@dataclass(frozen=True)
class StoredCase:
    """A model and its data, as files."""

    folder: Path

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.folder / "model.onnx")

    @cached_property
    def data_sets(self) -> list[tuple[list[Any], list[Any]]]:
        return [
            (list(_tensors(data, "input")), list(_tensors(data, "output")))
            for data in sorted(self.folder.glob("test_data_set_*"))
        ]


def _tensors(folder: Path, stem: str) -> Iterator[Any]:
    for i in range(len(list(folder.glob(f"{stem}_*.pb")))):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / f"{stem}_{i}.pb").read_bytes())
        # Sequences and texts are no tensors: the law leaves them out.
        is_number = tensor.data_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
        yield numpy_helper.to_array(tensor) if is_number and tensor.HasField("raw_data") else None


_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
#: Models of one or a few layers with their weights, from the days when PyTorch learned to export.
STORED: list[StoredCase] = [
    StoredCase(path.parent)
    for kind in ("pytorch-operator", "pytorch-converted", "simple")
    for path in sorted((_DATA / kind).glob("*/model.onnx"))
]
