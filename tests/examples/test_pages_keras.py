"""The page that needs Keras, as a reader would run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import number, run_page

pytestmark = pytest.mark.tensorflow


def test_there_and_back(tmp_path: Path) -> None:
    said = run_page("keras.md", tmp_path)
    assert number(said, "trained") > 0.9
    assert number(said, "fine-tuned") > 0.9
