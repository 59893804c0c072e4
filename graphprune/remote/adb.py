"""Android over adb: latency by ``onnxruntime_perf_test``, since phones have no Python.

The tool comes with onnxruntime's own builds (``build.sh --android --build_shared_lib``).  It is taken from
``/data/local/tmp/onnxruntime_perf_test``, or from the folder that ``?folder=`` names, with
``libonnxruntime.so`` beside it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from graphprune.errors import DeviceError
from graphprune.profiling.feeds import declared_inputs
from graphprune.profiling.setups import Progress, Setup
from graphprune.remote.address import Address
from graphprune.remote.link import digest_of
from graphprune.runner.timing import BUDGET_SECONDS, Blockwise, alternate
from graphprune.storage.external_places import external_files

TOOL = "onnxruntime_perf_test"
FOLDER = "/data/local/tmp"
#: What the tool calls the providers.
_PROVIDERS = {
    "CPUExecutionProvider": "cpu",
    "NnapiExecutionProvider": "nnapi",
    "QNNExecutionProvider": "qnn",
    "XnnpackExecutionProvider": "xnnpack",
}


class AdbBench:
    """A phone; everything that was pushed is removed on exit from the context.

    Args:
        address: its serial number, and perhaps the folder of the tool.

    Raises:
        DeviceError: adb or the phone or the tool is missing.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._tools = PurePosixPath(address.folder or FOLDER)
        state = self._adb("get-state", doing="looking for the phone")
        if state.strip() != "device":
            what = f"the phone '{address.target}' is not ready"
            raise DeviceError(what, because=f"its state is '{state.strip()}'", hint="adb devices")
        if "yes" not in self._shell(f"test -x {shlex.quote(str(self._tools / TOOL))} && echo yes || echo no"):
            what = f"there is no {TOOL} on the phone '{address.target}'"
            hint = f"adb push {TOOL} and libonnxruntime.so to {self._tools}, or ?folder=… (docs/devices.md)"
            raise DeviceError(what, where=str(self._tools), hint=hint)
        self._folder = PurePosixPath(self._shell(f"mktemp -d {FOLDER}/graphprune-XXXXXX").strip())
        self._there: dict[Path | bytes, PurePosixPath] = {}

    def __enter__(self) -> AdbBench:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        try:
            self._shell(f"rm -rf {shlex.quote(str(self._folder))}")
        except DeviceError:
            if kind is None:  # else what went wrong first says more
                raise

    @cached_property
    def information(self) -> dict[str, Any]:
        """What the phone says of itself; its tool does not tell which providers it has."""
        model = self._shell("getprop ro.product.model").strip()
        chip = self._shell("getprop ro.soc.model").strip()
        features = re.search(r"Features\s*:(.*)", self._shell("cat /proc/cpuinfo"))
        return {
            # The tool does not tell; what was timed with another build of it is no use.
            "onnxruntime": f"unknown, {self._build()}",
            "python": "none",
            "numpy": "none",
            "providers": list(_PROVIDERS),
            "processor": " ".join(part for part in (model, chip) if part),
            "features": features.group(1).split() if features else [],
            "machine": self._shell("uname -m").strip(),
            "card": None,
        }

    def _build(self) -> str:
        """A checksum of the tool and its library."""
        files = " ".join(shlex.quote(str(self._tools / name)) for name in (TOOL, "libonnxruntime.so"))
        return self._shell(f"cat {files} 2>/dev/null | cksum").split()[0]

    def measure(
        self, setups: Sequence[Setup], shared: dict[str, Any], progress: Progress | None = None
    ) -> dict[str, Any]:
        """Latency in alternation: each round runs the tool once for every model."""
        runs = [_Timed(self, setup) for setup in setups]
        seconds = float(shared.get("seconds") or BUDGET_SECONDS)
        timed = alternate(runs, shared.get("repeat"), None, seconds, None, progress)
        return {"runs": timed, "conditions": {"mhz": [], "celsius": [], "throttled": 0}}

    def alone(self, setup: Setup) -> dict[str, Any]:
        """Memory and load time, as the tool prints them."""
        text = self._perf_test(setup, 1)
        peak = re.search(r"Peak working set size:\s*(\d+)\s*bytes", text)
        load = re.search(r"Session creation time cost:\s*([\d.eE+-]+)\s*s", text)
        return {
            "idle": None,
            "peak": int(peak.group(1)) if peak else None,
            "card": None,
            "load_ms": float(load.group(1)) * 1e3 if load else None,
        }

    def trace(self, setup: Setup, seconds: float) -> tuple[list[dict[str, Any]], bytes | None]:
        """Nothing: the tool's own profile is not fetched."""
        return [], None

    def times(self, setup: Setup, count: int) -> list[float]:
        """Milliseconds of each run, from the file of results; the tool runs once before it counts."""
        results = self._folder / "results.csv"
        self._perf_test(setup, count, results)
        text = self._shell(f"cat {shlex.quote(str(results))} && rm {shlex.quote(str(results))}")
        found = seconds_in(text)
        if len(found) != count:
            because = f"{len(found)} times in its results instead of {count}"
            what = f"cannot read what {TOOL} wrote"
            raise DeviceError(what, because=because)
        return [1e3 * value for value in found]

    def _perf_test(self, setup: Setup, count: int, results: PurePosixPath | None = None) -> str:
        words = [f"./{TOOL}", "-I", "-m", "times", "-r", str(count), "-e", _PROVIDERS[setup.provider.name]]
        if setup.threads is not None:
            words += ["-x", str(setup.threads)]
        if setup.options:
            words += ["-i", " ".join(f"{key}|{value}" for key, value in setup.options.items())]
        for name, size in symbolic_sizes(setup).items():
            words += ["-f", f"{name}:{size}"]
        words.append(str(self._push(setup.model)))
        if results is not None:
            words.append(str(results))
        line = " ".join(shlex.quote(word) for word in words)
        tools = shlex.quote(str(self._tools))
        text = self._shell(f"cd {tools} && LD_LIBRARY_PATH={tools} {line} 2>&1; echo status=$?")
        if not text.rstrip().endswith("status=0"):
            lines = [entry for entry in text.strip().splitlines()[:-1] if entry.strip()]
            what = f"{setup.title} does not run on '{self._address.target}'"
            because = lines[-1] if lines else f"{TOOL} says nothing"
            raise DeviceError(what, where=setup.sizes, because=because)
        return text

    def _push(self, model: Path | bytes) -> PurePosixPath:
        if model in self._there:
            return self._there[model]
        folder = self._folder / digest_of(model)[:16]
        self._shell(f"mkdir -p {shlex.quote(str(folder))}")
        if isinstance(model, bytes):
            with tempfile.TemporaryDirectory(prefix="graphprune-") as here:
                path = Path(here) / "model.onnx"
                path.write_bytes(model)
                self._send(path, folder / path.name)
        else:
            for name in (model.name, *external_files(model)):
                self._send(model.parent / name, folder / name)
        name = "model.onnx" if isinstance(model, bytes) else model.name
        self._there[model] = folder / name
        return folder / name

    def _send(self, path: Path, there: PurePosixPath) -> None:
        self._adb("push", str(path), str(there), doing=f"sending '{path}'")

    def _shell(self, line: str) -> str:
        return self._adb("shell", line, doing="talking to the phone")

    def _adb(self, *words: str, doing: str) -> str:
        command = ["adb", "-s", self._address.target, *words]
        quiet, seconds = subprocess.DEVNULL, self._address.timeout
        try:
            done = subprocess.run(command, stdin=quiet, capture_output=True, timeout=seconds, check=False)
        except OSError as error:
            what = "'adb' cannot be started"
            hint = "install Android's platform-tools (package adb), here"
            raise DeviceError(what, because=error.strerror, hint=hint) from error
        except subprocess.TimeoutExpired as error:
            what = f"the phone '{self._address.target}' does not answer"
            raise DeviceError(what, where=doing, because=f"waited {self._address.timeout:g} s") from error
        if done.returncode != 0:
            because = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            last = because[-1] if because else None
            if last is not None and "No space left" in last:
                what = f"the disk of the phone '{self._address.target}' is full"
                raise DeviceError(what, where=doing, because=last)
            what = f"adb fails for '{self._address.target}'"
            raise DeviceError(what, where=doing, because=last, hint="adb devices")
        return done.stdout.decode("utf-8", "replace")


class _Timed(Blockwise):
    def __init__(self, bench: AdbBench, setup: Setup) -> None:
        self._bench, self._setup = bench, setup

    def times(self, count: int) -> list[float]:
        """Milliseconds of so many runs."""
        return self._bench.times(self._setup, count)


def symbolic_sizes(setup: Setup) -> dict[str, int]:
    """Sizes of the named symbolic axes of the inputs."""
    found = {}
    for declared, made in zip(declared_inputs(setup.model), setup.inputs, strict=True):
        for dim, size in zip(declared.shape, made["shape"], strict=True):
            if isinstance(dim, str):
                found[dim] = int(size)
    return found


def seconds_in(results: str) -> list[float]:
    """The times in the tool's file of results: lines of model, seconds, peak bytes, processor, number."""
    found = []
    for line in results.splitlines():
        match = re.fullmatch(r".*,([\d.eE+-]+),\d+,-?\d+,\d+", line.strip())
        if match:
            found.append(float(match.group(1)))
    return found
