"""Files of weights: what is read is written again, in the same types, with everything beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from graphprune.converters.carrying.safetensors_file import read_safetensors, write_safetensors
from graphprune.converters.carrying.weight_files import is_weights, open_weights

from graphprune.errors import ModelError

Array = np.ndarray[Any, Any]


def some() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "z.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "a.weight": rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16),
        "steps": np.array(7),
        "half": rng.standard_normal(5).astype(np.float16),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }


def test_types_order_and_metadata_stay(tmp_path: Path) -> None:
    arrays = some()
    write_safetensors(tmp_path / "a.safetensors", arrays, {"format": "pt"})
    found, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"format": "pt"}
    assert [n for n in found if n != "empty"] == [n for n in arrays if n != "empty"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].astype(np.float64), array.astype(np.float64))


def test_the_layout_is_that_of_the_format(tmp_path: Path) -> None:
    """Written out by hand, as https://github.com/huggingface/safetensors has it."""
    header = b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    content = len(header).to_bytes(8, "little") + header + np.array([1, 2], "<f4").tobytes()
    (tmp_path / "x.safetensors").write_bytes(content)
    arrays, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {}
    np.testing.assert_array_equal(arrays["x"], [1, 2])
    write_safetensors(tmp_path / "y.safetensors", arrays, {})
    written = (tmp_path / "y.safetensors").read_bytes()
    length = int.from_bytes(written[:8], "little")
    assert length % 8 == 0
    assert json.loads(written[8 : 8 + length]) == json.loads(header)
    assert written[8 + length :] == np.array([1, 2], "<f4").tobytes()


def test_a_changed_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", some(), {"format": "pt"})
    file = open_weights(tmp_path / "a.safetensors")
    bias = np.ones(3, np.float32)
    file.write(tmp_path / "b.safetensors", {"z.weight": bias, "half": None}, {"z.bias": ("z.weight", bias)})
    arrays, metadata = read_safetensors(tmp_path / "b.safetensors")
    assert metadata == {"format": "pt"}
    assert arrays["z.weight"].shape == (3,)
    assert "half" not in arrays
    np.testing.assert_array_equal(arrays["z.bias"], bias)


def test_several_files_with_an_index(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    arrays = {name: array for name, array in some().items() if array.size}
    first = {"z.weight": arrays["z.weight"], "steps": arrays["steps"]}
    second = {name: array for name, array in arrays.items() if name not in first}
    write_safetensors(old / "m-1.safetensors", first, {"format": "pt"})
    write_safetensors(old / "m-2.safetensors", second, {"format": "pt"})
    where = dict.fromkeys(first, "m-1.safetensors") | dict.fromkeys(second, "m-2.safetensors")
    index = {"metadata": {"total_size": 1, "note": "kept"}, "weight_map": where}
    (old / "model.safetensors.index.json").write_text(json.dumps(index))
    file = open_weights(old / "model.safetensors.index.json")
    assert set(file.arrays) == set(arrays)
    cut = arrays["z.weight"][:1]
    bias = np.ones(2, ml_dtypes.bfloat16)
    file.write(
        new / "model.safetensors.index.json",
        {"z.weight": cut, "half": None},
        {"a.bias": ("a.weight", bias)},
    )
    again = open_weights(new / "model.safetensors.index.json").arrays
    assert set(again) == set(arrays) - {"half"} | {"a.bias"}
    np.testing.assert_array_equal(again["z.weight"], cut)
    written = json.loads((new / "model.safetensors.index.json").read_text())
    assert written["metadata"] == {"total_size": sum(a.nbytes for a in again.values()), "note": "kept"}
    assert written["weight_map"]["a.bias"] == "m-2.safetensors"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.safetensors", b"", "is not a safetensors file"),
        ("a.safetensors", b"\xff" * 64, "its header is longer than the file"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]", "is not a safetensors file"),
        ("a.safetensors.index.json", b"{}", "is not an index"),
        ("a.safetensors.index.json", b"no json", "is not an index"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=text):
        open_weights(tmp_path / name)


def test_a_shape_that_does_not_fit_its_bytes(tmp_path: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match=r"8 bytes for \[3\] of F32"):
        open_weights(tmp_path / "x.safetensors")


def test_missing_files(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.safetensors.index.json"):
        with pytest.raises(ModelError, match="cannot read"):
            open_weights(tmp_path / name)
    assert is_weights(Path("a.pth"))
    assert not is_weights(Path("a.onnx"))
