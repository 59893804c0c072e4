"""Requests from standard input, answers to standard output, until the input closes (docs/devices.md)."""

from __future__ import annotations

import json
import os
import platform
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from graphprune.runner.alone import alone, alone_here
from graphprune.runner.meters import card_says, frequency, temperature
from graphprune.runner.sessions import Refused, feeds, first_line, open_session, runtime
from graphprune.runner.store import CHUNK, Source, Store, is_full
from graphprune.runner.timing import measure
from graphprune.runner.tracing import trace

PROTOCOL = 1
#: Seconds without a byte from the other side, which sends one every 15, after which it is gone.
SILENCE = 120


class Link(Source):
    """Both directions; standard output is kept from everybody else."""

    def __init__(self) -> None:
        self._in = sys.stdin.buffer
        self.heard = time.monotonic()
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # libraries print too
        self._turn = threading.Lock()

    def send(self, document: dict[str, Any], payload: Path | None = None) -> None:
        """One line, and the bytes of a file behind it."""
        if payload is not None:
            document = {**document, "bytes": payload.stat().st_size}
        with self._turn:
            self._out.write(json.dumps(document).encode() + b"\n")
            if payload is not None:
                with payload.open("rb") as file:
                    shutil.copyfileobj(file, self._out, CHUNK)
            self._out.flush()

    def readline(self) -> bytes:
        """The next line; empty at the end."""
        line = self._in.readline()
        self.heard = time.monotonic()
        return line

    def read(self, size: int) -> bytes:
        """The next bytes; empty at the end."""
        chunk = self._in.read(size)
        self.heard = time.monotonic()
        return chunk


