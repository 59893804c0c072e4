"""Execution providers by the short names of the command line, and sessions that really use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import onnxruntime as ort

from graphprune.errors import ModelError, UsageError
from graphprune.runner import sessions
from graphprune.runner.meters import card_says
from graphprune.runner.serving import processor as this_processor


@dataclass(frozen=True)
class Provider:
    """An onnxruntime execution provider.

    Attributes:
        name: onnxruntime's name.
        source: how to get an onnxruntime that has it.
    """

    name: str
    source: str

    @property
    def on_card(self) -> bool:
        """Does it run on an NVIDIA graphics card?"""
        return self.name in ("CUDAExecutionProvider", "TensorrtExecutionProvider", TENSORRT.name)


#: NVIDIA's library by itself, on this machine only.
TENSORRT = Provider(
    "TensorRT", "pip install tensorrt, and an NVIDIA driver; or its program trtexec on the PATH"
)
PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", "pip install onnxruntime"),
    "cuda": Provider("CUDAExecutionProvider", "pip install 'graphprune[gpu]' (onnxruntime-gpu)"),
    "tensorrt": Provider(
        "TensorrtExecutionProvider", "pip install 'graphprune[gpu]' (onnxruntime-gpu) and tensorrt"
    ),
    "openvino": Provider("OpenVINOExecutionProvider", "pip install onnxruntime-openvino"),
    "coreml": Provider("CoreMLExecutionProvider", "pip install onnxruntime, on macOS"),
    "qnn": Provider("QNNExecutionProvider", "pip install onnxruntime-qnn"),
    "xnnpack": Provider("XnnpackExecutionProvider", "an onnxruntime built with --use_xnnpack"),
    "dml": Provider("DmlExecutionProvider", "pip install onnxruntime-directml, on Windows"),
}


def find_provider(
    name: str, information: Mapping[str, Any] | None = None, where: str | None = None
) -> Provider:
    """The provider called ``name``, if the onnxruntime has it.

    Args:
        name: a short name, onnxruntime's name, or that without its ending in any case.
        information: of another machine, as its runner gives it.
        where: that machine, for errors.

    Raises:
        UsageError: there is no such name.
        ModelError: onnxruntime is built without it.
    """
    if name == "trt":
        return _tensorrt(where)
    available = list(information["providers"]) if information else ort.get_available_providers()
    others = {entry.lower().removesuffix("executionprovider"): entry for entry in available}
    full = others.get(name.lower().removesuffix("executionprovider"))
    provider = PROVIDERS.get(name)
    if provider is None and full is not None:
        known = [entry for entry in PROVIDERS.values() if entry.name == full]
        return known[0] if known else Provider(full, "an onnxruntime that has it")
    if provider is None:
        what = f"there is no provider '{name}'"
        raise UsageError(what, hint=f"one of {', '.join(PROVIDERS)}, trt")
    if provider.name not in available:
        what = f"the provider '{name}' is not available"
        version = information["onnxruntime"] if information else ort.__version__
        there = ", ".join(short_name(entry) for entry in available)
        because = f"onnxruntime {version} as installed {'there' if information else 'here'} has: {there}"
        raise ModelError(what, where=where, because=because, hint=provider.source)
    return provider


def _tensorrt(where: str | None) -> Provider:
    what = "TensorRT by itself is not available"
    if where is not None:
        because = "it is measured on this machine only"
        raise ModelError(what, where=where, because=because, hint="--provider tensorrt, through onnxruntime")
    if find_spec("tensorrt") is None and which("trtexec") is None:
        because = "there is neither its Python package nor trtexec"
        raise ModelError(what, because=because, hint=TENSORRT.source)
    return TENSORRT


def short_name(full: str) -> str:
    """What the command line calls a provider of onnxruntime."""
    return {entry.name: key for key, entry in PROVIDERS.items()}.get(full, full)


def open_session(
    model: Path | bytes, provider: Provider, threads: int | None, *, trace: Path | None = None
) -> ort.InferenceSession:
    """A session on ``provider``, with the CPU for what the provider can't do.

    Args:
        model: the ONNX file, or its bytes.
        provider: where it runs.
        threads: threads within an operator; None leaves the choice to onnxruntime.
        trace: prefix of the file that onnxruntime's own profiler writes; None turns it off.

    Raises:
        ModelError: onnxruntime refuses the file, or falls back to the CPU altogether.
    """
    name = "the model" if isinstance(model, bytes) else f"'{model}'"
    if isinstance(model, Path) and not model.is_file():
        what = f"there is no file '{model}'"
        raise ModelError(what)
    source = model if isinstance(model, bytes) else str(model)
    ask = {"model": source, "provider": provider.name, "threads": threads}
    try:
        return sessions.open_session(ask, None if trace is None else str(trace))
    except sessions.Refused as error:
        if error.kind == "load":
            what = f"onnxruntime cannot load {name}"
            raise ModelError(what, because=str(error)) from error
        what = f"{name} does not run on {provider.name}"
        raise ModelError(what, because=str(error), hint=provider.source) from error


def device_name(provider: Provider, information: Mapping[str, Any] | None = None) -> str:
    """What the provider runs on: the processor's or the graphics card's name.

    Args:
        provider: an execution provider.
        information: of a machine, as its runner gives it; this machine by default.
    """
    processor = str(information["processor"]) if information else this_processor()
    if provider.on_card:
        return str((information["card"] if information else card_says("name")) or provider.name)
    if provider.name in ("CPUExecutionProvider", "XnnpackExecutionProvider"):
        return processor
    return f"{provider.name} on {processor}"
