"""Mixtures of experts, as the analysis sees them: who chooses, from what, and where all comes together.

Nothing goes by names: a router is what makes the scores of a TopK whose positions are a group of experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.calibration.evidence import Evidence
from graphprune.groups import Group

#: Operators that leave numbers as they are.
_MOVES = {"Reshape", "Flatten", "Identity", "Cast", "Squeeze", "Unsqueeze", "Transpose"}
_SIZES = {"Shape", "Size"}


@dataclass(frozen=True, eq=False)
class Router:
    """One group of experts.

    Attributes:
        group: the experts.
        units: ``[experts]`` unit of each position of the router's scores.
        chosen: positions of the experts that each token goes to.
        logits: what the router's weight makes of a token.
        source: the tokens, as the router and all experts read them.
        result: what all experts together make of them; None if they come together nowhere.
    """

    group: Group
    units: npt.NDArray[np.int32]
    chosen: ir.Value
    logits: ir.Value
    source: ir.Value
    result: ir.Value | None


def router_of(evidence: Evidence, group: Group) -> Router | str:
    """The router of a group of experts, or why it is not followed."""
    analysis = evidence.graph.analysis
    for node in evidence.graph.model.ir.graph:
        if node.op_type != "TopK":
            continue
        chosen, scores = node.outputs[1], node.inputs[0]
        axis = analysis.facts.indexes.get(chosen.name or "")
        if axis is None or scores is None:
            continue
        rows = analysis.algebra.live(axis)
        if rows.shape[1] != 1 or set(rows[:, 0].tolist()) != set(group.units.tolist()):
            continue
        logits = _logits(scores, analysis.contractions)
        if logits is None:
            return "no weight makes the scores that the experts are chosen by"
        source = _source(logits)
        if source is None:
            return "the router reads no tensor"
        result = meeting_point(evidence.graph.model.ir.graph, source, chosen)
        return Router(group, rows[:, 0], chosen, logits, source, result)
    return "no TopK chooses these experts"


def meeting_point(graph: ir.Graph, source: ir.Value, through: ir.Value) -> ir.Value | None:
    """The first value that everything made of ``source`` and after ``through`` goes through."""
    left: dict[ir.Value, int] = {source: _uses(source)}
    passed = False
    for node in graph:
        reads = [v for v in node.inputs if v in left]
        if not reads:
            continue
        for value in reads:
            assert value is not None
            left[value] -= 1
        if node.op_type not in _SIZES:
            left |= {value: _uses(value) for value in node.outputs}
        passed = passed or through in node.outputs
        still = [value for value, count in left.items() if count > 0]
        if passed and len(still) == 1 and still[0] is node.outputs[0]:
            return still[0]
    return None


def _uses(value: ir.Value) -> int:
    """Readers that are more than shapes, and the caller if it is an output."""
    return len(list(value.uses())) + int(value.is_graph_output())


def _logits(scores: ir.Value, contractions: set[ir.Node]) -> ir.Value | None:
    value: ir.Value | None = scores
    while value is not None and value.producer() not in contractions:
        node = value.producer()
        if node is None:
            return None
        data = [v for v in node.inputs if v is not None and v.const_value is None]
        value = data[0] if data else None
    return value


def _source(logits: ir.Value) -> ir.Value | None:
    node = logits.producer()
    assert node is not None
    value = next((v for v in node.inputs if v is not None and v.const_value is None), None)
    while value is not None and (above := value.producer()) is not None and above.op_type in _MOVES:
        value = above.inputs[0]
    return value
