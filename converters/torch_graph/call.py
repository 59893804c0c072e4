"""What an operator's function knows about its node: attributes, version, which outputs are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
import torch

from graphprune.errors import ModelError

FLOATING = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
}
EXACT = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
}


@dataclass
class Precision:
    """The floating type that a module was told to compute in.

    Attributes:
        real: None as long as every tensor has the type that the graph gives it.
    """

    real: torch.dtype | None = None


@dataclass
class Call:
    """One node.

    Attributes:
        op_type: operator name.
        name: of the node, or of its first output.
        opset: version of the operator's domain.
        attributes: as Python values; a tensor is an array.
        outputs: names, "" where nobody reads one.
        precision: of the module.
    """

    op_type: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: Sequence[str]
    precision: Precision = field(default_factory=Precision)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def wants(self, index: int) -> bool:
        """Is this output read?"""
        return index < len(self.outputs) and bool(self.outputs[index])

    def dtype(self, code: int) -> torch.dtype:
        """The torch type for an ONNX one; the module's own for a floating one."""
        kind = ir.DataType(code)
        if kind in FLOATING:
            return self.precision.real or FLOATING[kind]
        if kind not in EXACT:
            self.refuse(f"{kind.name} has no torch type here")
        return EXACT[kind]

    def refuse(self, because: str) -> NoReturn:
        """Raises a ModelError: this form of the operator has no function here."""
        what = f"'{self.op_type}' can't be run in torch"
        raise ModelError(what, where=f"{self.op_type} '{self.name}'", because=because)


def tensor_of(array: np.ndarray[Any, Any], call: Call | None = None) -> torch.Tensor:
    """A copy of an array; bfloat16 arrives as its bits."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.kind not in "biuf" or array.dtype.name.startswith("float8"):
        what = f"numbers of type {array.dtype} can't be held in torch"
        raise ModelError(what, where=f"{call.op_type} '{call.name}'" if call else None)
    return torch.from_numpy(np.array(array, order="C"))


def ints(x: torch.Tensor | None) -> list[int]:
    """Sizes, axes or positions as Python numbers."""
    return [] if x is None else [int(i) for i in x.reshape(-1).tolist()]


def axes_of(call: Call, given: torch.Tensor | None, rank: int) -> list[int]:
    """Axes from an input or, in older opsets, an attribute; counted from 0. Empty if neither is there."""
    axes = ints(given) if given is not None else list(call.get("axes") or [])
    return [a % rank if rank else 0 for a in axes]


def on_one_device(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Small integers stay in the CPU's memory; what meets a tensor elsewhere goes there."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), None)
    if device is None:
        return tensors
    return [t.to(device) for t in tensors]
