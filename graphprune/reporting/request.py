"""What a user asks of a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportRequest:
    """A report to be written.

    Attributes:
        path: of the HTML file.
        command: how the run was started, for whoever wants to repeat it.
        latency: measure both models and show the time of each layer; takes some seconds.
    """

    path: Path
    command: str | None = None
    latency: bool = False

    @classmethod
    def of(cls, given: str | Path | ReportRequest | None) -> ReportRequest | None:
        """From a path, or as it is."""
        return given if given is None or isinstance(given, ReportRequest) else cls(Path(given))
