"""Random weights in place of the real ones, for a while.

A layer scale of 1e-6 or a last layer of zeros hides what stands behind it from any comparison of outputs.
With random weights of ordinary size nothing is hidden.

They may also lead where the real ones never do: a router leaves an expert without a token, which a traced
graph can't run, or logits grow so large that a rounding decides.  Nothing is learned from those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.compare import Difference, compare_outputs, run, session
from graphprune.errors import ValidationError
from graphprune.foreign import runnable
from graphprune.kept_positions import KeptPositions
from graphprune.model import Model
from graphprune.quantization import PARAMETERS

_NUDGE = 1e-6  # a few units in the last place
_MAGNIFIED = 10  # so many times what the nudge does may be rounding


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
            if (use.node.op_type, use.index) in PARAMETERS:  # scales keep their size, or all would saturate
                factor = rng.uniform(0.8, 1.25, noise.shape)
                noise = np.asarray(tensor.numpy() * factor, np.float32)
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


def noisy_differences(
    pair: Sequence[Model],
    given: Mapping[str, npt.NDArray[np.generic]],
    kept: KeptPositions,
    accepted: float,
) -> list[Difference]:
    """How far a cut is from its reference, save where rounding alone moves the reference as far.

    Args:
        pair: reference and cut, both made with random weights.
        given: inputs.
        kept: what stays of inputs and outputs.
        accepted: tolerance below which nothing is asked.
    """
    whole = kept.whole(given)
    try:
        expected = kept.kept(run(session(runnable(pair[0])), whole))
    except ValidationError:
        return []
    actual = run(session(runnable(pair[1])), kept.kept(whole))
    found = [d for d in compare_outputs(expected, actual) if d.compared and np.isfinite(d.max_error)]
    if all(difference.within(accepted) for difference in found):
        return found
    with _nudged(pair[0]):
        moved = kept.kept(run(session(runnable(pair[0])), whole))
    moves = {d.output: d.max_error for d in compare_outputs(expected, moved)}
    return [d for d in found if d.max_error > _MAGNIFIED * moves[d.output]]


@contextmanager
def _nudged(model: Model) -> Iterator[None]:
    """The weights are off by a rounding inside this block."""
    real = {v: v.const_value for v in model.ir.graph.initializers.values() if v.const_value is not None}
    rng = np.random.default_rng(0)
    try:
        for value, tensor in real.items():
            if _is_float(tensor):
                array = tensor.numpy()
                factor = 1 + _NUDGE * rng.standard_normal(array.shape)
                value.const_value = ir.tensor((array * factor).astype(array.dtype), name=tensor.name)
        yield
    finally:
        for value, tensor in real.items():
            value.const_value = tensor
