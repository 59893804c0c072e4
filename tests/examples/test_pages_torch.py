"""The pages that need torch, as a reader would run them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import number, run_page

pytestmark = pytest.mark.torch
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def test_there_and_back(tmp_path: Path) -> None:
    said = run_page("torch.md", tmp_path, **ONE_THREAD)
    assert number(said, "trained") > 0.95
    assert number(said, "fine-tuned") > 0.93
    assert number(said, "fine-tuned") >= number(said, "before fine-tuning") - 0.01


def test_before_training(tmp_path: Path) -> None:
    said = run_page("before_training.md", tmp_path, **ONE_THREAD)
    for criterion in ("snip", "grasp", "synflow", "random"):
        assert number(said, criterion) > 0.9


def test_recovery(tmp_path: Path) -> None:
    said = run_page("onnx.md", tmp_path, **ONE_THREAD)
    assert number(said, "model") > 0.98
    assert number(said, "recovered") > number(said, "small")
