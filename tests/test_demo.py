"""The demo keeps its promise: half the multiply-adds, nearly the same accuracy, no framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from graphprune.models import demo_data, demo_model_path

SCRIPT = """
import sys
from graphprune.cli import main
try:
    main(["demo", "--out", sys.argv[1], "--json"])
finally:
    print(*{"torch", "tensorflow", "sklearn"} & set(sys.modules), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    out = tmp_path_factory.mktemp("demo") / "deeper" / "pruned.onnx"
    before = demo_model_path().read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out)], capture_output=True, text=True, check=True, timeout=170
    )
    assert done.stderr.split() == []
    assert demo_model_path().read_bytes() == before
    found: dict[str, object] = json.loads(done.stdout)
    return found, out


def test_numbers(demo: tuple[dict[str, object], Path]) -> None:
    found, out = demo
    assert found["schema_version"] == 1
    assert found["output"] == str(out)
    pairs = {k: found[k] for k in ("macs", "params", "bytes", "accuracy", "latency_ms")}
    for key in ("macs", "params", "bytes"):
        before, after = pairs[key]  # type: ignore[misc]
        assert 0 < after < before
    before, after = pairs["macs"]  # type: ignore[misc]
    assert after <= 0.5 * before
    before, after = pairs["accuracy"]  # type: ignore[misc]
    assert before >= 0.98
    assert after >= before - 0.03


def test_file_is_as_good_as_the_report_says(demo: tuple[dict[str, object], Path]) -> None:
    found, out = demo
    onnx.checker.check_model(onnx.load(out), full_check=True)
    data = demo_data()
    (logits,) = ort.InferenceSession(out, providers=["CPUExecutionProvider"]).run(None, data.images)
    measured = float((logits.argmax(1) == data.labels).mean())
    assert measured == pytest.approx(found["accuracy"][1])  # type: ignore[index]
    sizes = found["bytes"]
    assert out.stat().st_size == pytest.approx(sizes[1], rel=0.01)  # type: ignore[index]
    assert [f.name for f in out.parent.iterdir()] == [out.name]
