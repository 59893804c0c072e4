"""Layers on their own, timed by a real runtime and by a formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from pretended_device import PretendedDevice

from graphprune.device.local import LocalDevice
from graphprune.device.pieces import Operand, Piece, graph_of, time_pieces
from graphprune.device.protocol import Identity
from graphprune.device.store import cache_folder, known_times, write_json


def conv(inner: int, outer: int, groups: int = 1, dtype: int = onnx.TensorProto.FLOAT) -> Piece:
    operands = (
        Operand((1, inner, 14, 14), False, dtype),
        Operand((outer, inner // groups, 3, 3), True, dtype),
        Operand((outer,), True, dtype),
    )
    return Piece("Conv", operands, (("group", groups), ("pads", (1, 1, 1, 1))), ("Relu",))


def matmul(rows: int, inner: int, outer: int) -> Piece:
    operands = (Operand((1, rows, inner), False), Operand((inner, outer), True), Operand((outer,), True))
    return Piece("MatMul", operands, (), ("Add", "Relu"), 3)


ATTENTION = Piece("MatMul", (Operand((1, 4, 32, 16), False), Operand((1, 4, 16, 32), False)))


def test_graphs_are_valid_and_hold_each_piece_once() -> None:
    pieces = [conv(32, 48), conv(32, 32, 32), matmul(8, 16, 24), ATTENTION]
    model = onnx.load_from_string(graph_of(pieces))
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node if n.op_type in ("Conv", "MatMul")] == [
        "Conv", "Conv", "MatMul", "MatMul",
    ]  # fmt: skip
    assert len(model.graph.output) == len(pieces)


def test_the_runtime_shows_every_piece() -> None:
    """Whatever it fuses: NCHWc convolutions, MatMul with Add, odd widths that take other kernels."""
    pieces = [conv(32, 48), conv(31, 45), conv(32, 32, 32), conv(33, 33, 33), matmul(8, 16, 24), ATTENTION]
    found = time_pieces(LocalDevice(threads=1), pieces, seconds=0.005)
    assert set(found) == set(pieces)
    assert all(ms > 0 for ms in found.values())


def test_more_work_takes_longer() -> None:
    small, large = matmul(4, 16, 16), matmul(64, 512, 512)
    found = time_pieces(LocalDevice(threads=1), [small, large], seconds=0.01)
    assert found[large] > 4 * found[small]


def test_without_a_profiler_whole_graphs_are_timed() -> None:
    with_it, without = PretendedDevice(), PretendedDevice(profiler=False)
    pieces = [conv(32, 48), conv(32, 96)]
    there, here = time_pieces(with_it, pieces), time_pieces(without, pieces)
    for piece in pieces:
        assert here[piece] == pytest.approx(there[piece], rel=0.05)


def test_a_graph_without_its_layer_still_reads() -> None:
    """Also where the weight stands first."""
    first = Piece("MatMul", (Operand((24, 16), True), Operand((1, 16, 8), False)), rank=3)
    onnx.checker.check_model(onnx.load_from_string(graph_of([first], is_empty=True)), full_check=True)


def test_times_are_kept_by_device(cache: Path) -> None:
    device = PretendedDevice()
    first = known_times(device, [conv(32, 48)])
    count = len(device.asked)
    assert known_times(device, [conv(32, 48)]) == first
    assert len(device.asked) == count  # nothing was measured again
    known_times(device, [conv(32, 48), conv(32, 64)])
    assert len(device.asked) > count
    other = PretendedDevice(name="another", per_mac=2e-5)
    assert known_times(other, [conv(32, 48)]) != first


def test_a_broken_cache_is_measured_again() -> None:
    device = PretendedDevice()
    first = known_times(device, [conv(32, 48)])
    path = cache_folder(device.identity) / "times.json"
    path.write_text("{", encoding="utf-8")
    assert known_times(device, [conv(32, 48)]) == first


def test_a_home_that_cannot_be_written_to_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert known_times(PretendedDevice(), [conv(32, 48)])


def test_every_setting_has_a_key_of_its_own() -> None:
    base = Identity("a", ("avx2",), "onnxruntime", "1.0", "cpu", 1)
    others = [
        Identity("b", ("avx2",), "onnxruntime", "1.0", "cpu", 1),
        Identity("a", (), "onnxruntime", "1.0", "cpu", 1),
        Identity("a", ("avx2",), "onnxruntime", "1.1", "cpu", 1),
        Identity("a", ("avx2",), "onnxruntime", "1.0", "xnnpack", 1),
        Identity("a", ("avx2",), "onnxruntime", "1.0", "cpu", None),
    ]
    assert len({base.key, *(other.key for other in others)}) == 6
    assert Identity.from_json(base.to_json()) == base
    # Where the runtime chooses, it chooses by what there is.
    two, four = (Identity("a", ("avx2",), "onnxruntime", "1.0", "cpu", None, cores) for cores in (2, 4))
    assert two.key != four.key
    assert replace(two, threads=1).key == replace(four, threads=1).key == base.key
    assert Identity.from_json(two.to_json()) == two


def test_a_cache_without_room_leaves_no_pieces(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []
