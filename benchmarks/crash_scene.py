"""A folder with a model, an older output, and what the next run makes of it; for kill.py and faults.py."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphprune.cli import main as graphprune

OUT, PLAN = "out.onnx", "out.plan.json"
Files = dict[str, bytes]


def network(width: int = 256, layers: int = 3) -> onnx.ModelProto:
    """A few linear layers in a row."""
    numbers = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for i in range(layers):
        weight = numbers.standard_normal((width, width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"h{i}"], f"linear{i}"))
        nodes.append(helper.make_node("Relu", [f"h{i}"], [f"a{i}"], f"relu{i}"))
        last = f"a{i}"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", width]) for n in ("x", last))
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def files_in(folder: Path) -> Files:
    """Every file below a folder, by its path there."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@dataclass
class Scene:
    """What there is before a run, and what there must be after it.

    Attributes:
        folder: in which runs take place.
        before: its files: the model, the older output, its plan.
        after: the same after a run that nobody disturbs.
        target: of runs.
        resume: are runs told to go on from what was left?
    """

    folder: Path
    before: Files
    after: Files
    target: str = "50%"
    resume: bool = False

    @classmethod
    def make(cls, folder: Path, *, external: bool, width: int = 256) -> Scene:
        """Two runs: one to a larger target, and from there one as all that follow."""
        folder.mkdir(parents=True)
        onnx.save(
            network(width), folder / "net.onnx", save_as_external_data=external, location="net.onnx.data",
            size_threshold=0,
        )  # fmt: skip
        scene = cls(folder, {}, {}, target="80%")
        for target in ("80%", "50%"):
            scene.before, scene.target = files_in(folder), target
            code, err = run_apart(scene)
            if code != 0:
                raise RuntimeError(err)
        scene.after = files_in(folder)
        return scene

    def restore(self) -> None:
        """The folder as it was before."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, data in self.before.items():
            (self.folder / name).write_bytes(data)

    def found(self) -> str:
        """What the folder holds now: the ``old`` output, the ``new`` one, or what is wrong with it.

        ``new, unfinished``: the complete new model, whose data have not got their final name yet.
        """
        now = files_in(self.folder)
        for name, data in self.before.items():
            if name.startswith("net.onnx") and now.get(name) != data:
                return f"wrong: the input {name} was changed"
        if now.get(PLAN) not in (self.before[PLAN], self.after[PLAN]):
            return "wrong: the plan is neither the old one nor the new one"
        for state, files in (("old", self.before), ("new", self.after)):
            if all(now.get(name) == data for name, data in files.items() if _is_output(name)):
                return state
        try:
            same = _whole(now) == _whole(self.after)
        except Exception as error:
            return f"wrong: the output can't be read: {error}"
        return "new, unfinished" if same else "wrong: the output is a mixture"

    def leftovers(self) -> list[str]:
        """Files that an undisturbed run would not leave."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if self._is_left(p))

    def _is_left(self, path: Path) -> bool:
        return str(path.relative_to(self.folder)) not in self.after


def command(scene: Scene) -> list[str]:
    """A run as users have them; weights alone decide, so that it is quick."""
    start = [sys.executable, "-m", "graphprune", "prune", "net.onnx", OUT]
    given = ["--target", f"params={scene.target}", "--criterion", "l2", "--plan-out", PLAN]
    return [*start, *given, *(["--resume"] if scene.resume else [])]


def run(scene: Scene) -> tuple[int, str]:
    """A run in this process: its exit code, and what it said on stderr."""
    err, before = io.StringIO(), Path.cwd()
    os.chdir(scene.folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            graphprune(command(scene)[3:])
    except SystemExit as exit_:
        return int(exit_.code or 0), err.getvalue()
    finally:
        os.chdir(before)
    return 0, err.getvalue()


def run_apart(scene: Scene) -> tuple[int, str]:
    """An undisturbed run in a process of its own: its exit code, and what it said on stderr."""
    read, write = os.pipe()
    process = os.fork()
    if not process:
        code, err = run(scene)
        os.write(write, err.encode()[:4096])
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        err = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), err


def _is_output(name: str) -> bool:
    return name == OUT or name.startswith(f"{OUT}.")


def _whole(files: Files) -> bytes:
    """The output with its weights in it, wherever they stand."""
    model = onnx.ModelProto.FromString(files[OUT])
    for tensor in model.graph.initializer:
        if tensor.external_data:
            place = {entry.key: entry.value for entry in tensor.external_data}
            start = int(place["offset"])
            tensor.raw_data = files[place["location"]][start : start + int(place["length"])]
            tensor.ClearField("external_data")
    return bytes(model.SerializeToString(deterministic=True))
