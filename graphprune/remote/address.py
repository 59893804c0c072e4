"""Where to measure: what ``--on`` may say, and the command that starts a Python there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from graphprune.errors import UsageError
from graphprune.remote.bundle import BOOTSTRAP

#: What stands around the host.
_HOST = re.compile(r"^.*@|:\d*$")
FORMS = "ssh://user@host[:port][/folder][?python=…], adb:serial, docker:image, cmd:launcher"
#: Options of an address, behind its question mark.
OPTIONS = ("python", "known_hosts", "identity", "folder", "timeout")
#: Seconds without an answer or a sign of progress.
TIMEOUT = 300.0
#: Never a password, never an unknown host; a dead link is noticed after 45 seconds.
SSH = (
    "-T", "-x", "-a",
    "-o", "BatchMode=yes",
    "-o", "StrictHostKeyChecking=yes",
    "-o", "PasswordAuthentication=no",
    "-o", "KbdInteractiveAuthentication=no",
    "-o", "ConnectTimeout=15",
    "-o", "ServerAliveInterval=15",
    "-o", "ServerAliveCountMax=3",
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """A machine.

    Attributes:
        text: as it was given.
        kind: ``ssh``, ``adb``, ``docker`` or ``cmd``.
        target: host, serial number, image or launcher.
        command: what starts a Python that reads the runner from its standard input; empty for adb.
        folder: where the runner makes its own folder there; None: the system's folder for temporary files.
        timeout: seconds without an answer or a sign of progress.
    """

    text: str
    kind: str
    target: str
    command: tuple[str, ...] = field(default=(), repr=False)
    folder: str | None = None
    timeout: float = TIMEOUT


def parse(text: str, *, known_hosts: str | None = None) -> Address:
    """Reads what follows ``--on``.

    Args:
        text: one of :data:`FORMS`.
        known_hosts: file of known host keys, instead of the user's own.

    Raises:
        UsageError: it is none of them.
    """
    kind, _, rest = text.partition(":")
    if kind == "ssh" and rest.startswith("//"):
        return _ssh(text, known_hosts)
    if not rest.strip():
        kind = ""
    if kind == "docker":
        image, options = _with_options(text, rest)
        if image.startswith("-"):
            raise _unreadable(text, "an image's name starts with no dash")
        python = options.get("python", "python3")
        command = ("docker", "run", "--rm", "-i", "--network", "none", "--entrypoint", python, image)
        return _address(text, kind, image, (*command, "-c", BOOTSTRAP), options)
    if kind == "cmd":
        try:
            launcher = shlex.split(rest)
        except ValueError as error:
            raise _unreadable(text, str(error)) from error
        return _address(text, kind, rest, (*launcher, "-c", BOOTSTRAP), {})
    if kind == "adb":
        serial, options = _with_options(text, rest)
        if not re.fullmatch(r"[\w.:\[\]%-]+", serial) or serial.startswith("-"):
            raise _unreadable(text, f"'{serial}' is no serial number")
        return _address(text, kind, serial, (), options)
    raise _unreadable(text, None)


def _ssh(text: str, known_hosts: str | None) -> Address:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError as error:
        raise _unreadable(text, str(error)) from error
    # Not `hostname`, which is in small letters: names in ~/.ssh/config are as they were written there.
    host = _HOST.sub("", parts.netloc) if parts.hostname else ""
    host, user = host.strip("[]"), unquote(parts.username or "")
    if not re.fullmatch(r"[\w.:%-]+", host) or host.startswith("-"):
        raise _unreadable(text, f"'{host}' is no host")
    if parts.password is not None:
        raise _unreadable(text, "a password can't be given; ssh must get in by a key")
    if user and (not re.fullmatch(r"[\w.@+\\-]+", user) or user.startswith("-")):
        raise _unreadable(text, f"'{user}' is no user")
    options = _options(text, parts.query)
    known_hosts = options.get("known_hosts", known_hosts)
    command = ["ssh", *SSH]
    if port is not None:
        command += ["-p", str(port)]
    if known_hosts is not None:
        # The user's own file would let in hosts that this one does not have.
        command += ["-o", f"UserKnownHostsFile={_quoted(known_hosts)}", "-o", "GlobalKnownHostsFile=none"]
    if "identity" in options:
        command += ["-o", f"IdentityFile={_quoted(options['identity'])}", "-o", "IdentitiesOnly=yes"]
    if user:
        command += ["-l", user]
    # The login shell there reads this line.
    remote = " ".join(shlex.quote(word) for word in (options.get("python", "python3"), "-c", BOOTSTRAP))
    folder = unquote(parts.path) if len(parts.path) > 1 else None
    if folder is not None:
        options.setdefault("folder", folder)
    return _address(text, "ssh", host, (*command, host, f"exec {remote}"), options)


def _address(text: str, kind: str, target: str, command: tuple[str, ...], options: dict[str, str]) -> Address:
    try:
        timeout = float(options.get("timeout", TIMEOUT))
    except ValueError:
        timeout = 0.0
    if timeout <= 0:
        raise _unreadable(text, "the timeout is a number of seconds")
    return Address(text, kind, target, command, options.get("folder"), timeout)


def _with_options(text: str, rest: str) -> tuple[str, dict[str, str]]:
    name, _, query = rest.partition("?")
    return name, _options(text, query)


def _options(text: str, query: str) -> dict[str, str]:
    found = dict(parse_qsl(query))
    for name in found:
        if name not in OPTIONS:
            raise _unreadable(text, f"there is no option '{name}'; there are: {', '.join(OPTIONS)}")
    return found


def _quoted(path: str) -> str:
    """A path as ssh wants it: it splits the values of these options at spaces and expands percent signs."""
    return '"' + path.replace("%", "%%") + '"'


def _unreadable(text: str, because: str | None) -> UsageError:
    what = f"cannot read the device '{text}'"
    return UsageError(what, because=because, hint=FORMS)
