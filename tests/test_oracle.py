"""The oracle passes right cuts, and fails each wrong one that we can think of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from networks import NETWORKS, Array, build, graph_of, initializer, replace, weight
from onnx import numpy_helper

from graphprune.axes_kept import Keeps
from graphprune.errors import ValidationError
from graphprune.graph import DependencyGraph, analyze
from graphprune.kept_positions import KeptPositions
from graphprune.model import load
from graphprune.noise import noisy_differences
from graphprune.oracle import masked_reference, run_sizes, verify
from graphprune.rewrite import cut


def some_units(graph: DependencyGraph, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    for group in graph.groups:
        if group.prunable:
            removed[group.units[rng.permutation(group.size)[: group.size // 2]]] = True
    return removed


def remove(graph: DependencyGraph, gid: str, positions: list[int]) -> Array:
    group = next(g for g in graph.groups if g.id == gid)
    removed = np.zeros(len(graph.analysis.algebra), bool)
    removed[group.units[positions]] = True
    return removed


def refuses(graph: DependencyGraph, removed: Array, wrong: onnx.ModelProto) -> bool:
    try:
        verify(graph.analysis, removed, load(wrong))
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_right_cuts_pass(name: str, seed: int) -> None:
    graph = graph_of(name)
    removed = some_units(graph, seed)
    verdict = verify(graph.analysis, removed, cut(graph.analysis, removed), seed=seed)
    assert verdict.max_error <= 1e-4 * verdict.scale
    assert verdict.scale > 1e-3
    batches = [next(iter(run.values()))[0] for run in verdict.runs]
    assert max(batches) > 1


def test_verdict_says_what_is_not_exact() -> None:
    graph = graph_of("tied_embedding")
    verdicts = {}
    for gid in ("table:1", "up.w:1"):
        removed = remove(graph, gid, [0, 3])
        verdicts[gid] = verify(graph.analysis, removed, cut(graph.analysis, removed))
    assert not verdicts["table:1"].exact
    assert verdicts["table:1"].statistics == ["LayerNormalization 'LayerNormalization_norm'"]
    assert verdicts["up.w:1"].exact
    assert verdicts["up.w:1"].statistics == []


def test_both_input_sizes_are_tried() -> None:
    runs = run_sizes(graph_of("attention").analysis, as_analysed=False)
    assert [set(run) for run in runs] == [{"batch", "time"}] * 2
    assert runs[0]["batch"] != runs[1]["batch"]
    assert runs[0]["time"] != runs[1]["time"]


# ---- sabotage -----------------------------------------------------------------------------------

#: What the function does not depend on, so that nothing could be caught.
INVISIBLE = {
    "k.b:0": "it adds the same to all scores of a query, which the softmax takes away",
    "stem.b:0": "with one channel left in each group, the norm takes a constant away",
}


def sabotaged(name: str, graph: DependencyGraph, removed: Array) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The cut model with the kept positions of one weight in another order, one weight at a time.

    That is what a forgotten consumer, an off-by-one piece of a Concat, or heads taken for channels
    come down to.
    """
    original = NETWORKS[name]()
    right = cut(graph.analysis, removed).to_proto()
    full = {t.name: tuple(t.dims) for t in original.graph.initializer}
    for tensor in right.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind != "f" or tensor.name not in full:
            continue
        for d, (now, before) in enumerate(zip(array.shape, full[tensor.name], strict=True)):
            rolled = np.roll(array, 1, axis=d)
            invisible = f"{tensor.name}:{d}" in INVISIBLE and name != "cnn"
            if now == before or now < 2 or np.array_equal(rolled, array) or invisible:
                continue
            wrong = onnx.ModelProto.FromString(right.SerializeToString())
            replace(wrong, tensor.name, rolled)
            yield f"{tensor.name}:{d}", wrong


@pytest.mark.parametrize("name", NETWORKS)
def test_weight_cut_at_other_positions_is_caught(name: str) -> None:
    """Statistic-changing groups too: the norms of the reference run over the kept positions alone."""
    graph = graph_of(name)
    removed = some_units(graph)
    tried = dict(sabotaged(name, graph, removed))
    assert tried or name == "merged_constants"
    assert [what for what, wrong in tried.items() if not refuses(graph, removed, wrong)] == []


@pytest.mark.parametrize("name", ["cnn", "dense", "attention", "tied_embedding", "option_a"])
def test_cut_of_other_units_is_caught(name: str) -> None:
    """A consistent cut, but not the one that the plan says."""
    graph = graph_of(name)
    for group in graph.groups:
        if not group.prunable or group.size < 2:
            continue
        asked, done = remove(graph, group.id, [0]), remove(graph, group.id, [1])
        with pytest.raises(ValidationError, match="differs from the masked original"):
            verify(graph.analysis, asked, cut(graph.analysis, done))


