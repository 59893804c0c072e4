"""A machine behind a link, as one to plan for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property

from graphprune.device.local import known_flags
from graphprune.device.protocol import Identity, Job, Times
from graphprune.errors import ModelError
from graphprune.profiling.feeds import declared_inputs, describe
from graphprune.profiling.providers import device_name, find_provider
from graphprune.profiling.setups import Setup
from graphprune.remote.adb import AdbBench
from graphprune.remote.bench import RemoteBench
from graphprune.remote.benches import open_bench

#: Providers whose kernels run while the profiler waits; others start them and go on.
_WAITS = ("cpu", "xnnpack")


class RemoteDevice:
    """What `graphprune/device/protocol.py` asks for, over there; ends the runner on exit from the context.

    Args:
        on: an address, see docs/devices.md.
        provider: short name of an execution provider.
        threads: within an operator; None: as onnxruntime chooses.
        known_hosts: file of known host keys for ``ssh://``.

    Raises:
        UsageError: it is no address, or there is no such provider.
        DeviceError: the machine can't be reached, or lacks something.
    """

    def __init__(
        self, on: str, provider: str = "cpu", threads: int | None = None, *, known_hosts: str | None = None
    ) -> None:
        self._name, self._threads = provider, threads
        self._open = ExitStack()
        self._bench = self._open.enter_context(open_bench(on, known_hosts=known_hosts))
        try:
            self._provider = find_provider(provider, self._bench.information, on)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RemoteDevice:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the runner, which removes itself."""
        self._open.close()

    @property
    def is_alive(self) -> bool:
        """Can it still be asked?"""
        return not isinstance(self._bench, RemoteBench) or self._bench.link.is_alive

    @cached_property
    def identity(self) -> Identity:
        """That machine and its runtime."""
        there = self._bench.information
        return Identity(
            device=device_name(self._provider, there),
            flags=known_flags(there["features"]),
            runtime="onnxruntime",
            version=str(there["onnxruntime"]),
            provider=self._name,
            threads=self._threads,
            cores=there.get("cores"),
        )

    def measure(self, jobs: Sequence[Job], *, seconds: float = 3.0) -> list[Times]:
        """See :class:`~graphprune.device.protocol.Device`."""
        setups = [self._setup(job) for job in jobs]
        try:
            found = self._bench.measure(setups, {"seconds": seconds})["runs"]
        finally:
            self._forget(jobs)
        return [Times(tuple(run["milliseconds"]), tuple(run["medians"])) for run in found]

    def node_times(self, job: Job, *, seconds: float = 1.0) -> Mapping[str, float] | None:
        """See :class:`~graphprune.device.protocol.Device`."""
        if self._name not in _WAITS or isinstance(self._bench, AdbBench):
            return None
        try:
            nodes, _ = self._bench.trace(self._setup(job), seconds)
        finally:
            self._forget([job])
        return {node["name"]: node["ms"] for node in nodes}

    def _setup(self, job: Job) -> Setup:
        inputs = describe(declared_inputs(job.model), job.batch, job.dims)
        return Setup(job.model, self._name, self._provider, self._threads, job.batch, inputs)

    def _forget(self, jobs: Sequence[Job]) -> None:
        """Graphs and cuts that were made to be timed fill the disk over there."""
        if isinstance(self._bench, RemoteBench):
            with suppress(ModelError):  # a lost link among them; what went wrong before says more
                self._bench.forget([job.model for job in jobs if not job.comes_again])
