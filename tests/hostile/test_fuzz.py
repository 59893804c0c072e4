"""Mutated files, the short version; ``benchmarks/fuzz_files.py`` runs ten thousand, and found these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "benchmarks" / "fuzz_files.py"

#: Seeds that ended with a traceback, in a crash or with a control sequence once.
FINDINGS = {
    15: "a name that is not UTF-8",
    33: "a graph that onnx_ir reads and can't walk",
    97: "a zero in the name of an external file",
    267: "an attribute that refers to a function's parameter, outside of all functions",
    308: "the same, of another operator",
    971: "a size that is negative in static inference",
    2494: "an input that declares a negative size",
    5399: "a path of thousands of characters",
    2940: "onnxruntime's own words on stderr",
    9898: "what onnxruntime announces on stdout",
    2384: "a complex constant where numbers are expected",
    1596: "an archive packed by a method that Python lacks",
    5159: "a convolution in a branch that is never taken, whose output has a negative size",
    5612: "a weight so large that the sums over it overflow",
    7285: "a Reshape that does not fit, in a model that does not run",
    7715: "the same, the other way round",
}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_mutated_file_is_a_finding(tmp_path: Path) -> None:
    done = run("--files", 25, "--seed", 20_000, "--processes", 1, "--seconds", 300, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 files, 0 findings" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_library_that_crashes_is_an_error_with_isolate(tmp_path: Path) -> None:
    """onnx 1.23 ends the process over this one: an assertion in its inference of Slice."""
    done = run("--files", 1, "--seed", 2450, "--processes", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inspect: exit 1" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_found_once(tmp_path: Path) -> None:
    done = run("--only", *FINDINGS, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
