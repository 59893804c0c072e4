"""An address as a place to measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphprune.profiling.setups import Bench
from graphprune.remote.adb import AdbBench
from graphprune.remote.address import parse
from graphprune.remote.bench import RemoteBench
from graphprune.remote.link import Link


@contextmanager
def open_bench(on: str, *, known_hosts: str | None = None) -> Iterator[Bench]:
    """Starts what measures there, and removes it afterwards.

    Args:
        on: what follows ``--on``.
        known_hosts: file of known host keys for ``ssh://``.

    Raises:
        UsageError: it is no address.
        DeviceError: the machine can't be reached, or lacks something.
    """
    address = parse(on, known_hosts=known_hosts)
    if address.kind == "adb":
        with AdbBench(address) as phone:
            yield phone
        return
    with Link(address) as link:
        yield RemoteBench(link)
