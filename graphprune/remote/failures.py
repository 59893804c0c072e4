"""What went wrong on the way or over there, in the four lines of every error."""

from __future__ import annotations

import re

from graphprune.errors import DeviceError
from graphprune.remote.address import Address

_AGAIN = "run it again: nothing was written, and the runner removes itself there"

#: What a launcher says on its way out: a pattern, what it means, what helps.
_STARTS: tuple[tuple[str, str, str], ...] = (
    (
        r"HOST IDENTIFICATION HAS CHANGED",
        "the host key of {target} is not the one that is known",
        "find out why; only then replace the known one: ssh-keygen -R HOST",
    ),
    (
        r"Host key verification failed|host key is known",
        "the host key of {target} is not known",
        "compare its fingerprint and connect once by hand, or ?known_hosts=FILE in the address",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{target} lets nobody in without a password",
        "ssh-copy-id, or ?identity=KEYFILE in the address",
    ),
    (
        r"Could not resolve|Connection refused|timed out|No route|unreachable|Connection (closed|reset)",
        "{target} cannot be reached",
        "the host, the port, and whether a ssh server runs there",
    ),
    (
        r"Unable to find image|pull access denied|No such image|manifest unknown",
        "there is no image {target}",
        "docker pull",
    ),
    (
        r"Cannot connect to the Docker|docker daemon|docker API",
        "docker does not run here",
        "start its daemon",
    ),
    (
        r"Exec format error|cannot execute binary",
        "the Python of {target} is built for another architecture",
        "a Python for that machine: ?python=/path/of/python3",
    ),
    (r"graphprune: python ([\d.]+)", "the Python of {target} is older than 3.8", "?python=/path/of/python3"),
    (
        r"not found|No such file|not recognized|executable file",
        "there is no Python on {target}",
        "install python3 there, or say where it is: ?python=/path/of/python3",
    ),
)
_ILLEGAL_INSTRUCTION = (132, -4, 4)
_KILLED = (137, -9)

#: Errors of the runner: what they mean, what helps.
_ANSWERS = {
    "no-onnxruntime": (
        "there is no onnxruntime on {target}",
        "pip install onnxruntime, there; or name a Python that has it: ?python=/path/of/python3",
    ),
    "wrong-architecture": (
        "the onnxruntime of {target} is built for another architecture",
        "pip install --force-reinstall onnxruntime, there",
    ),
    "disk-full": ("the disk of {target} is full", "room there, or another folder: ?folder=/path"),
    "no-folder": ("the runner gets no folder on {target}", "another one: ?folder=/path"),
    "no-provider": ("{target} lacks the execution provider", None),
    "load": ("the onnxruntime of {target} cannot load the model", None),
    "run": ("the model does not run on {target}", "--dim NAME=SIZE"),
    "alone": ("the model cannot be run in a process of its own on {target}", None),
    "memory": ("{target} has not enough memory", "smaller sizes: --dim NAME=SIZE"),
    "transfer": ("a file arrived damaged on {target}", _AGAIN),
}


def not_started(address: Address, status: int | None, words: str) -> DeviceError:
    """The launcher ended before the runner said anything."""
    said = _last_line(words)
    target = _name(address)
    if status in _ILLEGAL_INSTRUCTION:
        what = f"the onnxruntime or numpy of {target} is built for another processor"
        return DeviceError(what, because="an illegal instruction ended it")
    for pattern, what, hint in _STARTS:
        if re.search(pattern, words):
            line = next((line for line in words.splitlines() if re.search(pattern, line)), said)
            return DeviceError(what.format(target=target), because=line.strip(), hint=hint)
    what = f"the runner does not start on {target}"
    return DeviceError(what, because=said or f"the launcher ended with status {status}")


def lost(address: Address, status: int | None, words: str, doing: str) -> DeviceError:
    """The link closed in the middle."""
    what = f"the link to {_name(address)} was lost"
    because = _last_line(words) or f"the launcher ended with status {status}"
    if status in _KILLED:
        because = "the runner was killed there, perhaps for want of memory"
    return DeviceError(what, where=doing, because=because, hint=_AGAIN)


def silent(address: Address, seconds: float, doing: str) -> DeviceError:
    """No answer and no progress."""
    what = f"{_name(address)} does not answer"
    because = f"nothing was heard for {seconds:g} seconds"
    hint = f"?timeout={2 * seconds:g} in the address" if address.kind != "cmd" else _AGAIN
    return DeviceError(what, where=doing, because=because, hint=hint)


def other_protocol(address: Address, theirs: object, ours: int) -> DeviceError:
    """A launcher that brings a runner of its own."""
    what = f"the runner of {_name(address)} is of another version"
    because = f"it speaks protocol {theirs}, this graphprune {ours}"
    return DeviceError(
        what, because=because, hint="the graphprune of that runner's version, or update it there"
    )


def malformed(address: Address, doing: str) -> DeviceError:
    """An answer that no runner gives."""
    what = f"the answer of {_name(address)} cannot be read"
    because = "it is not what a runner of graphprune answers to that"
    return DeviceError(
        what, where=doing, because=because, hint="another launcher, or the runner brought along"
    )


def answered(address: Address, error: object, doing: str | None, hint: str | None) -> DeviceError:
    """The runner refused a request."""
    said = error if isinstance(error, dict) else {}
    kind, text = str(said.get("kind", "")), str(said.get("text", ""))[:2000]
    what, usual = _ANSWERS.get(kind, ("the runner on {target} failed", None))
    if address.kind == "cmd" and usual is not None:  # which takes no options: its environment says where
        usual = usual.replace("?folder=/path", "TMPDIR=/path in its environment")
        usual = usual.replace("?python=/path/of/python3", "its path in the launcher")
    return DeviceError(what.format(target=_name(address)), where=doing, because=text, hint=hint or usual)


def _name(address: Address) -> str:
    return f"'{address.target}'"


def _last_line(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1] if lines else ""
