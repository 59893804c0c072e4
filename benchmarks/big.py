"""Prune a model that is larger than memory should be: python benchmarks/big.py --size 8

Writes a Llama-type decoder of so many gigabytes (float16, external data, random weights), prunes its MLPs and
heads by the command line, and prints the time, next to that of `cp` for the same bytes, and the largest
resident memory that is no mapped file (RssAnon, sampled every 10 ms). Then every weight of the output is
compared with what the plan keeps of the input, byte by byte.

Before each run the files are pushed out of the page cache (`posix_fadvise`), or read through once with
`--warm`, for both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from big_models import big_decoder
from scaling_models import Widths

from graphprune.model import load
from graphprune.plan import Plan

_INTERVAL = 0.01
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Run:
    """What a command took.

    Attributes:
        seconds: wall-clock time.
        busy: seconds of processor time.
        anonymous: largest RssAnon, bytes.
        resident: largest resident memory, mapped files included.
        said: what it wrote to stdout.
        error: what it wrote to stderr.
    """

    seconds: float
    busy: float
    anonymous: int
    resident: int
    said: str
    error: str


def watched(command: Sequence[str]) -> Run:
    """Runs a command and samples its memory."""
    start, before = time.perf_counter(), os.times()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        anonymous = resident = 0
        while process.poll() is None:
            found = memory_of(process.pid)
            anonymous = max(anonymous, found.get("RssAnon", 0))
            resident = max(resident, found.get("VmRSS", 0))
            time.sleep(_INTERVAL)
        seconds, after = time.perf_counter() - start, os.times()
        for file in (output, errors):
            file.seek(0)
        said, text = output.read().decode(), errors.read().decode(errors="replace")
    if process.returncode:
        message = f"{' '.join(command)}\nended with {process.returncode}:\n{text}"
        raise SystemExit(message)
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(seconds, busy, anonymous, resident, said, text)


def memory_of(process: int) -> dict[str, int]:
    """Resident memory of a process in bytes, by kind."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended
        return {}
    pairs = (line.split(":", 1) for line in lines if line.startswith(("Rss", "VmRSS")))
    return {name: int(amount.split()[0]) << 10 for name, amount in pairs}


def files_of(path: Path) -> list[Path]:
    """A model and its data files."""
    return sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name))


def prepare(files: Iterable[Path], *, warm: bool) -> None:
    """Pushes files out of the page cache, or into it."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if not warm:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while warm and file.read(_CHUNK):
                pass


def copied(path: Path, *, warm: bool) -> tuple[float, float]:
    """Seconds of `cp`, and until the copy is on the disk."""
    files = files_of(path)
    prepare(files, warm=warm)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        start = time.perf_counter()
        subprocess.run(["cp", *map(str, files), folder], check=True)
        taken = time.perf_counter() - start
        for copy in Path(folder).iterdir():
            with copy.open("rb") as file:
                os.fsync(file.fileno())
        return taken, time.perf_counter() - start


def wrong_weights(source: Path, output: Path, plan: Plan) -> tuple[int, list[str]]:
    """How many weights were compared with what the plan keeps of them, and which are something else."""
    original, pruned = load(source).ir.graph.initializers, load(output).ir.graph.initializers
    keeps: dict[str, list[tuple[int, list[int]]]] = {}
    for entry in plan.parameters:
        keeps.setdefault(entry.name, []).append((entry.axis, entry.keep))
    wrong, count = [], 0
    for name, value in original.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < 1 << 12:
            continue
        count += 1
        expected = tensor.numpy()
        for axis, keep in keeps.get(name, []):
            expected = expected.take(keep, axis)
        found = pruned[name].const_value if name in pruned else None
        if found is None or not np.array_equal(expected, found.numpy()):
            wrong.append(name)
    return count, wrong


def samples(path: Path, vocabulary: int, count: int, length: int) -> None:
    """Random tokens as calibration samples."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, (count, length))
    np.savez(path, tokens=tokens)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=float, default=8.0, help="gigabytes (10^9 bytes) of weights")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--inner", type=int, help="width of the MLPs; 2.6875 times the hidden one")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--target", default="params=60%")
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--samples", type=int, default=0, help="calibration samples (wanda, flap, ...)")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sample")
    parser.add_argument("--warm", action="store_true", help="with the input in the page cache")
    parser.add_argument("--folder", type=Path, help="where the model goes; kept, and used again")
    parser.add_argument("--options", default="", help="further options of prune, in one string")
    parser.add_argument("--no-copy", action="store_true", help="leave out cp")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(asked, asked.folder or Path(scratch))


def measure(asked: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    inner = asked.inner or asked.hidden * 43 // 16
    widths = Widths(asked.hidden, asked.heads, asked.kv_heads, inner, asked.vocabulary)
    source, output, plan = folder / "big.onnx", folder / "pruned.onnx", folder / "plan.json"
    if not source.exists():
        layers = big_decoder(source, asked.size * 1e9, widths)
        print(f"{layers} layers of hidden {asked.hidden}, inner {inner}", flush=True)
    for old in [*files_of(output), plan]:
        old.unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in files_of(source))
    print(f"model: {size / 1e9:.2f} GB in {len(files_of(source))} files", flush=True)
    if not asked.no_copy:
        taken, on_disk = copied(source, warm=asked.warm)
        print(f"cp: {taken:.1f} s, {on_disk:.1f} s until it is on the disk", flush=True)
    # The MLPs and the heads: the width of the residual stream is that of embedding and norms.
    stream = {
        node.input[0]
        for node in onnx.load(source, load_external_data=False).graph.node
        if node.op_type == "Gather"
    }
    command = [
        *(sys.executable, "-m", "graphprune", "prune", str(source), str(output), "--target", asked.target),
        *("--criterion", asked.criterion, "--kinds", "channels,heads", "--plan-out", str(plan)),
        *(f"--exclude={name}" for name in sorted(stream) if name.startswith("weight")),
        *asked.options.split(),
    ]  # fmt: skip
    if asked.samples:
        samples(folder / "samples.npz", asked.vocabulary, asked.samples, asked.length)
        command += ["--calibration", str(folder / "samples.npz")]
    prepare(files_of(source), warm=asked.warm)
    run = watched([*command, "--json"])
    stages = json.loads(run.said)["seconds"]
    print(run.error.strip(), "stages:", ", ".join(f"{name} {taken:.1f} s" for name, taken in stages.items()))
    print(
        f"prune: {run.seconds:.1f} s, {run.busy:.1f} s of processor time; "
        f"{run.anonymous / 2**20:.0f} MiB anonymous, {run.resident / 2**20:.0f} MiB resident"
    )
    if not asked.no_copy:
        print(
            f"that is {run.seconds / taken:.2f} times cp, {run.seconds / on_disk:.2f} times cp and its fsync"
        )
    written = sum(path.stat().st_size for path in files_of(output))
    reached = json.loads(plan.read_text())["reached"]
    print(f"output: {written / 1e9:.2f} GB in {len(files_of(output))} files, {reached}")
    count, wrong = wrong_weights(source, output, Plan.load(plan))
    print(f"weights that are not what the plan keeps: {len(wrong)} of {count}")
    if wrong:
        message = f"wrong: {', '.join(wrong)}"
        raise SystemExit(message)


if __name__ == "__main__":
    main()