class Runner:
    """Answers one request after another."""

    def __init__(self, link: Link, store: Store) -> None:
        self._link, self._store = link, store

    def answer(self, ask: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
        """The result of a request, and a file that goes with it."""
        do = getattr(self, "do_" + str(ask.get("do")).replace("-", "_"), None)
        if do is None:
            text = f"this runner (protocol {PROTOCOL}) cannot do '{ask.get('do')}'"
            raise Refused(text, "request")
        try:
            found = do(ask)
        finally:
            self._store.clear_views()
        return found if isinstance(found, tuple) else (found, None)

    def do_info(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The machine and its runtime."""
        return information(self._store.folder)

    def do_measure(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Latency of models in alternation."""

        def progress(done: int, of: int) -> None:
            self._link.send({"id": ask.get("id"), "progress": [done, of]})

        return measure({**ask, "runs": [self._with_model(run) for run in ask["runs"]]}, progress)

    def do_alone(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Memory and load time."""
        return alone(self._with_model(ask), self._store.script)

    def do_trace(self, ask: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
        """Time by node, with the optimized graph."""
        folder = self._store.view({})
        result, optimized = trace(self._with_model(ask), str(folder))
        if optimized is None:
            return result, None
        kept = self._store.folder / "optimized.onnx"
        Path(optimized).rename(kept)  # the folder with its weights goes now
        return result, kept

    def do_outputs(self, ask: dict[str, Any]) -> tuple[dict[str, Any], Path]:
        """What a model computes, from the arrays of an .npz file or from made-up ones."""
        import numpy as np

        session = open_session(self._with_model(ask))
        if ask.get("arrays"):
            with np.load(str(self._store.path(ask["arrays"]))) as data:
                arrays = {name: data[f"arr_{i}"] for i, name in enumerate(ask["names"])}
        else:
            arrays = feeds(ask["inputs"])
        try:
            outputs = session.run(None, arrays)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise Refused(first_line(error), "run") from error
        kept = self._store.folder / "outputs.npz"
        with kept.open("wb") as file:
            np.savez(file, *outputs)
        return {"names": [value.name for value in session.get_outputs()]}, kept

    def do_drop(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Removes files that were sent."""
        self._store.drop(ask["sha256"])
        return {}

    def _with_model(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The request with the path of the model that it names."""
        model = ask["model"]
        if "files" in model:
            return {**ask, "model": str(self._store.view(model["files"]) / model["main"])}
        return {**ask, "model": str(self._store.path(model["sha256"]))}


def information(folder: Path) -> dict[str, Any]:
    """The machine and its runtime."""
    ort = runtime()
    import numpy

    memory = 0
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": ort.__version__,
        "providers": ort.get_available_providers(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor(),
        "features": features(),
        "card": card_says("name"),
        "cores": cores(),
        "memory_bytes": memory,
        "free_disk_bytes": shutil.disk_usage(str(folder)).free,
        "mhz": frequency(),
        "celsius": temperature(),
    }


def cores() -> int | None:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def processor() -> str:
    """The name of the processor, or of the board where the processor has none."""
    text = _read("/proc/cpuinfo")
    for label in ("model name", "Hardware", "Model"):
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name.strip() == label and value.strip():
                return value.strip()
    board = _read("/proc/device-tree/model").strip("\0 \n")
    return board or platform.processor() or platform.machine()


def features() -> list[str]:
    """Instruction sets, as Linux calls them."""
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return value.split()
    return []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def error_of(error: BaseException) -> dict[str, Any]:
    """An error as it is sent."""
    if isinstance(error, Refused):
        found: dict[str, Any] = {"kind": error.kind, "text": str(error)}
        return found if error.number is None else {**found, "number": error.number}
    if isinstance(error, MemoryError):
        return {"kind": "memory", "text": first_line(error)}
    if isinstance(error, OSError) and is_full(error):
        return {"kind": "disk-full", "text": first_line(error)}
    return {"kind": "internal", "text": traceback.format_exc().strip().splitlines()[-1]}


def serve(script: str) -> None:
    """Says hello, then answers until the input closes; the folder is gone then, whatever happened.

    Args:
        script: text of the joined runner.
    """
    link = Link()
    settings = json.loads(link.readline() or b"{}")
    hello = {
        "graphprune-runner": PROTOCOL,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    try:
        runtime()  # first: it may end the process, which has no folder yet
        store = Store(settings.get("folder"), script)
    except Refused as error:
        link.send({**hello, "error": error_of(error)})
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: leave(store))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal that the other side shares with this process
    asks: Any = queue.Queue()
    for task in (lambda: listen(link, store, asks), lambda: wait_for_silence(link, store)):
        threading.Thread(target=task, daemon=True).start()
    link.send({**hello, "folder": str(store.folder)})
    runner = Runner(link, store)
    while True:
        ask = asks.get()
        try:
            result, payload = runner.answer(ask)
            answer: dict[str, Any] = {"id": ask.get("id"), "result": result}
        except Exception as error:
            answer, payload = {"id": ask.get("id"), "error": error_of(error)}, None
        try:
            link.send(answer, payload)
        except OSError:  # the link is gone
            leave(store)
        if payload is not None:
            payload.unlink()


def listen(link: Link, store: Store, asks: Any) -> None:
    """Takes files as they come, hands on the rest; leaves when the link is gone, whatever runs then."""
    try:
        while True:
            line = link.readline()
            if not line:
                break
            if not line.strip():
                continue  # a sign of life
            ask = json.loads(line.decode())
            if ask.get("do") == "put":
                try:
                    store.receive(link, ask["bytes"], ask["sha256"], bool(ask.get("packed")))
                    link.send({"id": ask.get("id"), "result": {}})
                except Refused as error:
                    link.send({"id": ask.get("id"), "error": error_of(error)})
            else:
                asks.put(ask)
    except (EOFError, OSError, ValueError, KeyError):
        pass
    leave(store)


def wait_for_silence(link: Link, store: Store) -> None:
    """Leaves when the other side is gone without the system noticing, as when a cable is pulled."""
    while time.monotonic() - link.heard < SILENCE:
        time.sleep(5)
    leave(store)


def leave(store: Store) -> None:
    """Ends the process and its folder at once; a run in progress is not waited for."""
    store.remove()
    os._exit(0)


def main(script: str) -> None:
    """Entry of the joined file."""
    if "--alone" in sys.argv:
        alone_here()
    else:
        serve(script)
