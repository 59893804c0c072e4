"""Does `profile` say what a plain loop around `session.run` says?  In turns, each in a process of its own.

    python benchmarks/profile_agreement.py model.onnx … [--rounds 6] [--repeat 100] [--perf-test PATH]

Prints the medians of both, and how much either differs from itself between rounds; exits 1 where they
disagree by more than that.  `--perf-test` adds onnxruntime_perf_test, where somebody has built it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST_NOISE = 0.03

LOOP = """
import sys, time, json
import onnxruntime as ort
from graphprune.profiling.feeds import make_feeds
path, repeat, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads = threads
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
feeds = make_feeds(session, 1, None)
for _ in range(20):
    session.run(None, feeds)
times = []
for _ in range(repeat):
    start = time.perf_counter()
    session.run(None, feeds)
    times.append((time.perf_counter() - start) * 1e3)
print(json.dumps(times))
"""


def plain(model: Path, repeat: int, threads: int) -> float:
    command = [sys.executable, "-c", LOOP, str(model), str(repeat), str(threads)]
    return statistics.median(json.loads(subprocess.check_output(command)))


def profiled(model: Path, repeat: int, threads: int) -> float:
    command = [sys.executable, "-m", "graphprune", "profile", str(model), "--json", "--no-ops"]
    command += ["--repeat", str(repeat), *(["--threads", str(threads)] if threads else [])]
    return json.loads(subprocess.check_output(command))["runs"][0]["latency_ms"]["p50"]


def perf_tested(tool: str, model: Path, repeat: int, threads: int) -> float:
    from graphprune.remote.adb import seconds_in

    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "times.csv"
        command = [tool, "-I", "-m", "times", "-r", str(repeat), "-x", str(threads), str(model), str(results)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return 1e3 * statistics.median(seconds_in(results.read_text()))


def spread(values: list[float]) -> float:
    """Half of what lies between the quartiles, over the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--perf-test")
    options = parser.parse_args()
    agreed = True
    print(f"{'model':40} {'loop ms':>9} {'profile':>9} {'perf_test':>9} {'ratio':>7} {'noise':>7}")
    for model in options.models:
        found: dict[str, list[float]] = {"loop": [], "profile": [], "tool": []}
        for _ in range(options.rounds):
            found["loop"].append(plain(model, options.repeat, options.threads))
            found["profile"].append(profiled(model, options.repeat, options.threads))
            if options.perf_test:
                found["tool"].append(perf_tested(options.perf_test, model, options.repeat, options.threads))
        ratio = statistics.median(a / b for a, b in zip(found["profile"], found["loop"], strict=True))
        noise = max(LEAST_NOISE, spread(found["loop"]) + spread(found["profile"]))
        agreed &= abs(ratio - 1) <= noise
        tool = f"{statistics.median(found['tool']):9.3f}" if found["tool"] else f"{'-':>9}"
        medians = f"{statistics.median(found['loop']):9.3f} {statistics.median(found['profile']):9.3f}"
        print(f"{model.name:40} {medians} {tool} {ratio:7.3f} {noise:7.3f}")
    print("they agree within noise" if agreed else "THEY DISAGREE")
    return 0 if agreed else 1


if __name__ == "__main__":
    raise SystemExit(main())
