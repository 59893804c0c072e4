"""``--isolate``: the command runs in a process of its own, so that a crash there is an error like any other.

onnx and onnxruntime are native code, and a file can be made that ends their process: an assertion that fails,
memory that is not theirs.  Nothing is half written then, but nobody says what happened either.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from graphprune.cli.output import fail
from graphprune.errors import GraphPruneError, ModelError, UsageError

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def isolated(run: Callable[[], int]) -> int:
    """The exit code of ``run`` in a forked process; 1, and an error, if a signal ends it.

    Args:
        run: the command; it says itself what goes wrong.
    """
    if not hasattr(os, "fork"):
        message = "--isolate is not possible on this system"
        return fail(UsageError(message, because="it has no fork", hint="a container for each file"))
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    process = os.fork()
    if not process:
        _carry_out(run, parent)
    # What ends the command is for the other process; this one tells how it ended.
    endings = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    forwarded = [number for number in endings if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, frame: os.kill(process, n)) for number in forwarded}
    try:
        _, status = os.waitpid(process, 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    return fail(_crash(os.WTERMSIG(status)))


def _carry_out(run: Callable[[], int], parent: int) -> None:
    """The other process: never returns."""
    code = 70
    try:
        os.setpgid(0, 0)  # a terminal tells the first process alone, which hands it on: once
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            if os.getppid() != parent:  # it was gone before that
                os._exit(code)
        _keep_stderr_from_libraries()
        code = run()
    except SystemExit as exit_:  # the reader of the output went away
        code = exit_.code if isinstance(exit_.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _keep_stderr_from_libraries() -> None:
    """What native code says while it crashes is no part of the error."""
    own = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = os.fdopen(own, "w", encoding="utf-8", errors="backslashreplace", buffering=1)


def _crash(number: int) -> GraphPruneError:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        message = "the command was killed"
        return ModelError(message, because="perhaps for want of memory; nothing was half written",
                          hint="smaller sizes: --dim NAME=SIZE")  # fmt: skip
    message = "a library crashed over this file"
    because = f"{name} within onnx or onnxruntime; nothing was half written"
    return ModelError(message, because=because, hint="take it for a broken file, unless you know it well")
