"""The errors a user can meet, one exit code each.

Deep code raises with a short reason; the message always has the same four lines
(what, where, because, try), so that people and scripts can read it.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.printable import printable

#: Characters of a line; a name in a file may be a book.
_LONGEST = 2000


class GraphPruneError(Exception):
    """Base of every error that graphprune raises on purpose.

    Args:
        what: one clause that names the object and what was found.
        where: the node, tensor or file it concerns.
        because: the reason.
        hint: what would help (printed as ``try:``).
    """

    exit_code = 70

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        because: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.because, self.hint = what, where, because, hint
        lines = [_one_line(what)]
        for label, text in (("where:  ", where), ("because:", because), ("try:    ", hint)):
            if text:
                lines.append(f"  {label} {_one_line(text)}")
        super().__init__("\n".join(lines))


def _one_line(text: str) -> str:
    """Names and other libraries' messages may hold line breaks; the four lines stay four, and printable."""
    text = " ".join(text.split()) if len(text.splitlines()) > 1 else text
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …", keep="")


class ModelError(GraphPruneError):
    """The input file or object is wrong (exit 1)."""

    exit_code = 1


def failed_file(error: OSError) -> ModelError:
    """What the system says about a file, as an error of ours; where nothing more is known about it."""
    what = "a file or folder cannot be read or written"
    where = ", ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    because = error.strerror or str(error) or type(error).__name__
    hint = "check that it exists, that you may use it, and that its disk has room"
    return ModelError(what, where=where or None, because=because, hint=hint)


class CarryError(ModelError):
    """A plan can't be carried to a source: some of what it cuts was not found there (exit 1).

    Args:
        what: as for every error.
        unmatched: ``(constant, use, reason)`` of all that was not found.
        **lines: as for every error.
    """

    def __init__(self, what: str, unmatched: Sequence[tuple[str, str, str]], **lines: str | None) -> None:
        super().__init__(what, **lines)
        self.unmatched = tuple(unmatched)


class CalibrationError(ModelError):
    """The calibration samples can't be read, or don't fit the model (exit 1)."""


class DeviceError(ModelError):
    """The device can't be reached, or lacks something (exit 1)."""


class UsageError(GraphPruneError):
    """The request makes no sense, whatever the model (exit 2)."""

    exit_code = 2


class PlanError(GraphPruneError):
    """The plan does not fit the model (exit 1)."""

    exit_code = 1


class ValidationError(GraphPruneError):
    """The pruned model is not what it must be; nothing was written (exit 3)."""

    exit_code = 3


class TargetError(GraphPruneError):
    """The target can't be reached (exit 4)."""

    exit_code = 4


class InternalError(GraphPruneError):
    """Our own fault (exit 70): please report."""

    exit_code = 70
