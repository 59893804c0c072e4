"""Energy, clock and temperature, read from files like those of Linux."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from graphprune.runner import meters
from graphprune.runner.timing import alternate

NVIDIA = """#!PYTHON
import sys, time
words = sys.argv[1:]
if "--query-gpu=power.draw.instant" in words:
    sys.exit(2)  # an old driver
if "--query-gpu=power.draw" in words:
    print("100.0", flush=True)
    while "-lms" in words:
        time.sleep(0.02)
        print("100.0", flush=True)
"""


@pytest.fixture
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, label in (("0", "package-0"), ("0:0", "core"), ("1", "psys")):
        zone = tmp_path / f"intel-rapl:{name}"
        zone.mkdir()
        (zone / "name").write_text(label)
        (zone / "energy_uj").write_text("900000")
        (zone / "max_energy_range_uj").write_text("1000000")
    monkeypatch.setattr(meters, "POWER", str(tmp_path))
    return tmp_path


def test_counters_wrap_around_and_parts_are_not_counted_twice(zones: Path) -> None:
    watch = meters.Meters()
    assert watch.joules() == {"processor": 0.0}
    (zones / "intel-rapl:0" / "energy_uj").write_text("100000")
    (zones / "intel-rapl:1" / "energy_uj").write_text("999999")
    assert watch.joules() == {"processor": pytest.approx(0.2)}
    watch.close()


def test_each_model_has_its_own_energy(zones: Path) -> None:
    counter = zones / "intel-rapl:0" / "energy_uj"
    counter.write_text("0")
    spent = [0]

    def run(microjoules: int) -> None:
        spent[0] += microjoules
        counter.write_text(str(spent[0]))

    first, second = alternate([lambda: run(10), lambda: run(30)], 20, 1, meters=meters.Meters())
    assert first["joules"] == {"processor": pytest.approx(10e-6)}
    assert second["joules"] == {"processor": pytest.approx(30e-6)}


def test_no_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "POWER", str(tmp_path / "nothing"))
    assert meters.Meters().joules() == {}


def test_power_of_a_card_is_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA.replace("PYTHON", sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    clock = [50.0]
    monkeypatch.setattr(meters.time, "perf_counter", lambda: clock[0])
    watch = meters.Meters(card=True)
    before = watch.joules()["card"]
    clock[0] += 2
    assert watch.joules()["card"] - before == pytest.approx(200)
    watch.close()
