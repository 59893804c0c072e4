"""Execution providers by the short names of the command line, and sessions that really use them."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from graphprune.errors import ModelError, UsageError


@dataclass(frozen=True)
class Provider:
    """An onnxruntime execution provider.

    Attributes:
        name: onnxruntime's name.
        source: how to get an onnxruntime that has it.
    """

    name: str
    source: str


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


def find_provider(name: str) -> Provider:
    """The provider called ``name``, if this onnxruntime has it.

    Raises:
        UsageError: there is no such name.
        ModelError: this onnxruntime is built without it.
    """
    if name not in PROVIDERS:
        what = f"there is no provider '{name}'"
        raise UsageError(what, hint=f"one of {', '.join(PROVIDERS)}")
    provider = PROVIDERS[name]
    available = ort.get_available_providers()
    if provider.name not in available:
        known = {entry.name: key for key, entry in PROVIDERS.items()}
        there = ", ".join(known.get(entry, entry) for entry in available)
        what = f"the provider '{name}' is not available"
        because = f"onnxruntime {ort.__version__} as installed here has: {there}"
        raise ModelError(what, because=because, hint=provider.source)
    return provider


def open_session(
    model: Path, provider: Provider, threads: int | None, *, trace: Path | None = None
) -> ort.InferenceSession:
    """A session on ``provider``, with the CPU for what the provider can't do.

    Args:
        model: the ONNX file.
        provider: where it runs.
        threads: threads within an operator; None leaves the choice to onnxruntime.
        trace: prefix of the file that onnxruntime's own profiler writes; None turns it off.

    Raises:
        ModelError: onnxruntime refuses the file, or falls back to the CPU altogether.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # The idle threads of one session would slow down the next one that is measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    wanted = [provider.name]
    if provider.name != PROVIDERS["cpu"].name:
        wanted.append(PROVIDERS["cpu"].name)
    if not model.is_file():
        what = f"there is no file '{model}'"
        raise ModelError(what)
    try:
        session = ort.InferenceSession(str(model), options, providers=wanted)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        what = f"onnxruntime cannot load '{model}'"
        raise ModelError(what, because=str(error).splitlines()[0]) from error
    if provider.name not in session.get_providers():
        what = f"'{model}' does not run on {provider.name}"
        because = "its libraries did not load, and onnxruntime fell back to the CPU"
        raise ModelError(what, because=because, hint=provider.source)
    return session


def device_name(provider: Provider) -> str:
    """What the provider runs on: the processor's or the graphics card's name."""
    if provider.name in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        return _graphics_card() or provider.name
    if provider.name in ("CPUExecutionProvider", "XnnpackExecutionProvider"):
        return _processor()
    return f"{provider.name} on {_processor()}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()


def _graphics_card() -> str | None:
    """The first visible card, as the driver's own tool calls it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={visible}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None
