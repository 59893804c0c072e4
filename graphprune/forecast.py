"""What a large model will ask for, said before the work begins: memory and time.

The numbers are those of a criterion that looks at weights alone.  The memory is that of a few rows of a
weight, and of the parts that are run to verify the cut; the time is that of reading all weights twice and of
writing what is kept, at the speed at which a piece of them is read and turned into float32 now.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import onnx_ir as ir

from graphprune.amounts import size
from graphprune.by_parts import PART_BYTES
from graphprune.model import Model
from graphprune.parts import is_big

#: The interpreter with all libraries, and the graph.
_BASE = 300 << 20
#: Bytes that are read to see how fast that is.
_SAMPLE = 1 << 25
_MINUTE = 90
_log = logging.getLogger("graphprune")


def announce(model: Model, *, verify: bool) -> None:
    """Logs what a large model will need; nothing for any other."""
    if not is_big(model):
        return
    seconds = seconds_for(model)
    _log.info(
        "large model: %s of weights stay on the disk; scores from weights, the cut and its check take up to "
        "%s of memory and %s",
        size(model.weight_bytes),
        size(memory_for(model, verify=verify)),
        "a minute" if seconds < _MINUTE else f"{seconds / 60:.0f} minutes",
    )


def memory_for(model: Model, *, verify: bool) -> int:
    """Bytes of memory at most, mapped files aside."""
    if not verify:
        return _BASE
    tensors = _tensors(model)
    largest = max((tensor.nbytes for tensor in tensors), default=0)
    # A part with zeros in it, and its largest weight in float32.
    widest = max((4 * tensor.size for tensor in tensors if tensor.dtype.itemsize < 4), default=0)
    return _BASE + max(PART_BYTES, largest) + widest


def seconds_for(model: Model) -> float:
    """Seconds, by the speed of a sample."""
    tensors = sorted(_tensors(model), key=lambda tensor: -tensor.nbytes)[:1]
    sample = 0
    start = time.perf_counter()
    for tensor in tensors:
        raw = tensor.numpy().reshape(-1)
        part = raw[len(raw) // 2 :][: _SAMPLE // max(raw.itemsize, 1)]
        sample += part.nbytes
        np.square(part.astype(np.float32)).sum()
    taken = time.perf_counter() - start
    return 3 * taken / max(sample, 1) * model.weight_bytes


def _tensors(model: Model) -> list[ir.TensorProtocol]:
    constants = (value.const_value for value in model.ir.graph.initializers.values())
    return [tensor for tensor in constants if tensor is not None and tensor.dtype != ir.DataType.STRING]
