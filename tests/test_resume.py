"""A run that was interrupted goes on, and ends with the same bytes as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from large_models import LAYERS, WIDTH, residual, small

import graphprune as gp
from graphprune.calibration.segments import Segments

__all__ = ["small"]
SAMPLES = {"x": np.random.default_rng(1).standard_normal((40, WIDTH)).astype(np.float32)}
STAGE = "calibrating, part by part"


@pytest.fixture
def model(tmp_path: Path, small: None) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def interrupt(stage: str, when: int) -> Callable[[str, int, int], None]:
    def progress(name: str, done: int, total: int) -> None:
        if (name, done) == (stage, when):
            raise KeyboardInterrupt

    return progress


def prune(model: Path, name: str, **options: object) -> gp.PruneResult:
    options = {"target": {"params": 0.7}, "criterion": "wanda", "calibration": SAMPLES, **options}
    return gp.prune(model, model.with_name(name), **options)  # type: ignore[arg-type]


def content(model: Path, name: str) -> list[bytes]:
    names = [name, f"{name}.data"]
    found = [model.with_name(each).read_bytes() for each in names]
    return [found[0].replace(b"two.onnx", b"one.onnx"), found[1]]


@pytest.fixture
def parts_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry for each part that is run for moments."""
    run: list[int] = []
    advance = Segments.advance

    def counting(self: Segments, *arguments: object) -> None:
        if len(arguments) > 1:
            run.append(1)
        advance(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Segments, "advance", counting)
    return run


@pytest.mark.parametrize(
    ("stage", "when", "left"), [("scoring", 5, LAYERS), (STAGE, 1, LAYERS - 1), (STAGE, 4, LAYERS - 4)]
)
def test_it_goes_on(model: Path, parts_run: list[int], stage: str, when: int, left: int) -> None:
    prune(model, "one.onnx")
    with pytest.raises(KeyboardInterrupt):
        prune(model, "two.onnx", progress=interrupt(stage, when))
    assert not model.with_name("two.onnx").exists()
    parts_run.clear()
    prune(model, "two.onnx", resume=True)
    assert len(parts_run) == left
    assert content(model, "two.onnx") == content(model, "one.onnx")
    assert not list(model.parent.glob(".*"))


@pytest.mark.parametrize("what", ["option", "declarations", "samples", "file"])
def test_not_from_another_question(model: Path, parts_run: list[int], what: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(model, "out.onnx", progress=interrupt(STAGE, 4))
    parts_run.clear()
    options: dict[str, object] = {}
    if what == "option":
        options = {"floor": 0.2}
    elif what == "declarations":
        options = {"declarations": {"nobody.Uses": "b c -> b c"}}
    elif what == "samples":
        options = {"samples": 39}
    else:
        data = model.with_name("m.data")
        data.write_bytes((-np.frombuffer(data.read_bytes(), np.float32)).tobytes())
    prune(model, "out.onnx", resume=True, **options)
    assert len(parts_run) == LAYERS


def test_without_being_asked_to_it_begins_again(model: Path, parts_run: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(model, "out.onnx", progress=interrupt(STAGE, 4))
    parts_run.clear()
    prune(model, "out.onnx")
    assert len(parts_run) == LAYERS


def test_broken_entries_are_computed_again(model: Path, parts_run: list[int]) -> None:
    prune(model, "one.onnx")
    with pytest.raises(KeyboardInterrupt):
        prune(model, "two.onnx", progress=interrupt(STAGE, 4))
    entries = list(model.with_name(".two.onnx.graphprune").glob("journal/*.npz"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-20])
    parts_run.clear()
    prune(model, "two.onnx", resume=True)
    assert len(parts_run) == LAYERS
    assert content(model, "two.onnx") == content(model, "one.onnx")
