"""A model as a TensorRT engine in this process.

The calls are those of TensorRT 10 and 11.  Since 11 a network is strongly typed: it computes in what the
model says, and there is no precision to ask for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.errors import ModelError, UsageError
from graphprune.nvidia.driver import Card
from graphprune.runner.sessions import feeds
from graphprune.storage.durable import file_ready_at

#: What activations are taken to reach where int8 is asked for and nothing was calibrated: only for timing.
_RANGE = 4.0

Shapes = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]


def build(model: Path, precision: str | None, shapes: Shapes, cache: Path | None) -> bytes:
    """Compiles a model for the card that is there.

    Args:
        model: an ONNX file.
        precision: ``fp16`` or ``int8``: may be used besides fp32; None or ``fp32``: as the model says.
        shapes: the least, the usual and the largest shape of every input.
        cache: file of the timing cache, which makes the next build quick; None: none.

    Raises:
        ModelError: TensorRT refuses the model.
        UsageError: this TensorRT lets nobody choose the precision.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    creation = trt.NetworkDefinitionCreationFlag
    explicit = getattr(creation, "EXPLICIT_BATCH", None)  # the only kind there is since version 10
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        what = f"TensorRT cannot read '{model}'"
        because = parser.get_error(0).desc() if parser.num_errors else None
        raise ModelError(what, because=because)
    config = builder.create_builder_config()
    _allow(trt, config, network, precision)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        name = network.get_input(number).name
        if -1 in tuple(network.get_input(number).shape):
            profile.set_shape(name, *(tuple(shape) for shape in shapes[name]))
    config.add_optimization_profile(profile)
    known = cache.read_bytes() if cache is not None and cache.is_file() else b""
    timings = config.create_timing_cache(known)
    config.set_timing_cache(timings, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        what = f"TensorRT cannot build an engine of '{model}'"
        raise ModelError(what, because="its own messages stand above")
    if cache is not None:
        with suppress(OSError):  # a home that can't be written to costs time, nothing else
            cache.parent.mkdir(parents=True, exist_ok=True)
            with file_ready_at(cache) as file:
                file.write(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _allow(trt: Any, config: Any, network: Any, precision: str | None) -> None:
    if precision in (None, "fp32"):
        if hasattr(trt.BuilderFlag, "TF32") and precision == "fp32":
            config.clear_flag(trt.BuilderFlag.TF32)
        return
    flag = getattr(trt.BuilderFlag, str(precision).upper(), None)
    if flag is None:
        what = f"TensorRT {trt.__version__} cannot be told to compute in {precision}"
        because = "since version 11 it computes in what the model says"
        raise UsageError(
            what, because=because, hint="a model in that precision, or pip install 'tensorrt<11'"
        )
    config.set_flag(flag)
    kinds = {str(network.get_layer(i).type) for i in range(network.num_layers)}
    if precision == "int8" and not any("QUANTIZE" in kind for kind in kinds):
        for tensor in _tensors(network):
            tensor.set_dynamic_range(-_RANGE, _RANGE)


def _tensors(network: Any) -> list[Any]:
    found = [network.get_input(i) for i in range(network.num_inputs)]
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        found += [layer.get_output(i) for i in range(layer.num_outputs)]
    return found


class Engine:
    """An engine with its inputs and outputs, ready to run.

    Args:
        plan: what :func:`build` returns.
        inputs: what to feed, see :func:`graphprune.profiling.feeds.describe`.
    """

    def __init__(self, plan: bytes, inputs: list[dict[str, Any]]) -> None:
        import tensorrt as trt

        self.card = Card()
        self._trt = trt
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        self._context = self._engine.create_execution_context()
        arrays = feeds(inputs)
        self._inputs: list[tuple[int, npt.NDArray[Any]]] = []
        self._outputs: list[tuple[int, npt.NDArray[Any]]] = []
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        takes = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        for name in takes:
            dtype = trt.nptype(self._engine.get_tensor_dtype(name))
            array = np.ascontiguousarray(arrays[name].astype(dtype, copy=False))
            self._context.set_input_shape(name, array.shape)
            self._inputs.append((self._bind(name, array.nbytes), array))
        for name in names:
            if name not in takes:
                dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
                shape = tuple(self._context.get_tensor_shape(name))
                if min(shape, default=0) < 0:
                    what = f"the size of output '{name}' depends on the data"
                    raise ModelError(what, because="TensorRT gets no memory for it here")
                array = np.empty(shape, dtype)
                self._outputs.append((self._bind(name, math.prod(shape) * dtype.itemsize), array))

    def __call__(self) -> object:
        """One run, with the copies to the card and back."""
        for address, array in self._inputs:
            self.card.upload(address, array)
        if not self._context.execute_async_v3(self.card.stream):
            what = "TensorRT fails to run the engine"
            raise ModelError(what, because="its own messages stand above")
        for address, array in self._outputs:
            self.card.download(array, address)
        self.card.wait()
        return None

    def layer_times(self, runs: int) -> list[tuple[str, list[float]]]:
        """Milliseconds of every run by layer, as TensorRT calls the layers."""
        found: dict[str, list[float]] = {}
        trt = self._trt

        class Profiler(trt.IProfiler):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                found.setdefault(layer_name, []).append(ms)

        self._context.profiler = Profiler()
        for _ in range(runs):
            self()
        return list(found.items())

    def close(self) -> None:
        """Frees the card's memory."""
        self.card.close()
        del self._context, self._engine

    def _bind(self, name: str, size: int) -> int:
        address = self.card.allocate(size)
        self._context.set_tensor_address(name, address)
        return address
