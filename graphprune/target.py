"""Targets: what may be kept, as a fraction of the original or as an absolute amount."""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphprune.cost import Cost
from graphprune.errors import UsageError

METRICS = ("macs", "params", "bytes", "latency")
_UNITS = {
    "": 1.0,
    "k": 1e3,
    "m": 1e6,
    "g": 1e9,
    "t": 1e12,
    "ki": 2.0**10,
    "mi": 2.0**20,
    "gi": 2.0**30,
}
_SECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_DURATION = re.compile(r"^([0-9]*\.?[0-9]+|[0-9]+\.)\s*(us|ms|s)$", re.IGNORECASE)
_ABSOLUTE = re.compile(r"^([0-9]*\.?[0-9]+(?:e[0-9]+)?|[0-9]+\.)\s*([kmgt]i?)?b?$", re.IGNORECASE)


def parse_target(text: str) -> tuple[str, float | str]:
    """``"macs=50%"`` as ``("macs", 0.5)``; an absolute amount stays text.

    Raises:
        UsageError: unknown metric or unreadable amount.
    """
    metric, separator, amount = text.partition("=")
    if not separator:
        message = f"cannot read the target '{text}'"
        raise UsageError(message, hint="METRIC=AMOUNT, such as macs=50%")
    metric, amount = metric.strip().lower(), amount.strip()
    if amount.endswith("%"):
        try:
            return metric, float(amount[:-1]) / 100
        except ValueError as error:
            message = f"cannot read the target '{text}'"
            raise UsageError(message, hint=f"{metric}=50%") from error
    return metric, amount


def fractions(
    target: Mapping[str, float | str], dense: Cost, dense_ms: float | None = None
) -> dict[str, float]:
    """Each target as the fraction of the original that may be kept.

    Args:
        target: metric -> fraction (``0.5``), percentage (``"50%"``) or amount (``"2.1G"``, ``"20MB"``,
            ``"4ms"``).
        dense: cost of the original.
        dense_ms: its latency, where that is a target.

    Raises:
        UsageError: unknown metric, unreadable amount, or a fraction outside (0, 1).
    """
    if not target:
        message = "no target given"
        raise UsageError(message, hint="macs=50%, params=50% or bytes=20MB")
    found = {}
    for metric, amount in target.items():
        if metric not in METRICS:
            message = f"unknown target '{metric}'"
            raise UsageError(message, hint=f"one of {', '.join(METRICS)}")
        whole = (dense_ms or 0.0) if metric == "latency" else getattr(dense, metric)
        fraction = _fraction(metric, amount, whole)
        if fraction >= 1.0 and isinstance(amount, str) and not amount.endswith("%"):
            message = f"the target {metric}={amount} is no cut"
            raise UsageError(message, because=_already(metric, whole), hint=f"{metric}=50%")
        if metric != "latency" and 0.0 < fraction < 1e-3 and isinstance(amount, str) and amount.isdigit():
            message = f"the target {metric}={amount} keeps {amount} of {whole}"
            raise UsageError(message, hint=f"{metric}={amount}%, if a percentage was meant")
        if not 0.0 < fraction < 1.0:
            message = f"the target {metric}={fraction:.0%} is out of range"
            raise UsageError(
                message,
                because="a target says how much is kept: more than 0 %, less than 100 %",
                hint=f"{metric}=50%",
            )
        found[metric] = fraction
    return found


def parse_bytes(text: str) -> int:
    """``"20MB"`` or ``"4GiB"`` as a number of bytes.

    Raises:
        UsageError: it is no size.
    """
    match = _ABSOLUTE.match(text)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match is not None else 0
    if not size:
        message = f"'{text}' is no size"
        raise UsageError(message, hint="a number of bytes such as 500MB or 4GiB")
    return size


def _already(metric: str, whole: float) -> str:
    return f"it takes {whole:.3g} ms already" if metric == "latency" else f"the model has {whole} already"


def _fraction(metric: str, amount: float | str, whole: float) -> float:
    if not isinstance(amount, str):
        return float(amount)
    if amount.endswith("%"):
        return parse_target(f"{metric}={amount}")[1]  # type: ignore[return-value]
    if metric == "latency":
        return _duration(amount) / max(whole, 1e-9)
    match = _ABSOLUTE.match(amount)
    if match is None:
        message = f"cannot read the amount '{amount}' of target '{metric}'"
        raise UsageError(message, hint=f"{metric}=50%, or an amount such as 2.1G or 20MB")
    value = float(match[1]) * _UNITS[(match[2] or "").lower()]
    if metric != "bytes" and value <= 1.0 and not match[2]:
        return value
    return value / max(whole, 1)


def _duration(text: str) -> float:
    """Milliseconds."""
    match = _DURATION.match(text)
    if match is None:
        message = f"cannot read the amount '{text}' of target 'latency'"
        raise UsageError(message, hint="latency=50%, or a time such as 4ms")
    return float(match[1]) * _SECONDS[match[2].lower()]
