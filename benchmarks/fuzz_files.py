"""Mutated files through the commands, by the ten thousand: prints what became of them.

    python benchmarks/fuzz_files.py --files 10000 --seed 0 --processes 2
    python benchmarks/fuzz_files.py --only 1234 --out out/fuzz_files

Each seed makes one mutated model, plan, archive of samples, job or declaration (``tests/hostile``) and runs
one command on it, in a forked process with a limit on its address space and on its time.  A finding is a run
that ends with another exit code than 0 to 4, with a traceback, with more than a paragraph, killed, or with a
file that is wrong.  What is known of it is kept in ``--out``; the exit code is 1 when there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "property"), str(TESTS / "hostile")]
from file_trial import carry_out, prepare  # noqa: E402

from graphprune.cli import progress  # noqa: E402

#: Trials that one forked process runs, one after the other.
CHUNK = 100
GIB = 1 << 30


def one(seed: int, folder: Path, *options: str) -> dict[str, Any]:
    """One trial in this process; what became of it, with seconds and the peak of resident memory."""
    work = folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    work.mkdir(parents=True)
    trial = prepare(seed, work)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    start = time.perf_counter()
    trial = carry_out(trial, work, *options)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {
        "seed": seed, "outcome": trial.outcome, "detail": trial.detail, "changes": trial.changes,
        "base": trial.base, "arguments": trial.arguments, "seconds": time.perf_counter() - start,
        "peak": int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024,
    }  # fmt: skip


def child(seeds: Sequence[int], crashed: bool, folder: Path, limit: int, pipe: int) -> None:
    """Runs trials and writes a line for each; the first one isolated, if it crashed before."""
    warnings.simplefilter("ignore")  # as the command does
    progress._INTERVAL = 3600.0
    size = (
        int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0]) * 1024
    )
    resource.setrlimit(resource.RLIMIT_AS, (size + limit, size + limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, seed in enumerate(seeds):
        again = crashed and not number
        result = one(seed, folder, *(["--isolate"] if again else []))
        if again and not result["outcome"].startswith("!"):
            result["outcome"] = f"native crash; with --isolate {result['outcome']}"
        os.write(pipe, json.dumps(result).encode() + b"\n")


@dataclass
class Worker:
    """A forked process, and what it still has to do."""

    seeds: list[int]
    folder: Path
    pid: int = 0
    pipe: int = -1
    rest: bytes = b""
    crashed: bool = False  # the first of the trials that are left
    since: float = field(default_factory=time.monotonic)

    def fork(self, limit: int) -> None:
        """Starts the process."""
        reading, writing = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            try:
                child(self.seeds, self.crashed, self.folder, limit, writing)
            finally:
                os._exit(0)
        os.close(writing)
        self.pipe, self.rest, self.since = reading, b"", time.monotonic()


class Pool:
    """Forked processes that are watched.

    Args:
        seeds: of all trials.
        args: of the command line.
    """

    def __init__(self, seeds: Sequence[int], args: argparse.Namespace) -> None:
        self._chunks = [list(seeds[i : i + CHUNK]) for i in range(0, len(seeds), CHUNK)]
        self._args = args
        self._selector = selectors.DefaultSelector()
        self.results: list[dict[str, Any]] = []

    def run(self, base: Path) -> None:
        """All of them."""
        for number in range(self._args.processes):
            self._next(Worker([], base / str(number)))
        while self._selector.get_map():
            for key, _ in self._selector.select(timeout=1.0):
                self._read(key.data)
            for key in list(self._selector.get_map().values()):
                if time.monotonic() - key.data.since > self._args.seconds:
                    os.kill(key.data.pid, signal.SIGKILL)

    def _next(self, worker: Worker) -> None:
        if not worker.seeds and self._chunks:
            worker.seeds = self._chunks.pop(0)
        if worker.seeds:
            worker.fork(self._args.memory * GIB)
            self._selector.register(worker.pipe, selectors.EVENT_READ, worker)

    def _read(self, worker: Worker) -> None:
        data = os.read(worker.pipe, 1 << 16)
        if data:
            *lines, worker.rest = (worker.rest + data).split(b"\n")
            for line in lines:
                self._note(json.loads(line), worker)
            return
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        _, status = os.waitpid(worker.pid, 0)
        if worker.seeds:
            seconds = time.monotonic() - worker.since
            is_native = os.WIFSIGNALED(status) and seconds <= self._args.seconds
            if is_native and not worker.crashed:  # once more, as the documentation says for such files
                worker.crashed = True
            else:
                how = "exited" if not os.WIFSIGNALED(status) else signal.Signals(os.WTERMSIG(status)).name
                how = f"hung for {seconds:.0f} s" if seconds > self._args.seconds else f"ended by {how}"
                said = worker.folder / "stderr"
                detail = said.read_text(encoding="utf-8", errors="replace")[-3000:] if said.exists() else ""
                result = {"seed": worker.seeds[0], "outcome": f"! {how}", "detail": detail}
                self._note({**result, "seconds": seconds}, worker)
        self._next(worker)

    def _note(self, result: dict[str, Any], worker: Worker) -> None:
        assert worker.seeds.pop(0) == result["seed"]
        worker.crashed = False
        worker.since = time.monotonic()
        self.results.append(result)
        if result["outcome"].startswith("!"):
            print(f"seed {result['seed']}: {result['outcome']}", flush=True)
            self._args.out.mkdir(parents=True, exist_ok=True)
            kept = self._args.out / f"{result['seed']}.json"
            kept.write_text(json.dumps(result, indent=1), encoding="utf-8")
        if len(self.results) % 500 == 0:
            print(f"{len(self.results)} files", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--only", type=int, nargs="+", help="these seeds; their files are left in --out")
    parser.add_argument("--with-option", nargs="*", default=(), help="of the commands, for --only: --isolate")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="limit for one file")
    parser.add_argument(
        "--memory", type=int, default=4, help="limit in GiB, beyond what is taken at the start"
    )
    parser.add_argument("--out", type=Path, default=Path("out/fuzz_files"), help="folder for findings")
    args = parser.parse_args()
    if args.only:
        warnings.simplefilter("ignore")
        progress._INTERVAL = 3600.0
        results = [one(seed, args.out / str(seed), *args.with_option) for seed in args.only]
        print("\n".join(json.dumps(result, indent=1).replace("\\n", "\n") for result in results))
        return int(any(result["outcome"].startswith("!") for result in results))
    start = time.perf_counter()
    pool = Pool(range(args.seed, args.seed + args.files), args)
    with tempfile.TemporaryDirectory() as base:
        pool.run(Path(base))
    for outcome, count in sorted(Counter(r["outcome"] for r in pool.results).items()):
        print(f"{count:6}  {outcome}")
    slowest = max(pool.results, key=lambda r: r["seconds"])
    largest = max(pool.results, key=lambda r: r.get("peak", 0))
    print(f"slowest: {slowest['seconds']:.1f} s (seed {slowest['seed']})")
    print(f"largest: {largest.get('peak', 0) / GIB:.2f} GiB resident (seed {largest['seed']})")
    findings = sum(r["outcome"].startswith("!") for r in pool.results)
    print(f"{len(pool.results)} files, {findings} findings, {time.perf_counter() - start:.0f} seconds")
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
