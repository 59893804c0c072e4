"""Runs of prune over an older output, each killed: what is there then, and does the next run work?

    python benchmarks/kill.py --runs 100 --seed 0
    python benchmarks/kill.py --steps
    python benchmarks/kill.py --steps --resume

Half of the runs are killed at any moment from their start to their end, half shortly after their first
temporary file has appeared, where the files change.  With ``--steps`` runs are killed before each of their
operations on files in turn, so that no two of them follow each other without a kill in between.

After each, the input must be what it was, and the output the old one or the new one, whole.  The next run
must make the new one and leave nothing behind.  The exit code is 1 if something of this fails.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from crash_scene import OUT, Scene, command, run, run_apart
from fault_points import Points

POINTS = Points()
_POLL = 2e-4


def attempt(scene: Scene, numbers: random.Random, seconds: float, *, late: bool) -> tuple[str, bool]:
    """One run that is killed; what it leaves, and whether it had come to its end before."""
    scene.restore()
    run = subprocess.Popen(
        command(scene),
        cwd=scene.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    moment = numbers.random()
    if late:
        work = scene.folder / f".{OUT}.graphprune" / OUT
        while run.poll() is None and not work.exists():
            time.sleep(_POLL)
        time.sleep(moment * 0.03)
    else:
        time.sleep(moment * seconds)
    run.send_signal(signal.SIGKILL)
    ended = run.wait() == 0
    return scene.found(), ended


def attempt_at(scene: Scene, step: int) -> tuple[str, bool]:
    """A run that is killed before its operation of this number; the same as :func:`attempt`."""

    def act(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    scene.restore()
    process = os.fork()
    if not process:
        POINTS.watch(scene.folder, act)
        os._exit(run(scene)[0])
    _, status = os.waitpid(process, 0)
    return scene.found(), os.WIFEXITED(status)


def next_run(scene: Scene) -> tuple[list[str], bool]:
    """What is wrong with the run after it, and whether it said that something had been left."""
    code, err = run_apart(scene)
    wrong = []
    if code != 0:
        wrong.append(f"the next run fails: {err.strip()}")
    if scene.found() != "new":
        wrong.append(f"after the next run: {scene.found()}")
    if scene.leftovers():
        wrong.append(f"after the next run there is: {', '.join(scene.leftovers())}")
    return wrong, "note: a run that was killed" in err


class Judge:
    """What became of all runs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, scene: Scene, state: str, ended: bool) -> None:
        """Looks at what a run left, and at the next run."""
        self.counts["runs"] += 1
        self.counts[f"{kind}: {state}"] += 1
        self.counts["came to their end before they were killed"] += ended
        self.counts["left temporary files"] += bool(scene.leftovers())
        wrong, named = next_run(scene)
        self.counts["next runs that named what was left"] += named
        self.counts["next runs that worked"] += not wrong
        for each in [state] * state.startswith("wrong") + wrong:
            self.counts["wrong"] += 1
            print(f"run {self.counts['runs']}, {kind}: {each}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", action="store_true", help="kill before each operation, not at random")
    parser.add_argument("--resume", action="store_true", help="the next run goes on from what was left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=512, help="of the network's layers")
    args = parser.parse_args()
    numbers, judge = random.Random(args.seed), Judge()
    with tempfile.TemporaryDirectory(prefix="graphprune-kill-") as folder:
        scenes = {
            kind: Scene.make(Path(folder) / name, external=name == "external", width=args.width)
            for kind, name in (("one file", "embedded"), ("external data", "external"))
        }
        for scene in scenes.values():
            scene.resume = args.resume
        if args.steps:
            for kind, scene in scenes.items():
                step, ended = 0, False
                while not ended:
                    state, ended = attempt_at(scene, step)
                    judge.add(kind, scene, state, ended)
                    step += 1
        else:
            start = time.perf_counter()
            scene = scenes["one file"]
            subprocess.run(command(scene), cwd=scene.folder, check=True, capture_output=True)
            seconds = time.perf_counter() - start
            for i in range(args.runs):
                kind = "external data" if i % 2 else "one file"
                found = attempt(scenes[kind], numbers, seconds, late=i // 2 % 2 == 1)
                judge.add(kind, scenes[kind], *found)
            print(f"{args.runs} runs, killed within {seconds:.1f} s")
    for what, count in sorted(judge.counts.items()):
        print(f"{count:6}  {what}")
    return 1 if judge.counts["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
