"""A running runner: requests to it, answers from it (docs/devices.md)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import subprocess
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

from graphprune.documents import parse_json
from graphprune.errors import DeviceError
from graphprune.remote import failures
from graphprune.remote.address import Address
from graphprune.remote.answers import is_answer
from graphprune.remote.bundle import script
from graphprune.runner.serving import PROTOCOL
from graphprune.runner.store import CHUNK

Answer: TypeAlias = tuple[dict[str, Any], bytes]

#: Seconds between signs of life, which the runner waits for.
_PULSE = 15.0
#: Seconds for the launcher, Python and onnxruntime to start; slow boards take half of it.
_START_SECONDS = 120.0
_END_SECONDS = 10.0
#: Larger files are sent as they are.
_PACKED_BYTES = 64 << 20
_NOISE_LINES = 1000
#: An answer's document and what follows it are never larger, whatever the other side says.
_LONGEST_LINE = 64 << 20
_MOST_BYTES = 4 << 30
#: Bytes per second of the slowest link that is waited for.
_SLOWEST = 50e3


class Link:
    """Starts the runner and talks to it; ends it on exit from the context.

    Args:
        address: where.

    Raises:
        DeviceError: it does not start.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._sent: set[str] = set()
        self._number = 0
        self._words: deque[str] = deque(maxlen=40)
        self._answers: queue.Queue[Answer | None] = queue.Queue()
        self._turn = threading.Lock()
        self._closed = threading.Event()
        try:
            self._process = subprocess.Popen(
                address.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            what = f"'{address.command[0]}' cannot be started"
            raise DeviceError(what, because=error.strerror, hint="install it, here") from error
        self._threads = [
            threading.Thread(target=task, daemon=True) for task in (self._read, self._read_words, self._pulse)
        ]
        for thread in self._threads:
            thread.start()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def is_alive(self) -> bool:
        """Does the launcher still run?"""
        return not self._closed.is_set() and self._process.poll() is None

    def ask(
        self,
        do: str,
        *,
        doing: str | None = None,
        hint: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        **fields: Any,
    ) -> Answer:
        """One request and its answer.

        Args:
            do: its name.
            doing: what it is about, for errors.
            hint: what helps where it is refused.
            progress: called with rounds done and rounds in all.
            fields: its arguments.

        Raises:
            DeviceError: it is refused, the link breaks, or nothing is heard for too long.
        """
        number = self._send({"do": do, **fields})
        result, payload = self._wait(number, doing or do, hint, progress)
        if not is_answer(do, result):
            raise failures.malformed(self.address, doing or do)
        return result, payload

    def send_file(self, source: Path | bytes) -> str:
        """Sends a file unless it is there already; its hash."""
        digest = digest_of(source)
        if digest in self._sent:
            return digest
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        document: dict[str, Any] = {"do": "put", "sha256": digest, "bytes": size}
        if size <= _PACKED_BYTES:
            packed = zlib.compress(source if isinstance(source, bytes) else source.read_bytes(), 1)
            if len(packed) < 0.9 * size:
                document, source = {**document, "bytes": len(packed), "packed": True}, packed
        doing = f"sending a file of {size / 1e6:.1f} MB"
        self._wait(self._send(document, source), doing, None, None)
        self._sent.add(digest)
        return digest

    def forget(self, digests: set[str]) -> None:
        """Removes files there."""
        there = sorted(digests & self._sent)
        if there:
            self.ask("drop", sha256=there)
            self._sent -= set(there)

    def close(self) -> None:
        """Ends the runner, which removes its folder."""
        self._closed.set()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads[:2]:
            thread.join(_END_SECONDS)

    def _start(self) -> None:
        text = script().encode()
        settings = json.dumps({"folder": self.address.folder}).encode()
        with contextlib.suppress(OSError):  # it ended; the answers tell how
            self._write([b"%d\n" % len(text), text, settings, b"\n"])
        for _ in range(_NOISE_LINES):
            try:
                answer = self._answers.get(timeout=min(_START_SECONDS, self.address.timeout))
            except queue.Empty:
                raise failures.silent(self.address, self.address.timeout, "starting the runner") from None
            if answer is None:
                raise failures.not_started(self.address, self._status(), self._said())
            hello = answer[0]
            if "graphprune-runner" in hello:
                if hello["graphprune-runner"] != PROTOCOL:
                    raise failures.other_protocol(self.address, hello["graphprune-runner"], PROTOCOL)
                if "error" in hello:
                    raise failures.answered(self.address, hello["error"], None, None)
                return
        raise failures.not_started(self.address, None, "it prints much, but never what a runner says first")

    def _wait(
        self, number: int, doing: str, hint: str | None, progress: Callable[[int, int], None] | None
    ) -> Answer:
        while True:
            try:
                answer = self._answers.get(timeout=self.address.timeout)
            except queue.Empty:
                self._process.kill()
                raise failures.silent(self.address, self.address.timeout, doing) from None
            if answer is None:
                self._answers.put(None)  # for whoever asks next
                raise failures.lost(self.address, self._status(), self._said(), doing)
            document, payload = answer
            if document.get("id") != number:
                continue
            if "error" in document:
                raise failures.answered(self.address, document["error"], doing, hint)
            if "result" in document:
                return document["result"], payload
            if progress is not None and "progress" in document:
                progress(*_two_numbers(document["progress"]))

    def _send(self, document: dict[str, Any], payload: Path | bytes = b"") -> int:
        self._number += 1
        line = json.dumps({"id": self._number, **document}).encode() + b"\n"
        # A link that takes nothing any more would hold up this process for good.
        size = len(payload) if isinstance(payload, bytes) else payload.stat().st_size
        stalled = threading.Timer(max(self.address.timeout, size / _SLOWEST), self._process.kill)
        stalled.start()
        try:
            with contextlib.suppress(OSError):  # the link is gone, as the missing answer will say
                self._write([line, *([payload] if isinstance(payload, bytes) else _chunks(payload))])
        finally:
            stalled.cancel()
        return self._number

    def _write(self, parts: list[bytes] | Iterator[bytes]) -> None:
        assert self._process.stdin is not None
        with self._turn:
            for part in parts:
                self._process.stdin.write(part)
            self._process.stdin.flush()

    def _status(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_END_SECONDS)
        return None

    def _said(self) -> str:
        self._threads[1].join(1.0)
        return "\n".join(self._words)

    def _read(self) -> None:
        source = self._process.stdout
        assert source is not None
        with source, contextlib.suppress(OSError):
            while line := source.readline(_LONGEST_LINE):
                document = _document(line)
                if document is None:
                    continue  # a login shell's greeting
                size = document.get("bytes", 0)
                if type(size) is not int or not 0 <= size <= _MOST_BYTES:
                    self._words.append(f"it announces {str(size)[:40]} bytes")
                    break
                payload = source.read(size)
                if len(payload) < size:
                    break
                self._answers.put((document, payload))
        self._answers.put(None)

    def _read_words(self) -> None:
        source: IO[bytes] | None = self._process.stderr
        assert source is not None
        with source, contextlib.suppress(OSError):
            for line in source:
                self._words.append(line.decode("utf-8", "replace").rstrip())

    def _pulse(self) -> None:
        while not self._closed.wait(_PULSE):
            try:
                self._write([b"\n"])
            except (OSError, ValueError):  # closed
                return


def _document(line: bytes) -> dict[str, Any] | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _two_numbers(found: object) -> tuple[int, int]:
    """Rounds done and in all; nothing where a runner says something else."""
    if isinstance(found, list) and len(found) == 2 and all(type(number) is int for number in found):
        return found[0], found[1]
    return 0, 0


def digest_of(source: Path | bytes) -> str:
    """SHA-256 of a file's content."""
    found = hashlib.sha256()
    for chunk in [source] if isinstance(source, bytes) else _chunks(source):
        found.update(chunk)
    return found.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
