"""Phones: a stand-in for adb that runs its shell here, and one for the tool that runs onnxruntime.

The tool's stand-in prints and writes what `onnxruntime_perf_test` does, so this is a test of the parsing and
of the clean-up, not of a phone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from remote_models import SMALL, saved

from graphprune.errors import DeviceError, ModelError
from graphprune.profile import profile
from graphprune.remote.adb import seconds_in

ADB = """#!/bin/sh
test "$1" = -s && test "$2" = SERIAL || { echo "adb: device '$2' not found" >&2; exit 1; }
shift 2
case "$1" in
get-state) echo device ;;
push) cp "$2" "$3" ;;
shell) sh -c "$(echo "$2" | sed 's#/data/local/tmp#PHONE#g; s#getprop ro.*#echo Fairphone#')" ;;
esac
"""
TOOL = """#!PYTHON
import sys, time
import numpy as np
import onnxruntime as ort
words = sys.argv[1:]
print("Setting intra_op_num_threads to 1")
start = time.perf_counter()
count = int(words[words.index("-r") + 1])
sizes = dict(w.split(":") for flag, w in zip(words, words[1:]) if flag == "-f")
files = [w for w in words if w.endswith(".onnx") or w.endswith(".csv")]
session = ort.InferenceSession(files[0], providers=["CPUExecutionProvider"])
print("Session creation time cost:", time.perf_counter() - start, "s")
shape = [int(sizes.get(d, 1)) if isinstance(d, str) else d for d in session.get_inputs()[0].shape]
feeds = {session.get_inputs()[0].name: np.zeros(shape, np.float32)}
session.run(None, feeds)
print("Peak working set size: 123456789 bytes")
with open(files[1] if len(files) > 1 else "/dev/null", "a") as out:
    for number in range(count):
        start = time.perf_counter()
        session.run(None, feeds)
        out.write(f"model,{time.perf_counter() - start:g},123456789,97,{number}\\n")
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "phone"
    folder.mkdir()
    for path, text in (
        (tmp_path / "bin" / "adb", ADB.replace("PHONE", str(folder))),
        (folder / "onnxruntime_perf_test", TOOL.replace("PYTHON", sys.executable)),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return folder


def test_profile(phone: Path, model: Path) -> None:
    report = profile([model], on="adb:SERIAL", batch=2, repeat=4, threads=1)
    (run,) = report.runs
    assert run.device == "Fairphone Fairphone"
    assert len(run.inputs["x"]) == 2
    assert run.repeat == 4
    assert run.peak_rss_bytes == 123456789
    assert run.load_ms is not None
    assert run.latency_ms.p50 > 0
    assert run.layers == ()
    assert [path.name for path in phone.iterdir()] == ["onnxruntime_perf_test"]


def test_a_model_that_does_not_run(phone: Path, tmp_path: Path) -> None:
    path = saved(SMALL.replace("Neg (h)", "Conv (h, h)"), tmp_path / "wrong.onnx")
    with pytest.raises(ModelError, match=r"does not run on 'SERIAL'(.|\n)*Conv"):
        profile([path], on="adb:SERIAL", repeat=2)
    assert [path.name for path in phone.iterdir()] == ["onnxruntime_perf_test"]


def test_what_went_wrong_first_is_said(phone: Path, tmp_path: Path) -> None:
    """Also where the phone is gone in the end."""
    adb = tmp_path / "bin" / "adb"
    adb.write_text(adb.read_text().replace("\nshell) ", "\nshell) case $2 in rm*) exit 1;; esac; "))
    path = saved(SMALL.replace("Neg (h)", "Conv (h, h)"), tmp_path / "wrong.onnx")
    with pytest.raises(DeviceError, match=r"does not run on 'SERIAL'"):
        profile([path], on="adb:SERIAL", repeat=2)
    good = saved(SMALL, tmp_path / "good.onnx")
    with pytest.raises(DeviceError, match=r"adb fails for 'SERIAL'"):
        profile([good], on="adb:SERIAL", repeat=2)


def test_no_tool(phone: Path, model: Path) -> None:
    (phone / "onnxruntime_perf_test").unlink()
    with pytest.raises(DeviceError, match=r"no onnxruntime_perf_test(.|\n)*adb push"):
        profile([model], on="adb:SERIAL")


def test_another_phone(phone: Path, model: Path) -> None:
    with pytest.raises(DeviceError, match=r"adb fails for 'OTHER'(.|\n)*not found"):
        profile([model], on="adb:OTHER")


def test_no_adb(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"'adb' cannot be started(.|\n)*platform-tools"):
        profile([model], on="adb:SERIAL")


def test_results_of_the_tool() -> None:
    text = "resnet,0.00183404,36696064,96,0\nresnet,1.9e-03,36696064,96,1\n\nMin Latency: 0.00183404 s\n"
    assert seconds_in(text) == [0.00183404, 0.0019]
