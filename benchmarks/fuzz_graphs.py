"""Random networks through the whole pipeline, by the thousand: prints what became of them.

    python benchmarks/fuzz_graphs.py --graphs 5000 --seed 0 --processes 2

A network that is cut wrongly is made smaller (blocks left out one by one while it still fails) and written to
``--out``.  The exit code is 1 when there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "property"))
from random_networks import Net
from random_trial import Outcome, run_trial

#: Tries of other cuts when a smaller network seems right.
CUTS = 8
SLICE = 25


@dataclass
class Failure:
    """A network that went wrong."""

    seed: int
    error: str
    model: Path


def attempt(net: Net, seed: int) -> Outcome | str:
    """What becomes of a network and the cuts of a seed, or what goes wrong."""
    try:
        return run_trial(net, seed)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        first = str(error).splitlines()[0] if str(error) else ""
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {first}"[:300]


def smallest(seed: int) -> Net:
    """The same network with as few blocks as it takes to go wrong, by any cut."""
    skip: frozenset[int] = frozenset()
    for block in range(5):
        without = skip | {block}
        if any(isinstance(attempt(Net(seed, skip=without), cut), str) for cut in (seed, *range(CUTS))):
            skip = without
    return Net(seed, skip=skip)


def run_slice(seeds: Sequence[int], out: Path) -> tuple[Counter[str], list[Failure]]:
    """Some networks, one after the other."""
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    failures = []
    for seed in seeds:
        counts["graphs"] += 1
        outcome = attempt(Net(seed), seed)
        if isinstance(outcome, str):
            counts["wrong"] += 1
            out.mkdir(parents=True, exist_ok=True)
            path = out / f"seed{seed}.onnx"
            onnx.save(smallest(seed).build(), path)
            failures.append(Failure(seed, outcome, path))
            continue
        counts["cut"] += bool(outcome.kinds)
        counts["compared by the plan alone"] += outcome.compared
        counts.update(f"with {kind}" for kind in outcome.kinds)
        counts.update(f"refused: {reason}" for reason in outcome.refused)
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="folder for models that go wrong")
    args = parser.parse_args()
    last = args.seed + args.graphs
    slices = [range(i, min(i + SLICE, last)) for i in range(args.seed, last, SLICE)]
    total: Counter[str] = Counter()
    start = time.perf_counter()
    with ProcessPoolExecutor(args.processes) as pool:
        for counts, failures in pool.map(run_slice, slices, [args.out] * len(slices)):
            total += counts
            for failure in failures:
                print(f"wrong: seed {failure.seed}: {failure.error}\n  {failure.model}", flush=True)
            print(f"{total['graphs']} graphs, {total['wrong']} wrong", file=sys.stderr, flush=True)
    for what, count in sorted(total.items()):
        print(f"{count:6}  {what}")
    print(f"{time.perf_counter() - start:6.0f}  seconds")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
