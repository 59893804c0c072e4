"""A machine whose times follow a formula: the same on every day, and known to the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import onnx

from graphprune.device.protocol import Identity, Job, Times


@dataclass
class PretendedDevice:
    """Convolutions and products of matrices work in blocks of channels; other nodes cost their elements.

    Attributes:
        block: outputs are rounded up to it.
        per_mac: milliseconds.
        per_element: milliseconds, of all other nodes.
        overhead: milliseconds of every run.
        whole: in a whole model layers take so many times as long as on their own.
        asked: nodes that were timed, in order.
    """

    block: int = 8
    per_mac: float = 1e-5
    per_element: float = 1e-5
    overhead: float = 0.0
    whole: float = 1.0
    name: str = "pretended"
    profiler: bool = True
    asked: list[str] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        return Identity(self.name, (), "formula", "1", "cpu", 1)

    def measure(self, jobs: Sequence[Job], *, seconds: float = 3.0) -> list[Times]:
        return [Times((ms, ms), (ms, ms)) for ms in (self._latency(job) for job in jobs)]

    def node_times(self, job: Job, *, seconds: float = 1.0) -> Mapping[str, float] | None:
        if not self.profiler:
            return None
        times = self._times(job)
        self.asked += times
        return times

    def _latency(self, job: Job) -> float:
        times = self._times(job)
        layers = sum(ms for name, ms in times.items() if name.startswith(("Conv", "MatMul", "Gemm")))
        return self.overhead + self.whole * layers + sum(times.values()) - layers

    def _times(self, job: Job) -> dict[str, float]:
        model = onnx.load_from_string(job.model) if isinstance(job.model, bytes) else _read(job.model)
        for value in model.graph.input:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_param:
                    dim.dim_value = job.dims.get(dim.dim_param, job.batch if axis == 0 else 128)
        # What was written down for other sizes would contradict them.
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        shapes = _shapes(onnx.shape_inference.infer_shapes(model, data_prop=True))
        return {node.name or node.output[0]: self._time(node, shapes) for node in model.graph.node}

    def _time(self, node: Any, shapes: Mapping[str, tuple[int, ...]]) -> float:
        out = shapes.get(node.output[0], ())
        if node.op_type == "Conv":
            weight = shapes[node.input[1]]
            return self.per_mac * prod(out) / out[1] * self._up(out[1]) * prod(weight[1:])
        if node.op_type in ("MatMul", "Gemm"):
            return self.per_mac * prod(out) / out[-1] * self._up(out[-1]) * shapes[node.input[0]][-1]
        return self.per_element * prod(out)

    def _up(self, width: int) -> int:
        return -(-width // self.block) * self.block


def _read(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    found = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        found[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return found
