"""TensorRT by itself, as far as it goes without a card: refusals, and what trtexec writes."""

from __future__ import annotations

import ctypes
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import onnx
import onnx.parser
import pytest

from graphprune.errors import DeviceError, ModelError
from graphprune.nvidia.driver import Card
from graphprune.nvidia.trtexec import read_times
from graphprune.profile import profile

ABSENT = find_spec("tensorrt") is None
TRTEXEC = """#!PYTHON
import json, sys, time
words = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
with open(LOG, "a") as log:
    log.write(json.dumps(words) + "\\n")
if "saveEngine" in words:
    open(words["saveEngine"], "w").close()
if "exportTimes" in words:
    entry = {"startInMs": 0, "latencyMs": 2.5, "computeMs": 2.0}
    json.dump([entry] * (int(words["iterations"]) + 3), open(words["exportTimes"], "w"))
if "exportProfile" in words:
    layers = [{"count": 30}, {"name": "h + y", "averageMs": 0.5}, {"name": "PWN(h)", "averageMs": 1.5}]
    json.dump(layers, open(words["exportProfile"], "w"))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[N, S, 4] x) => (float[N, S, 4] y)'
    path = tmp_path / "small.onnx"
    onnx.save(onnx.parser.parse_model(text + " { h = Relu (x) y = Neg (h) }"), path)
    return path


@pytest.mark.skipif(not ABSENT or which("trtexec") is not None, reason="TensorRT is here")
def test_absent(model: Path) -> None:
    with pytest.raises(ModelError, match=r"not available(.|\n)*neither(.|\n)*pip install tensorrt"):
        profile([model], provider="trt")


def test_elsewhere(model: Path) -> None:
    with pytest.raises(ModelError, match=r"on this machine only(.|\n)*--provider tensorrt"):
        profile([model], provider="trt", on=f"cmd:{sys.executable}")


def test_no_driver() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("there is a driver")
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        Card()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stand-in for the program is asked, one line each time."""
    program, log = tmp_path / "bin" / "trtexec", tmp_path / "log"
    program.parent.mkdir()
    program.write_text(TRTEXEC.replace("PYTHON", sys.executable).replace("LOG", repr(str(log))))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return log


@pytest.mark.skipif(not ABSENT, reason="the Python package comes first")
def test_trtexec_is_told_no_shapes_of_fixed_inputs(tmp_path: Path, log: Path) -> None:
    """It refuses them: a static model does not take explicit shapes."""
    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[2, 4] x) => (float[2, 4] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fixed.onnx")
    assert profile([tmp_path / "fixed.onnx"], provider="trt", repeat=5).runs
    assert not [word for line in log.read_text().splitlines() for word in json.loads(line) if "hapes" in word]


@pytest.mark.skipif(not ABSENT, reason="the Python package comes first")
def test_trtexec(model: Path, tmp_path: Path, log: Path) -> None:
    """The command lines, and the reading of what it writes."""
    report = profile([model], provider="trt", precision="fp16", batch=[1, 8], dims={"S": [16, 64]}, repeat=20)
    assert [run.latency_ms.p50 for run in report.runs] == [2.5] * 4
    assert [run.repeat for run in report.runs] == [20] * 4
    assert [layer.origins for layer in report.runs[0].layers] == [("h",), ("h", "y")]
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    built = [words for words in asked if "onnx" in words]
    assert built[0]["minShapes"] == "x:1x16x4"
    assert built[0]["maxShapes"] == "x:8x64x4"
    assert {words["optShapes"] for words in built} == {"x:1x16x4", "x:1x64x4", "x:8x16x4", "x:8x64x4"}
    assert "fp16" in built[0]
    assert built[0]["timingCacheFile"].startswith(str(tmp_path / "cache"))
    assert {words["shapes"] for words in asked if "exportTimes" in words} == {
        words["optShapes"] for words in built
    }


def test_times_of_trtexec() -> None:
    assert read_times('[{"latencyMs": 1.25, "computeMs": 1}, {"latencyMs": 2}]') == [1.25, 2.0]
