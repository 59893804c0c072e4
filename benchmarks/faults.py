"""Runs of prune over an older output in which something fails: is it said, is anything lost or left behind?

    python benchmarks/faults.py

* every operation on files fails in turn, alone ("failing") or with all that follow ("permission lost");
* files can't grow past a size, from none to all of the output ("too large");
* a small file system is full, with more and more room on it ("full disk"; as root, where one can be mounted);
* the model or its data are changed, replaced, cut off or removed while they are read ("changed input").

Wanted: exit code 0 and the new output, or exit code 1, an error of four lines and the old output (where the
very last steps fail, the new one), the input as it was, no temporary files where they can be removed, and a
next run that works.  The exit code is 1 if something of this fails.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from crash_scene import OUT, Files, Scene, run
from fault_points import Points, failing, once

FOUR_LINES = re.compile(
    r"(note: [^\n]*\n)*graphprune: \S[^\n]*\n"
    r"(  where:   \S[^\n]*\n)?(  because: \S[^\n]*\n)?(  try:     \S[^\n]*\n)?"
)
POINTS = Points()


class Trials:
    """What became of all runs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def check(self, what: str, scene: Scene, done: tuple[int, str], *, cleans: bool = True) -> None:
        """Judges one run, then the next one in the same folder."""
        code, err = done
        state, wrong = scene.found(), []
        self.counts[f"{what}: exit {code}, {state} output"] += 1
        if state.startswith("wrong"):
            wrong.append(state)
        if code not in (0, 1) or (code == 0 and state != "new"):
            wrong.append(f"exit code {code} with the {state} output: {err.strip()}")
        if code == 1 and not FOUR_LINES.fullmatch(err):
            wrong.append(f"no proper error: {err.strip()}")
        if cleans and state != "new, unfinished" and scene.leftovers():
            wrong.append(f"left: {', '.join(scene.leftovers())}")
        code, err = run(scene)
        if code != 0 or scene.found() != "new" or scene.leftovers():
            left = ", ".join(scene.leftovers())
            wrong.append(f"the next run: exit {code}, {scene.found()} output, left: {left}; {err.strip()}")
        for each in wrong:
            self.counts["wrong"] += 1
            print(f"{what}: {each}", flush=True)


def operations(trials: Trials, kind: str, scene: Scene) -> None:
    """Each operation fails in turn."""
    scene.restore()
    POINTS.watch(scene.folder, lambda number: None)
    run(scene)
    count = POINTS.count
    POINTS.rest()
    for forever, what, error in ((False, "failing", errno.EIO), (True, "permission lost", errno.EACCES)):
        for at in range(count):
            scene.restore()
            POINTS.watch(scene.folder, failing(at, error, forever=forever))
            done = run(scene)
            POINTS.rest()
            trials.check(f"{kind}, {what}", scene, done, cleans=False)


def sizes(trials: Trials, kind: str, scene: Scene, points: int) -> None:
    """Files can't grow past a size."""
    largest = max(len(data) for name, data in scene.after.items() if name.startswith(OUT))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for i in range(points + 1):
        scene.restore()
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest * i // points, hard))
        try:
            done = run(scene)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        trials.check(f"{kind}, too large", scene, done)


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A file system of so many bytes; None where none can be mounted."""
    with tempfile.TemporaryDirectory(prefix="graphprune-disk-") as folder:
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}", "graphprune", folder]
        if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            gc.collect()  # models that are mapped into memory
            subprocess.run(["umount", folder], check=True)


def disks(trials: Trials, kind: str, scene: Scene, points: int) -> bool:
    """A small disk with more and more room; was there one?"""
    output = sum(len(data) for name, data in scene.after.items() if not name.startswith("net"))
    total = sum(map(len, scene.before.values())) + 3 * output + (1 << 20)
    with small_disk(total) as disk:
        if disk is None:
            return False
        there = Scene(disk / "work", scene.before, scene.after)
        there.folder.mkdir()
        for i in range(points + 1):
            there.restore()
            room = (output * 5 // 4 + (1 << 15)) * i // points  # files take up whole pages
            filler = disk / "filler"
            filled = os.statvfs(disk)
            filler.write_bytes(bytes(max(0, filled.f_bavail * filled.f_frsize - room)))
            done = run(there)
            filler.unlink()
            trials.check(f"{kind}, full disk", there, done)
    return True


def changes(folder: Path, name: str) -> dict[str, Callable[[], None]]:
    """What somebody may do to an input file."""
    file = folder / name

    def replaced() -> None:
        other = file.with_name("other")
        other.write_bytes(file.read_bytes())
        other.replace(file)

    return {
        "written to": lambda: file.write_bytes(file.read_bytes()[::-1]),
        "replaced": replaced,
        "removed": file.unlink,
        "made longer": lambda: file.write_bytes(file.read_bytes() + bytes(64)),
        "cut off": lambda: os.truncate(file, 100),
    }


def changed_inputs(trials: Trials, kind: str, scene: Scene) -> None:
    """The input is changed when the first of the output is about to be written."""
    inputs = [name for name in scene.before if name.startswith("net.onnx")]
    for name in inputs:
        for how in changes(scene.folder, name):
            scene.restore()
            # A process of its own: what is mapped into memory and then cut off would end this one.
            given = [sys.executable, __file__, "--child", str(scene.folder), name, how]
            done = subprocess.run(given, capture_output=True, text=True, check=False)
            now = Scene(scene.folder, _inputs_as_they_are(scene), scene.after)
            state = now.found()
            trials.counts[f"{kind}, {name} {how}: exit {done.returncode}, {state} output"] += 1
            if state != "old" or done.returncode != 1 or not FOUR_LINES.fullmatch(done.stderr):
                trials.counts["wrong"] += 1
                print(f"{kind}, {name} {how}: exit {done.returncode}, {state}; {done.stderr.strip()}")


def _inputs_as_they_are(scene: Scene) -> Files:
    inputs = {name for name in scene.before if name.startswith("net.onnx")}
    there = {name: (scene.folder / name).read_bytes() for name in inputs if (scene.folder / name).exists()}
    return {name: data for name, data in scene.before.items() if name not in inputs} | there


def child(folder: Path, name: str, how: str) -> int:
    """A run in which the input is changed."""
    scene = Scene(folder, {}, {})
    change = changes(folder, name)[how]

    def act() -> None:
        POINTS.rest()
        change()

    POINTS.watch(folder / f".{OUT}.graphprune" / OUT, once(0, act))
    code, err = run(scene)
    sys.stderr.write(err)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=40, help="sizes of files and of disks")
    parser.add_argument("--width", type=int, default=64, help="of the network's layers")
    parser.add_argument("--only", help="one part: operations, sizes, disks or changes")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        folder, name, how = args.child
        return child(Path(folder), name, how)
    trials = Trials()
    with tempfile.TemporaryDirectory(prefix="graphprune-faults-") as folder:
        scenes = {
            kind: Scene.make(Path(folder).resolve() / name, external=name == "external", width=args.width)
            for kind, name in (("one file", "embedded"), ("external data", "external"))
        }
        for kind, scene in scenes.items():
            if args.only in (None, "operations"):
                operations(trials, kind, scene)
            if args.only in (None, "sizes"):
                sizes(trials, kind, scene, args.points)
            if args.only in (None, "disks") and not disks(trials, kind, scene, args.points):
                print("full disk: left out, since no file system can be mounted here")
            if args.only in (None, "changes"):
                changed_inputs(trials, kind, scene)
    for what, count in sorted(trials.counts.items()):
        print(f"{count:6}  {what}")
    return 1 if trials.counts["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
