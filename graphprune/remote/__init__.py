"""Machines behind a link: ssh, docker, any launcher, and Android by adb (docs/devices.md)."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphprune.remote.device import RemoteDevice

_open: dict[tuple[str, str, int | None], RemoteDevice] = {}


def open_device(on: str, provider: str = "cpu", threads: int | None = None) -> RemoteDevice:
    """A remote machine to plan for; one link serves all who ask for the same, until the process ends.

    Args:
        on: an address, see docs/devices.md.
        provider: short name of an execution provider.
        threads: within an operator; None: as onnxruntime chooses.

    Raises:
        UsageError: it is no address, or there is no such provider.
        DeviceError: the machine can't be reached, or lacks something.
    """
    from graphprune.remote.device import RemoteDevice

    key = (on, provider, threads)
    if key not in _open or not _open[key].is_alive:
        _open[key] = RemoteDevice(on, provider, threads)
    return _open[key]


@atexit.register
def close_devices() -> None:
    """Ends every link that :func:`open_device` made."""
    while _open:
        _open.popitem()[1].close()
