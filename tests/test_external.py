"""Weights in files beside a model: every byte at its place, however they are divided."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune as gp
from graphprune.model import load
from graphprune.storage import slices
from graphprune.storage.external import PAGE, shards_of
from graphprune.storage.slices import Sliced
from graphprune.storage.streaming import Stream

RNG = np.random.default_rng(0)
WIDTHS = (24, 96, 40, 64, 16)


def network(folder: Path | None = None) -> onnx.ModelProto:
    """Products, one after the other; their weights in a file if there is a folder for it."""
    nodes, weights = [], []
    for i, shape in enumerate(pairwise(WIDTHS)):
        weights.append(numpy_helper.from_array(RNG.standard_normal(shape, np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
    x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["batch", WIDTHS[0]])
    y = helper.make_tensor_value_info(f"x{len(nodes)}", TensorProto.FLOAT, ["batch", WIDTHS[-1]])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if folder is not None:
        onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return model


def as_safetensors(model: onnx.ModelProto, folder: Path) -> None:
    """The model with its weights in a file of the layout that safetensors has: a header, then all bytes."""
    header = b'{"weights": "somewhere"}' + b" " * 9  # of a length that is no multiple of anything
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in model.graph.initializer:
            raw, start = tensor.raw_data, file.tell()
            file.write(raw)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": "model.safetensors", "offset": start, "length": len(raw)}.items():
                tensor.external_data.add(key=key, value=str(value))
    (folder / "m.onnx").write_bytes(model.SerializeToString())


def places(path: Path) -> dict[str, tuple[str, int, int]]:
    found = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        found[tensor.name] = (entries["location"], int(entries["offset"]), int(entries["length"]))
    return found


class TestSliced:
    @pytest.mark.parametrize("shape", [(7,), (50, 6), (6, 50), (9, 4, 3, 3)])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
    @pytest.mark.parametrize("piece", [1, 100, 1 << 20])
    def test_pieces_are_the_whole(
        self, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: type, piece: int
    ) -> None:
        monkeypatch.setattr(slices, "PIECE_BYTES", piece)
        array = RNG.integers(-100, 100, shape).astype(dtype)
        for axes in ([0], [len(shape) - 1], list(range(len(shape)))):
            keep = {d: RNG.random(shape[d]) < 0.6 for d in axes}
            sliced = Sliced(ir.tensor(array), keep, "w", cache=False)
            found = [read() for read in sliced.pieces()]
            assert np.array_equal(np.concatenate(found) if found else sliced.numpy()[:0], sliced.numpy())
            assert sliced.numpy().shape == tuple(sliced.shape.numpy())
            rows = max(piece // array[:1].nbytes, 1)
            assert all(len(part) <= rows for part in found)

    def test_nothing_is_read_before(self) -> None:
        def refuse() -> ir.Tensor:
            raise AssertionError

        lazy = ir.LazyTensor(refuse, dtype=ir.DataType.FLOAT, shape=ir.Shape([4, 4]))
        sliced = Sliced(lazy, {0: np.array([True, False, True, False])}, "w", cache=False)
        assert sliced.nbytes == 32
        assert sliced.source is lazy

    def test_what_was_cached_is_not_sliced_again(self) -> None:
        array = RNG.standard_normal((6, 2), np.float32)
        sliced = Sliced(ir.tensor(array), {0: np.arange(6) % 2 == 0}, "w", cache=True)
        for _ in range(2):
            assert np.array_equal(sliced.numpy(), array[::2])
            assert np.array_equal(np.concatenate([read() for read in sliced.pieces()]), array[::2])


class TestShards:
    @pytest.mark.parametrize("limit", [1, 6000, 20_000, 1 << 30])
    def test_files_hold_no_more(self, tmp_path: Path, limit: int) -> None:
        network(tmp_path)
        result = gp.prune(
            tmp_path / "m.onnx",
            tmp_path / "out.onnx",
            target={"params": 0.7},
            criterion="l2",
            shard_size=limit,
        )
        found = places(tmp_path / "out.onnx")
        sizes = {name: length for name, (_, _, length) in found.items()}
        for file in {place[0] for place in found.values()}:
            own = [place for place in found.values() if place[0] == file]
            assert (tmp_path / file).stat().st_size == max(start + length for _, start, length in own)
            assert len(own) == 1 or (tmp_path / file).stat().st_size <= limit
            assert all(start % PAGE == 0 for _, start, _ in own)
        assert len({place[0] for place in found.values()}) > 1 or limit > sum(sizes.values())
        written = gp.load(tmp_path / "out.onnx").ir.graph.initializers
        for name, value in result.model.ir.graph.initializers.items():
            assert value.const_value is not None
            assert written[name].const_value is not None
            assert np.array_equal(written[name].const_value.numpy(), value.const_value.numpy())
        onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)

    def test_a_model_with_its_weights_inside(self, tmp_path: Path) -> None:
        gp.prune(network(), tmp_path / "out.onnx", target={"params": 0.7}, criterion="l2", shard_size="8kB")
        assert len({place[0] for place in places(tmp_path / "out.onnx").values()}) > 1
        assert gp.check(tmp_path / "out.onnx", tmp_path / "out.onnx")[0].max_error == 0

    def test_fewer_files_leave_none_of_the_old(self, tmp_path: Path) -> None:
        for limit in ("8kB", "1GB"):
            gp.prune(
                network(), tmp_path / "out.onnx", target={"params": 0.7}, criterion="l2", shard_size=limit
            )
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["out.onnx", "out.onnx.data"]

    def test_a_tensor_is_never_divided(self) -> None:
        stream = Stream(load(network()).ir)
        assert list(shards_of(stream, "m", 1).values()) == [["w0"], ["w1"], ["w2"], ["w3"]]
        assert list(shards_of(stream, "m", None)) == ["m.data"]


def test_weights_in_a_safetensors_file(tmp_path: Path) -> None:
    model = network()
    as_safetensors(network_copy := onnx.ModelProto.FromString(model.SerializeToString()), tmp_path)
    assert not network_copy.graph.initializer[0].raw_data
    first = gp.prune(tmp_path / "m.onnx", tmp_path / "a.onnx", target={"params": 0.7}, criterion="l2")
    gp.prune(model, tmp_path / "b.onnx", target={"params": 0.7}, criterion="l2")
    assert first.verdict is not None
    assert gp.check(tmp_path / "a.onnx", tmp_path / "b.onnx")[0].max_error == 0


def test_tensors_without_elements(tmp_path: Path) -> None:
    """They need no place, and at the end of the data onnxruntime refuses one."""
    proto = network()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((0, 3), np.float32), "nothing"))
    proto.graph.node.append(onnx.helper.make_node("Identity", ["nothing"], ["empty"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("empty", onnx.TensorProto.FLOAT, [0, 3]))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert any(
        tensor.name == "nothing" and tensor.external_data
        for tensor in onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    )
    for limit in (None, 1):
        load(tmp_path / "m.onnx").save(tmp_path / "out.onnx", shard_bytes=limit)
        (empty,) = (t for t in onnx.load(tmp_path / "out.onnx").graph.initializer if t.name == "nothing")
        assert (list(empty.dims), len(empty.external_data)) == ([0, 3], 0)
        ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
        assert all(path.stat().st_size for path in tmp_path.iterdir())
