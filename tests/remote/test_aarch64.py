"""A Python for 64-bit Arm under emulation, where somebody made one (benchmarks/aarch64.sh): its outputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from remote_models import setup_of

from graphprune.profile import profile
from graphprune.remote.address import parse
from graphprune.remote.bench import RemoteBench
from graphprune.remote.link import Link
from graphprune.runner.sessions import feeds

LAUNCHER = os.environ.get("GRAPHPRUNE_AARCH64", "")

pytestmark = pytest.mark.skipif(
    not LAUNCHER,
    reason="needs GRAPHPRUNE_AARCH64, what benchmarks/aarch64.sh makes (packages qemu-user, dpkg)",
)


def test_outputs_and_profile(model: Path) -> None:
    on = f"cmd:{LAUNCHER}"
    setup = setup_of(model)
    with Link(parse(on)) as link:
        bench = RemoteBench(link)
        assert bench.information["machine"] == "aarch64"
        (found,) = bench.outputs(setup).values()
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(None, feeds(setup.inputs))[0], rtol=1e-5)
    (run,) = profile([model], on=on, repeat=2, warmup=1).runs
    assert {layer.origins for layer in run.layers} == {("h",), ("y",)}
    assert run.load_ms is not None
