"""Energy counters, clock and temperature; each is absent on some machines."""

from __future__ import annotations

import glob
import os
import re
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

CPUS = "/sys/devices/system/cpu/"
POWER = "/sys/class/powercap"
FIELDS = ("power.draw.instant", "power.draw")  # the first only in newer drivers


def numbers(pattern: str) -> list[float]:
    """The first number of each file; files that can't be read are left out."""
    found = []
    for path in sorted(glob.glob(pattern)):  # noqa: PTH207 (an absolute pattern)
        try:
            match = re.search(r"-?\d+", Path(path).read_text())
        except OSError:
            continue
        if match:
            found.append(float(match.group()))
    return found


def frequency() -> float | None:
    """Mean clock of the processor's cores in MHz, or None."""
    clocks = [khz / 1e3 for khz in numbers(CPUS + "cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if not clocks:
        try:
            text = Path("/proc/cpuinfo").read_text()
            clocks = [float(mhz) for mhz in re.findall(r"cpu MHz\s*: ([\d.]+)", text)]
        except OSError:
            pass
    return statistics.mean(clocks) if clocks else None


def temperature() -> float | None:
    """The hottest sensor in degrees Celsius, or None."""
    found = numbers("/sys/class/thermal/thermal_zone*/temp") or numbers("/sys/class/hwmon/hwmon*/temp*_input")
    return max((t / 1e3 for t in found if 0 < t < 150e3), default=None)


def card_says(field: str) -> str | None:
    """What the driver's own tool says of the first visible NVIDIA card; None if there is none."""
    command = [*card_query(), f"--query-gpu={field}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode().strip().partition("\n")[0] or None


def card_query() -> list[str]:
    """The beginning of a question about the first visible card."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"
    return ["nvidia-smi", "--format=csv,noheader,nounits", f"--id={visible}"]


class Meters:
    """Totals of energy, and notes of clock and temperature.

    Args:
        card: whether to watch the first visible NVIDIA card.
    """

    def __init__(self, card: bool = False) -> None:
        self.clocks: list[float] = []
        self.temperatures: list[float] = []
        self._zones: dict[Path, float] = {}
        self._last: dict[Path, float] = {}
        self._spent = 0.0
        self._card: tuple[float, float, float] | None = None  # when, watts, joules until then
        self._watch: Any = None
        for zone in sorted(Path(POWER).glob("intel-rapl:*")):
            # Zones like intel-rapl:0:1 are parts of intel-rapl:0, and psys is a sum.
            if zone.name.count(":") == 1 and "psys" not in _text(zone / "name"):
                self._zones[zone] = next(iter(numbers(f"{zone}/max_energy_range_uj")), float(1 << 32))
        if card:
            self._watch_card()
        self._throttled = self._throttle_count()
        self.joules()
        self.look()

    def joules(self) -> dict[str, float]:
        """Growing totals: ``processor``, ``card``."""
        found = {}
        for zone, span in self._zones.items():
            now = numbers(f"{zone}/energy_uj")  # often for root only
            if now:
                self._spent += (now[0] - self._last.get(zone, now[0])) % span / 1e6
                self._last[zone] = now[0]
                found["processor"] = self._spent
        if self._card is not None:
            at, watts, total = self._card
            found["card"] = total + watts * (time.perf_counter() - at)
        return found

    def look(self) -> None:
        """Notes clock and temperature."""
        for notes, value in ((self.clocks, frequency()), (self.temperatures, temperature())):
            if value is not None:
                notes.append(value)

    def close(self) -> dict[str, Any]:
        """Stops watching.

        Returns:
            Every ``mhz`` and ``celsius`` that was noted, and how often the processor was ``throttled``.
        """
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()
        throttled = self._throttle_count() - self._throttled
        return {"mhz": self.clocks, "celsius": self.temperatures, "throttled": int(throttled)}

    def _throttle_count(self) -> float:
        return sum(numbers(CPUS + "cpu0/thermal_throttle/*_throttle_count"))

    def _watch_card(self) -> None:
        for field in FIELDS:
            try:
                watts = float(card_says(field) or "")
            except ValueError:
                continue
            self._card = (time.perf_counter(), watts, 0.0)
            self._watch = subprocess.Popen(
                [*card_query(), f"--query-gpu={field}", "-lms", "50"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            threading.Thread(target=self._follow, daemon=True).start()
            return

    def _follow(self) -> None:
        with self._watch.stdout as lines:
            for line in lines:
                at, watts, total = self._card or (0.0, 0.0, 0.0)
                now = time.perf_counter()
                try:
                    self._card = (now, float(line), total + watts * (now - at))
                except ValueError:
                    continue


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
