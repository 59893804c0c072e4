"""What a machine did while it was measured, and what it hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.profiling.providers import PROVIDERS
from graphprune.profiling.report import Conditions, Run


def conditions_of(measured: Mapping[str, Any]) -> Conditions:
    """The machine's state over the rounds.

    Args:
        measured: what :func:`graphprune.runner.timing.measure` returns.
    """
    medians = np.array(measured["runs"][0]["medians"])
    third = max(1, len(medians) // 3)
    drift = float(np.median(medians[-third:]) / np.median(medians[:third])) - 1
    noted = measured["conditions"]
    mhz, celsius = noted["mhz"], noted["celsius"]
    return Conditions(
        drift=drift,
        mhz=(mhz[0], mhz[-1], min(mhz)) if mhz else None,
        celsius=(celsius[0], celsius[-1], max(celsius)) if celsius else None,
        throttled=noted["throttled"],
    )


def notes_on(
    runs: Sequence[Run], conditions: Sequence[Conditions], information: Mapping[str, Any], provider: str
) -> tuple[str, ...]:
    """What could not be measured, one line each, with what it needs."""
    found = []
    if not any(run.energy_j for run in runs):
        found.append(
            "no energy: needs Intel or AMD RAPL (readable by root), or an NVIDIA card with nvidia-smi"
        )
    if conditions and conditions[0].celsius is None:
        found.append("no temperature: the system shows no sensor (/sys/class/thermal, /sys/class/hwmon)")
    if conditions and conditions[0].mhz is None:
        found.append("no clock: the system shows none (/sys/devices/system/cpu/cpu0/cpufreq)")
    if runs and runs[0].peak_rss_bytes is None:
        found.append("no peak memory: this system does not tell it")
    if provider == "all":
        there = set(information["providers"])
        absent = [f"{name} ({entry.source})" for name, entry in PROVIDERS.items() if entry.name not in there]
        if absent:
            found.append(f"not there: {'; '.join(absent)}")
    return tuple(found)
