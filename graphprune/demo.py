"""The demo: the bundled trained model, cut to half its multiply-adds; and, if wanted, trained a little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.api import PruneResult, prune
from graphprune.compare import run, session
from graphprune.model import Model, load
from graphprune.models import demo_data, demo_model_path
from graphprune.profile import profile
from graphprune.progress import Progress, silent

if TYPE_CHECKING:
    from graphprune.converters.recovery import RecoverResult

TARGET = 0.5
#: onnxruntime's convolution kernels work on blocks of channels; other widths take a slower path.
ALIGN = 8
#: The second step cuts so deep that there is something to recover, and trains for some seconds.
DEEP = 0.1
RECOVERY: dict[str, Any] = {"epochs": 60, "batch_size": 32, "lr": 3e-2, "augment": ("shift",), "threads": 1}


@dataclass(frozen=True)
class DemoReport:
    """Before and after, on the bundled test images and on this machine."""

    result: PruneResult
    accuracy_before: float
    accuracy_after: float
    latency_ms_before: float
    latency_ms_after: float
    latency_ratio: float

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {
            "output": str(self.result.output),
            "macs": [self.result.before.macs, self.result.after.macs],
            "params": [self.result.before.params, self.result.after.params],
            "bytes": [self.result.before.bytes, self.result.after.bytes],
            "accuracy": [self.accuracy_before, self.accuracy_after],
            "latency_ms": [self.latency_ms_before, self.latency_ms_after],
            "latency_ratio": self.latency_ratio,
        }


def run_demo(out: Path) -> DemoReport:
    """Prunes the bundled model to ``out``, and measures both models."""
    source = demo_model_path()
    original = load(source)
    result = prune(original, out, target={"macs": TARGET}, align=ALIGN)
    data = demo_data()
    report = profile([source, out], batch=64, threads=1, ops=False)
    before, after = (r.latency_ms.p50 for r in report.runs)
    (relative,) = report.relative
    return DemoReport(
        result=result,
        accuracy_before=_accuracy(original, data.images, data.labels),
        accuracy_after=_accuracy(load(out), data.images, data.labels),
        latency_ms_before=before,
        latency_ms_after=after,
        latency_ratio=relative.latency_ratio,
    )


@dataclass(frozen=True)
class RecoveryReport:
    """The second step: a much smaller model, before and after it learned from the original."""

    pruned: PruneResult
    result: RecoverResult
    accuracy_before: float
    accuracy_after: float

    def to_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {
            **self.result.to_json(),
            "macs": [self.pruned.before.macs, self.pruned.after.macs],
            "accuracy": [self.accuracy_before, self.accuracy_after],
        }


def recover_demo(out: Path, progress: Progress = silent) -> RecoveryReport:
    """Cuts the bundled model to a tenth, then trains it on unlabelled images to answer as the original does.

    Args:
        out: the file to write.
        progress: is told how far it is.

    Raises:
        ModelError: torch is not installed.
    """
    from graphprune.converters.recovery import recover

    data, original = demo_data(), load(demo_model_path())
    pruned = prune(original, out, target={"macs": DEEP})
    before = _accuracy(load(out), data.images, data.labels)
    small = load(out).to_proto()  # the file itself is replaced by the recovered one
    result = recover(small, out, reference=original, data=data.calibration, progress=progress, **RECOVERY)
    return RecoveryReport(pruned, result, before, _accuracy(result.model, data.images, data.labels))


def _accuracy(
    model: Model, images: dict[str, npt.NDArray[np.float32]], labels: npt.NDArray[np.int64]
) -> float:
    (logits,) = run(session(model, optimize=True), images).values()
    return float((logits.argmax(axis=1) == labels).mean())