def test_rescaled_attention_is_caught() -> None:
    """1/sqrt(d) of the cut size instead of the original one."""
    for name, gid in (("attention", "q.w:1/head_dim"), ("shape_arithmetic", "q.w:1/head_dim")):
        graph = graph_of(name)
        removed = remove(graph, gid, [0, 2])
        wrong = cut(graph.analysis, removed).to_proto()
        root = next(n for n in wrong.graph.node if n.output[0] == "scaled").input[1]
        assert initializer(wrong, root) == pytest.approx(2.0)
        replace(wrong, root, np.asarray(np.sqrt(2), np.float32).reshape(initializer(wrong, root).shape))
        assert refuses(graph, removed, wrong)


@pytest.mark.parametrize("opset", [9, 10, 11, 13])
def test_statistics_are_checked_in_old_operator_sets_too(opset: int) -> None:
    """The reference puts positions back with Pad, which takes its amounts as an attribute until opset 11."""
    body = """
        a = MatMul (x, a.w) m = ReduceMean <axes = [1]> (a) d = Sub (a, m) q = Mul (d, d)
        v = ReduceMean <axes = [1]> (q) e = Add (v, eps) r = Sqrt (e) n = Div (d, r)
        s = Mul (n, scale) z = Softmax <axis = 1> (s) y = MatMul (z, b.w)
    """
    weights = {"a.w": (8, 16), "b.w": (16, 8), "scale": (16,), "eps": 1e-5}
    model = build("(float[batch, 8] x) => (float[batch, 8] y)", body, weights, opset=opset)
    graph = analyze(load(model))
    removed = remove(graph, "a.w:1", [1, 4, 5])
    right = cut(graph.analysis, removed)
    verdict = verify(graph.analysis, removed, right)
    assert verdict.statistics == [
        "ReduceMean 'ReduceMean_m'",
        "ReduceMean 'ReduceMean_v'",
        "Softmax 'Softmax_z'",
    ]
    assert verdict.max_error <= 1e-4 * verdict.scale
    assert refuses(graph, removed, cut(graph.analysis, remove(graph, "a.w:1", [1, 4, 6])).to_proto())


def test_norm_over_the_wrong_number_is_caught() -> None:
    """A LayerNorm that still divides by the old width, as if zeros were part of the statistic."""
    graph = graph_of("tied_embedding")
    removed = remove(graph, "table:1", [1, 2, 6])
    wrong = cut(graph.analysis, removed).to_proto()
    norm = next(n for n in wrong.graph.node if n.op_type == "LayerNormalization")
    for attribute in [a for a in norm.attribute if a.name == "epsilon"]:
        norm.attribute.remove(attribute)
    norm.attribute.append(onnx.helper.make_attribute("epsilon", 0.3))
    assert refuses(graph, removed, wrong)


def test_wrong_group_count_is_caught() -> None:
    """Fewer groups with more channels each has the same weight shapes when both halve."""
    graph = graph_of("grouped")
    removed = remove(graph, "stem.w:0/conv_groups", [0, 3])
    wrong = cut(graph.analysis, removed).to_proto()
    node = next(n for n in wrong.graph.node if n.output[0] == "a")
    group = next(a for a in node.attribute if a.name == "group")
    assert group.i == 2
    group.i = 1
    weight = initializer(wrong, "a.w")
    replace(wrong, "a.w", np.concatenate([weight, weight], axis=1))
    assert refuses(graph, removed, wrong)


def test_dropped_bias_is_caught() -> None:
    graph = graph_of("mlp")
    removed = remove(graph, "a.w:1", [4])
    wrong = cut(graph.analysis, removed).to_proto()
    replace(wrong, "b.b", np.zeros_like(initializer(wrong, "b.b")))
    assert refuses(graph, removed, wrong)


def test_missing_output_and_other_shape_are_caught() -> None:
    graph = graph_of("mlp")
    removed = remove(graph, "a.w:1", [4])
    wrong = cut(graph.analysis, removed).to_proto()
    wrong.graph.output[0].name = "bb"
    with pytest.raises(ValidationError, match="'y' is missing"):
        verify(graph.analysis, removed, load(wrong))
    wrong = cut(graph.analysis, removed).to_proto()
    replace(wrong, "c.w", initializer(wrong, "c.w")[:, :2])
    replace(wrong, "c.b", initializer(wrong, "c.b")[:2])
    with pytest.raises(ValidationError):
        verify(graph.analysis, removed, load(wrong))


