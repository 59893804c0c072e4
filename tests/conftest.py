"""Tests that need an absent framework are left out, and counted."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

from graphprune.calibration import evidence

# `networks` is importable from every test.
sys.path.insert(0, str(Path(__file__).parent))

FRAMEWORKS = ("torch", "tensorflow", "jax", "skl2onnx", "transformers")


@pytest.fixture
def unmixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are as they are given."""
    monkeypatch.setattr(evidence, "mixtures", lambda *arguments: [])


@pytest.fixture
def all_fitted(unmixed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none is held out: sums by hand are over all of them."""
    monkeypatch.setattr(evidence, "HELD_OUT", 1 << 30)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--frameworks", action="store_true", help="run marked tests even if they must fail")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = [name for name in FRAMEWORKS if importlib.util.find_spec(name) is None]
    if config.getoption("--frameworks"):
        return
    for item in items:
        for name in absent:
            if name in item.keywords and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"needs {name}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    counts = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    left_out = [f"{counts[f'needs {name}']} need {name}" for name in FRAMEWORKS]
    if any(counts[f"needs {name}"] for name in FRAMEWORKS):
        terminalreporter.write_line(f"left out: {', '.join(left_out)} (make test-frameworks)")
