"""The oracle on parts of a model: what it cuts out, what it finds, and that it says nothing of right cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from large_models import INNER, LAYERS, WIDTH, residual, small
from networks import NETWORKS

import graphprune as gp
from graphprune import by_parts, compare, decision
from graphprune.analysis import touched
from graphprune.axes_kept import Keeps
from graphprune.by_parts import verify_parts, verify_somehow
from graphprune.errors import ValidationError
from graphprune.fed import FedSession
from graphprune.graph import DependencyGraph
from graphprune.model import Model
from graphprune.parts import between, parts_of
from graphprune.planner import removed_units
from graphprune.reporting.sentences import sentences
from graphprune.rewrite import cut

__all__ = ["small"]
pytestmark = pytest.mark.usefixtures("small")


def cut_of(graph: DependencyGraph) -> tuple[np.ndarray, Model]:
    plan = gp.plan(graph, target={"params": 0.8}, criterion="random")
    removed = removed_units(graph, plan)
    return removed, cut(graph.analysis, removed)


def permuted(model: Model, name: str) -> None:
    """Other positions of a weight than its neighbours keep."""
    value = model.ir.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(np.roll(value.const_value.numpy(), 1, axis=0), name=name)


class TestParts:
    def test_a_stream_is_cut_where_it_is_alone(self) -> None:
        model = gp.analyze(residual()).model
        shapes = {
            v.name or "": (2, WIDTH if "hidden" not in (v.name or "") else INNER)
            for n in model.ir.graph
            for v in n.outputs
        }
        found = parts_of(model, by_parts.PART_BYTES, shapes)
        assert [[v.name for v in part.end] for part in found] == [[f"stream_{i}"] for i in range(LAYERS)]
        assert [[v.name for v in part.start] for part in found[1:]] == [
            [f"stream_{i}"] for i in range(LAYERS - 1)
        ]
        assert all(0 < part.weight_bytes <= by_parts.PART_BYTES for part in found)

    @pytest.mark.parametrize("limit", [1, 500, 4000, 1 << 20])
    @pytest.mark.parametrize("name", sorted(NETWORKS))
    def test_nothing_is_missing_or_twice(self, name: str, limit: int) -> None:
        graph = gp.analyze(gp.load(NETWORKS[name]()))
        found = parts_of(graph.model, limit, graph.analysis.trace.shapes)
        nodes = [node for part in found for node in part.nodes]
        assert len(set(nodes)) == len(nodes)
        known: set[ir.Value] = set()
        for part in found:
            assert known.issuperset(part.start)
            made = {v for node in part.nodes for v in node.outputs}
            read = {v for node in part.nodes for v in touched(node)}
            assert not (read - made - set(part.start)) & known
            known |= made

    def test_what_is_between(self) -> None:
        model = gp.load(residual())
        nodes = between(model, ["stream_1"], ["stream_2"])
        assert nodes is not None
        assert [node.op_type for node in nodes] == ["MatMul", "Relu", "MatMul", "Mul", "Add"]
        assert between(model, ["nothing"], ["stream_2"]) is None


class TestVerify:
    @pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"conditional"}))
    @pytest.mark.parametrize("limit", [500, 1 << 20])
    def test_right_cuts_pass(self, monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
        monkeypatch.setattr(by_parts, "PART_BYTES", limit)
        graph = gp.analyze(gp.load(NETWORKS[name]()))
        verdict = verify_parts(graph.analysis, *cut_of(graph))
        assert verdict is not None
        assert verdict.parts is not None
        assert verdict.parts[0] > 0
        assert verdict.max_error <= 1e-5 * verdict.scale

    @pytest.mark.parametrize("scale", [1.0, 1e-12])
    def test_a_wrong_slice_is_found_behind_any_scale(self, scale: float) -> None:
        graph = gp.analyze(residual(scale))
        removed, pruned = cut_of(graph)
        permuted(pruned, "down_0")
        with pytest.raises(ValidationError, match="branch_0"):
            verify_parts(graph.analysis, removed, pruned)

    def test_the_first_of_each_kind_and_one_more_are_run(self) -> None:
        graph = gp.analyze(residual())
        verdict = verify_parts(graph.analysis, *cut_of(graph))
        assert verdict is not None
        assert verdict.parts == (2, LAYERS)

    def test_parts_that_are_cut_elsewhere_are_of_another_kind(self) -> None:
        """The first two layers keep their hidden width; only the others are cut at all."""
        graph = gp.analyze(residual())
        plan = gp.plan(graph, target={"params": 0.8}, criterion="random", exclude=["up_3", "hidden_3"])
        analysis, removed = graph.analysis, removed_units(graph, plan)
        keeps = Keeps(analysis, removed)
        shapes = graph.analysis.trace.shapes
        found = parts_of(graph.model, by_parts.PART_BYTES, shapes)
        kinds = {by_parts._shrinking(part, keeps) for part in found}
        assert len(kinds) == 2
        pruned = cut(analysis, removed)
        verdict = verify_parts(analysis, removed, pruned)
        assert verdict is not None

    def test_attributes_tell_parts_apart(self) -> None:
        proto = residual()
        node = next(n for n in proto.graph.node if n.op_type == "Relu")
        node.op_type = "LeakyRelu"
        node.attribute.add(name="alpha", f=0.5, type=onnx.AttributeProto.FLOAT)
        other = next(n for n in proto.graph.node if n.op_type == "Relu")
        other.op_type = "LeakyRelu"
        other.attribute.add(name="alpha", f=0.25, type=onnx.AttributeProto.FLOAT)
        graph = gp.analyze(proto)
        found = parts_of(graph.model, by_parts.PART_BYTES, graph.analysis.trace.shapes)
        assert len({by_parts._kind(part) for part in found}) == 3

    def test_ways_through_a_model_are_all_run(self) -> None:
        graph = gp.analyze(gp.load(NETWORKS["conditional"]()))
        assert verify_parts(graph.analysis, *cut_of(graph)) is None
        assert verify_somehow(graph.analysis, *cut_of(graph)).parts is None

    def test_a_model_that_reading_changed(self, tmp_path: Path) -> None:
        onnx.save(residual(), tmp_path / "m.onnx")
        graph = gp.analyze(tmp_path / "m.onnx")
        removed, pruned = cut_of(graph)
        other = residual()
        other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
        onnx.save(other, tmp_path / "m.onnx")
        with pytest.raises(ValidationError, match="changed by reading"):
            verify_parts(graph.analysis, removed, pruned)


def test_a_large_model_is_pruned_in_parts(tmp_path: Path) -> None:
    onnx.save(
        residual(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    result = gp.prune(tmp_path / "m.onnx", tmp_path / "out.onnx", target={"params": 0.6}, criterion="l2")
    assert result.verdict is not None
    assert result.verdict.parts == (2, LAYERS)
    whole = gp.check(tmp_path / "out.onnx", result.model)
    assert max(difference.max_error for difference in whole) == 0


def test_nobody_asked_to_run_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decision, "MOST_RUN", 1 << 10)
    result = gp.prune(residual(), tmp_path / "out.onnx", target={"params": 0.6})
    assert result.plan.options["criterion"] == "l2"
    assert any("weights only, since the model has" in line for line in sentences(result))


def test_what_it_will_take_is_said_beforehand(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("INFO", logger="graphprune")
    gp.prune(residual(), tmp_path / "out.onnx", target={"params": 0.6}, criterion="l2")
    (said,) = [record.getMessage() for record in caplog.records if "large model" in record.getMessage()]
    assert "12.31 kB of weights stay on the disk" in said
    assert "MB of memory and a minute" in said


def test_check_of_a_large_model_copies_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(compare, "can_be_fed", lambda tensor: tensor.nbytes > 64)
    session = compare.session(gp.load(residual()))
    assert isinstance(session, FedSession)
    assert gp.check(residual(), residual())[0].max_error == 0
