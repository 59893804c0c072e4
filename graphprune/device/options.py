"""The machine that a plan is made for, as the options name it."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.device.local import LocalDevice
from graphprune.device.protocol import Device
from graphprune.errors import UsageError


@dataclass(frozen=True)
class Tuning:
    """For which machine and which inputs a plan is made.

    Attributes:
        provider: short name of an execution provider.
        threads: within an operator; None: as the runtime chooses.
        batch: size of symbolic first axes, for latencies.
        on: a remote machine; None: this one.
        auto_align: widths as the machine likes them; None: if there is a latency target.
    """

    provider: str = "cpu"
    threads: int | None = None
    batch: int = 1
    on: str | None = None
    auto_align: bool | None = False

    def __post_init__(self) -> None:
        for name in ("threads", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                message = f"{name} must be at least 1, not {value}"
                raise UsageError(message)

    def device(self) -> Device:
        """The machine.

        Raises:
            UsageError: the options name none.
            ModelError: it is not available.
        """
        if self.on is not None:
            from graphprune.remote import open_device

            return open_device(self.on, self.provider, self.threads)
        return LocalDevice(self.provider, self.threads)
