"""Small reference networks: the bundled demo model and the recipe that trained it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DemoData", "demo_data", "demo_model_path"]


@dataclass(frozen=True)
class DemoData:
    """Handwritten digits for the demo model (source and licence: :mod:`graphprune.models.digits`).

    Attributes:
        calibration: unlabelled images by input name, ``float32 [359, 1, 8, 8]`` in 0..1.
        images: test images by input name, ``float32 [360, 1, 8, 8]`` in 0..1.
        labels: digits of the test images, ``int64 [360]``.
    """

    calibration: dict[str, npt.NDArray[np.float32]]
    images: dict[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]


def demo_model_path() -> Path:
    """The bundled ONNX file: a residual CNN for 8x8 images of digits."""
    return Path(str(files(__name__) / "digits.onnx"))


def demo_data() -> DemoData:
    """The bundled images, which the demo model has never been trained on."""
    with np.load(Path(str(files(__name__) / "digits_data.npz"))) as data:
        return DemoData(
            calibration={"images": _scaled(data["calibration"])},
            images={"images": _scaled(data["test"])},
            labels=data["test_labels"].astype(np.int64),
        )


def _scaled(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """``uint8 [n, 8, 8]`` with values 0..16 as ``float32 [n, 1, 8, 8]`` in 0..1."""
    return (images[:, None] / np.float32(16)).astype(np.float32)
