"""Random weights in place of the real ones, for a while.

A layer scale of 1e-6 or a last layer of zeros hides what stands behind it from any comparison of outputs.
With random weights of ordinary size nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis


@contextmanager
def random_weights(analysis: Analysis, seed: int) -> Iterator[None]:
    """The floating-point parameters that can shrink hold noise inside this block.

    Matrices keep the scale of their input (variance 1 / fan-in); vectors stay near 1, since they may be
    scales, variances or divisors.
    """
    real: dict[ir.Value, ir.TensorProtocol] = {}
    rng = np.random.default_rng(seed)
    try:
        for use in analysis.uses.values():
            tensor = use.value.const_value
            can_shrink = any(len(analysis.algebra.live(axis).T) for axis in use.axes)
            if tensor is None or use.value in real or not can_shrink or not _is_float(tensor):
                continue
            real[use.value] = tensor
            noise = _noise(tuple(int(n) for n in tensor.shape.numpy()), rng)
            use.value.const_value = ir.tensor(noise.astype(tensor.dtype.numpy()), name=tensor.name)
        yield
    finally:
        for value, tensor in real.items():
            value.const_value = tensor


def _is_float(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


def _noise(
    shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sum(n > 1 for n in shape) < 2:
        return np.asarray(1 + 0.1 * noise, np.float32)
    fan_in = prod(shape[1:]) if len(shape) > 2 else shape[0]
    return np.asarray(noise / np.sqrt(fan_in), np.float32)
