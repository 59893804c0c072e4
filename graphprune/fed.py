"""onnxruntime sessions that copy no large weight: these are handed over with the inputs, where they are.

A mapped file stays a mapped file.  Nothing that onnxruntime derives from constants (packed or converted
copies of them) is kept between two runs either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from graphprune.runtime import EMBED_BYTES, UNFEEDABLE

Arrays = Mapping[str, npt.NDArray[np.generic]]


class FedSession:
    """Runs like an ``InferenceSession``.

    Args:
        proto: the model, with its large constants as inputs.
        weights: these constants, by name.
        options: of the session.
    """

    def __init__(self, proto: onnx.ModelProto, weights: Arrays, options: ort.SessionOptions) -> None:
        self._weights = dict(weights)
        self._session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])

    def get_inputs(self) -> list[Any]:
        """What has to be given."""
        return [value for value in self._session.get_inputs() if value.name not in self._weights]

    def get_outputs(self) -> list[Any]:
        """What it makes."""
        return list(self._session.get_outputs())

    def run(self, names: Sequence[str] | None, feeds: Arrays) -> list[Any]:
        """As in onnxruntime."""
        return list(self._session.run(names, {**feeds, **self._weights}))


def can_be_fed(tensor: ir.TensorProtocol) -> bool:
    """Is it large enough to be worth it, and of a type that numpy has?"""
    known = tensor.dtype.bitwidth >= 8 and tensor.dtype not in UNFEEDABLE
    return tensor.nbytes > EMBED_BYTES and known and tensor.dtype.numpy().isbuiltin == 1


def contiguous(tensor: ir.TensorProtocol) -> npt.NDArray[np.generic]:
    """A tensor as onnxruntime takes it."""
    return np.ascontiguousarray(tensor.numpy())
