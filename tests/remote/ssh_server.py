"""A real sshd on the loopback, with keys of its own; nothing of the user's is read or written."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = next((name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None), None)
REASON = f"needs {'sshd (package openssh-server)' if SSHD is None else MISSING}"
ABSENT = SSHD is None or MISSING is not None


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free_port()
        for name in ("host_key", "user_key", "stranger_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
        kind, key, *_ = (folder / "host_key.pub").read_text().split()
        self.known_hosts = folder / "known hosts"  # a space, as in many home folders
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        config = folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        assert SSHD is not None
        self.log = folder / "sshd.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def address(self, folder: Path | str = "", *, python: Path | str = sys.executable, **options: str) -> str:
        options = {"identity": str(self.folder / "user_key"), "python": str(python), **options}
        options.setdefault("known_hosts", str(self.known_hosts))
        query = "&".join(f"{name}={quote(value)}" for name, value in options.items())
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{quote(str(folder))}?{query}"

    def drop_connections(self) -> int:
        """Kills the processes that serve a connection, as when the link breaks; how many."""
        children = _children(self.process.pid)
        for pid in children:
            with suppress(ProcessLookupError):  # it ended by itself since
                os.kill(pid, signal.SIGKILL)
        return len(children)

    def stop(self) -> None:
        self.drop_connections()
        self.process.terminate()
        self.process.wait(10)


def _children(parent: int) -> list[int]:
    """Processes of a process: what serves a connection, and what serves that."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        if int(text[text.rindex(")") + 2 :].split()[1]) == parent and name.startswith("sshd"):
            found += [int(path.parent.name), *_children(int(path.parent.name))]
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
