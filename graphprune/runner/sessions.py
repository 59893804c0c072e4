"""Sessions on a provider, made-up inputs, and errors that have a kind."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Refused(Exception):
    """A request that can't be done: ``kind`` for programs, a text for people.

    Attributes:
        kind: one of a few words, see docs/devices.md.
        number: which of several models it concerns.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.number: int | None = None


def runtime() -> Any:
    """The module onnxruntime."""
    try:
        import numpy  # noqa: F401 (without it onnxruntime's own error is obscure)
        import onnxruntime
    except ModuleNotFoundError as error:
        text = f"{sys.executable} has no module '{error.name}'"
        raise Refused(text, "no-onnxruntime") from error
    except (ImportError, OSError) as error:
        raise Refused(
            first_line(error), "wrong-architecture" if _is_alien(error) else "no-onnxruntime"
        ) from error
    return onnxruntime


def _is_alien(error: BaseException) -> bool:
    """Is a library built for another machine?  The loader of Linux says that it does not exist."""
    missing = re.match(r"(/.*\.so[.\d]*): cannot open shared object file", str(error))
    if missing:
        return Path(missing.group(1)).exists()
    return re.search(r"ELF|Exec format|rchitecture|wrong machine", str(error)) is not None


def open_session(ask: dict[str, Any], trace: str | None = None, optimized: str | None = None) -> Any:
    """A session on the wanted provider, with the CPU for what that can't do.

    Args:
        ask: has ``model``, and may have ``provider``, ``options`` (of the provider) and ``threads``.
        trace: prefix of the file that onnxruntime's own profiler writes; None turns it off.
        optimized: file for the graph that onnxruntime makes of the model.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.intra_op_num_threads = ask.get("threads") or 0
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = trace
    if optimized is not None:
        options.optimized_model_filepath = optimized
        # Weights go into a file of their own, so that the graph is small.
        prefix = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(prefix + "file_name", Path(optimized).name + ".weights")
        options.add_session_config_entry(prefix + "min_size_in_bytes", "64")
    wanted = ask.get("provider") or "CPUExecutionProvider"
    if wanted not in ort.get_available_providers():
        text = f"onnxruntime {ort.__version__} there has: {', '.join(ort.get_available_providers())}"
        raise Refused(text, "no-provider")
    providers: list[Any] = [(wanted, ask.get("options") or {})]
    if wanted != "CPUExecutionProvider":
        providers.append(("CPUExecutionProvider", {}))
    try:
        session = ort.InferenceSession(ask["model"], options, providers=providers)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise Refused(first_line(error), "load") from error
    if wanted not in session.get_providers():
        text = f"the libraries of {wanted} did not load, and onnxruntime fell back to the CPU"
        raise Refused(text, "no-provider")
    return session


def first_line(error: BaseException) -> str:
    """The part of an error that says something."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def feeds(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Arrays for ``[{name, dtype, shape, fill}]``, the same ones every time."""
    import numpy as np

    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for value in inputs:
        shape, dtype = value["shape"], value["dtype"]
        if value["fill"] == "normal":
            made[value["name"]] = rng.standard_normal(shape).astype(dtype)
        else:
            made[value["name"]] = (np.ones if value["fill"] == "ones" else np.zeros)(shape, dtype)
    return made


def open_run(ask: dict[str, Any]) -> Callable[[], object]:
    """A callable that runs the model once, on ``inputs``; it has run once."""
    session, arrays = open_session(ask), feeds(ask["inputs"])

    def run() -> object:
        return session.run(None, arrays)

    try:
        run()
    except Exception as error:  # as above
        raise Refused(first_line(error), "run") from error
    return run
