"""Prunes and profiles models in a loop, in one process: does it hold more and more memory or files?

    python benchmarks/leaks.py --minutes 60 MODEL.onnx...

Every round prunes each model by its weights and by calibration (``--recipe``, for models up to
``--calibrate`` megabytes), and profiles the original and the pruned model side by side.  After each round
everything that is unreachable is collected, and counted: memory (without mapped files), open files, mapped
files, threads, temporary files.  The first rounds fill caches; what is there after a fifth of the time is
compared with what is there at the end.  The exit code is 1 if files or threads are more, or if memory grows
by more than ``--growth`` megabytes.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from graphprune.models import demo_model_path

import graphprune as gp


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    megabytes: float
    open_files: int
    mapped_files: int
    threads: int
    temporary_files: int

    @classmethod
    def now(cls, folder: Path) -> Held:
        """Counted as Linux tells it, unreachable objects apart."""
        gc.collect()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        maps = {
            line.split(maxsplit=5)[5]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "/" in line
        }
        return cls(
            megabytes=int(status["RssAnon"].split()[0]) / 1024,
            open_files=len(list(Path("/proc/self/fd").iterdir())),
            mapped_files=sum(name.endswith((".onnx", ".data", ".npy", ".npz")) for name in maps),
            threads=int(status["Threads"]),
            temporary_files=len(list(folder.rglob("*"))),
        )  # fmt: skip


def one_round(models: list[Path], folder: Path, args: argparse.Namespace) -> list[str]:
    """Each model once; what could not be done."""
    refused = []
    out = folder / "pruned.onnx"
    for model in models:
        small = model.stat().st_size <= args.calibrate << 20
        ways: list[dict[str, str]] = [{"criterion": "l2"}, *([{"recipe": args.recipe}] if small else [])]
        try:
            for way in ways:
                gp.prune(model, out, target={"params": args.target}, samples=args.samples, **way)
            gp.profile([model, out], repeat=args.repeat, warmup=1)
        except gp.GraphPruneError as error:
            refused.append(f"{model.name}: {str(error).splitlines()[0]}")
        for path in folder.glob("pruned.onnx*"):
            path.unlink()
    return refused


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path, help="ONNX files; none: the bundled one")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", type=float, default=0.7, help="share of the parameters that stays")
    parser.add_argument("--recipe", default="obspa")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--calibrate", type=int, default=64, help="calibrates models up to so many MB")
    parser.add_argument("--repeat", type=int, default=5, help="counted runs of each profile")
    parser.add_argument("--growth", type=float, default=50.0, help="MB that memory may grow")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    models = args.models or [demo_model_path()]
    start, seen = time.monotonic(), list[tuple[float, Held]]()
    refused: set[str] = set()
    print(f"{'minute':>8}  {'round':>5}  " + "  ".join(field.name for field in fields(Held)))
    with tempfile.TemporaryDirectory(prefix="graphprune-leaks-") as name:
        tempfile.tempdir = os.environ["TMPDIR"] = name  # all temporary files are counted
        while not seen or seen[-1][0] < args.minutes:
            refused |= set(one_round(models, Path(name), args))
            seen.append(((time.monotonic() - start) / 60, Held.now(Path(name))))
            minute, held = seen[-1]
            print(
                f"{minute:8.2f}  {len(seen):5}  " + "  ".join(f"{value:.6g}" for value in astuple(held)),
                flush=True,
            )
    for text in sorted(refused):
        print(f"refused: {text}")
    return judged([held for minute, held in seen if minute >= args.minutes / 5], args.growth)


def judged(seen: list[Held], growth: float) -> int:
    """Compares the first rounds with the last; the exit code."""
    few = max(1, len(seen) // 5)
    first, last = seen[:few], seen[-few:]
    code = 0
    for field in fields(Held):
        before, after = (statistics.median(getattr(h, field.name) for h in part) for part in (first, last))
        allowed = growth if field.name == "megabytes" else 0.0
        verdict = "grows" if after > before + allowed else "does not grow"
        code |= verdict == "grows"
        print(f"{field.name}: {before:.6g} before, {after:.6g} at the end of {len(seen)} rounds: {verdict}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