def test_error_in_one_of_two_outputs_is_caught() -> None:
    """The large output must not hide the small one."""
    model = build(
        "(float[batch, 4] x) => (float[batch, 3] small, float[batch, 3] large)",
        "h = MatMul (x, a.w) small = MatMul (h, b.w) c = MatMul (h, c.w) large = Mul (c, million)",
        {"a.w": (4, 8), "b.w": (8, 3), "c.w": (8, 3), "million": 1e6},
    )
    graph = analyze(load(model))
    removed = remove(graph, "a.w:1", [0])
    wrong = cut(graph.analysis, removed).to_proto()
    replace(wrong, "b.w", initializer(wrong, "b.w") * np.float32(1.01))
    assert refuses(graph, removed, wrong)


def test_outputs_that_are_not_finite_prove_nothing() -> None:
    model = NETWORKS["mlp"]()
    array = initializer(model, "c.b").copy()
    array[:] = np.nan
    replace(model, "c.b", array)
    graph = analyze(load(model))
    removed = remove(graph, "a.w:1", [0])
    with pytest.raises(ValidationError, match="not finite"):
        verify(graph.analysis, removed, cut(graph.analysis, removed))


def test_reference_is_the_original_where_nothing_is_removed() -> None:
    graph = graph_of("cnn")
    found = masked_reference(graph.analysis, np.zeros(len(graph.analysis.algebra), bool))
    reference, statistics = found.model, found.statistics
    assert statistics == []
    assert reference.to_proto() == graph.model.to_proto()


def test_reference_keeps_the_original_sizes() -> None:
    graph = graph_of("tied_embedding")
    reference = masked_reference(graph.analysis, some_units(graph)).model
    sizes = {t.name: list(t.dims) for t in reference.to_proto().graph.initializer}
    assert sizes["table"] == [7, 8]
    assert sizes["up.w"] == [8, 10]


def test_wide_half_precision_models_are_not_refused_for_rounding() -> None:
    """A sum of fewer terms rounds differently; float16 has three digits."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Array:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float16)

    model = build(
        "(float16[batch, 64] x) => (float16[batch, 10] y)",
        """a = MatMul (x, a.w) ar = Relu (a) b = MatMul (ar, b.w) br = Relu (b) c = MatMul (br, c.w)
           cr = Relu (c) y = MatMul (cr, d.w)""",
        {"a.w": random(64, 512), "b.w": random(512, 512), "c.w": random(512, 512), "d.w": random(512, 10)},
    )
    graph = analyze(load(model))
    removed = some_units(graph)
    right = cut(graph.analysis, removed)
    verify(graph.analysis, removed, right)
    wrong = right.to_proto()
    replace(wrong, "d.w", np.roll(initializer(wrong, "d.w"), 1, axis=0))
    assert refuses(graph, removed, wrong)


def sharp(steepness: float, factor: float = 1.0) -> onnx.ModelProto:
    """The sine of a sum: one that is steep enough magnifies every rounding."""
    weights = {"w": weight("w", (4, 3)) * np.float32(factor), "s": steepness}
    return build(
        "(float[batch, 4] x) => (float[batch, 3] y)", "m = MatMul(x, w)\np = Mul(m, s)\ny = Sin(p)", weights
    )


@pytest.mark.parametrize(("steepness", "factor", "is_wrong"), [(1.0, 1.01, True), (1e6, 1 + 3e-6, False)])
def test_what_rounding_moves_as_far_proves_nothing(steepness: float, factor: float, is_wrong: bool) -> None:
    graph = analyze(load(sharp(steepness)))
    kept = KeptPositions(Keeps(graph.analysis, np.zeros(len(graph.analysis.algebra), bool)))
    pair = [load(sharp(steepness, f)) for f in (1.0, factor)]
    given = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    before = initializer(pair[0].to_proto(), "w")
    assert bool(noisy_differences(pair, given, kept, 1e-4)) == is_wrong
    assert np.array_equal(initializer(pair[0].to_proto(), "w"), before)


def test_what_the_reference_can_not_run_proves_nothing() -> None:
    """A size that the graph was not traced at, as a router with random weights asks for."""
    signature = "(float[batch, 4] x) => (float[two, 4] y)"
    model = load(build(signature, "y = Reshape(x, t)", {"t": [2, 4]}))
    analysis = graph_of("cnn").analysis
    kept = KeptPositions(Keeps(analysis, np.zeros(len(analysis.algebra), bool)))
    assert noisy_differences([model, model], {"x": np.ones((3, 4), np.float32)}, kept, 1e-4) == []
