"""How much memory a large model takes, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

WIDTH, INNER, LAYERS = 1024, 4096, 12
WEIGHTS = 2 * LAYERS * WIDTH * INNER * 2
#: More than the interpreter with its libraries: a part with zeros in it, a weight in float32, some pieces.
ALLOWED = 90 << 20

_CHILD = """
import sys, threading, time
import numpy as np
import graphprune as gp
from graphprune import by_parts, parts
from graphprune.calibration import by_parts as calibration

parts.BIG_BYTES, by_parts.PART_BYTES, calibration.PART_BYTES = 1 << 26, 1 << 24, 1 << 24
calibration.ROOM = 1 << 20

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) << 10

gp.analyze(gp.load(sys.argv[1]))
base, most, over = anonymous(), [0], threading.Event()

def watch():
    while not over.wait(0.005):
        most[0] = max(most[0], anonymous())

thread = threading.Thread(target=watch)
thread.start()
samples = {"x": np.random.default_rng(0).standard_normal((8, 1024)).astype(np.float16)}
given = {"calibration": samples} if sys.argv[3] != "l2" else {}
result = gp.prune(sys.argv[1], sys.argv[2], target={"params": 0.6}, criterion=sys.argv[3], **given)
over.set()
thread.join()
assert result.verdict.parts is not None
print(most[0] - base)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network of 200 MB in float16."""
    folder = tmp_path_factory.mktemp("large")
    noise = np.random.default_rng(0).standard_normal(WIDTH * INNER, np.float32) / 64
    nodes, weights, stream = [], [], "x"
    with (folder / "m.data").open("wb") as file:
        for i in range(LAYERS):
            for name, shape in ((f"up{i}", (WIDTH, INNER)), (f"down{i}", (INNER, WIDTH))):
                raw = np.roll(noise, file.tell() // 1000).astype(np.float16).tobytes()
                tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT16)
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in {"location": "m.data", "offset": file.tell(), "length": len(raw)}.items():
                    tensor.external_data.add(key=key, value=str(value))
                file.write(raw)
                weights.append(tensor)
            nodes += [
                helper.make_node("MatMul", [stream, f"up{i}"], [f"hidden{i}"]),
                helper.make_node("Relu", [f"hidden{i}"], [f"active{i}"]),
                helper.make_node("MatMul", [f"active{i}", f"down{i}"], [f"branch{i}"]),
                helper.make_node("Add", [stream, f"branch{i}"], [f"stream{i}"]),
            ]
            stream = f"stream{i}"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["n", WIDTH]) for n in ("x", stream))
    graph = helper.make_graph(nodes, "large", [x], [y], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx"
    )
    assert (folder / "m.data").stat().st_size == WEIGHTS
    return folder / "m.onnx"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is read from /proc")
@pytest.mark.parametrize("criterion", ["l2", "wanda"])
def test_a_large_model_is_never_held(model: Path, tmp_path: Path, criterion: str) -> None:
    command = [sys.executable, "-c", _CHILD, str(model), str(tmp_path / "out.onnx"), criterion]
    # What was freed goes back at once: glibc would keep some of it for later, and how much is chance.
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    assert not run.returncode, run.stderr
    assert int(run.stdout) < ALLOWED < WEIGHTS / 2
