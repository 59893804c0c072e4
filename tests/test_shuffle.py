"""Channel shuffles: proven to be permutations, then pruned channel by channel."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import pytest
from networks import FC, build
from test_fold_shapes import check_fold, ints, ops, parse

import graphprune as gp
from graphprune.graph import analyze
from graphprune.model import load
from graphprune.shapes.fold_shapes import prepare
from graphprune.shapes.permutations import Factors

SHUFFLE = "a = Reshape (x, down) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) y = Reshape (b, up)"
TURNED = "b = Transpose <perm = [0, 1, 3, 2]> (x) y = Reshape (b, up)"
TWICE = "a = Reshape (x, down) b = Transpose <perm = [0, 2, 1, 3, 5, 4]> (a) y = Reshape (b, up)"
IMAGE = "net (float[batch, 12, 6, 6] x) => (float[batch, c, h, w] y) {{ {} }}"
SIZES = [(1, 12, 6, 6), (4, 12, 6, 6)]


def test_channel_shuffle_is_one_gather() -> None:
    model = parse(IMAGE.format(SHUFFLE), down=ints(-1, 2, 6, 6, 6), up=ints(-1, 12, 6, 6))
    prepared = check_fold(model, SIZES)
    assert ops(prepared) == ["Gather"]
    order = prepared.ir.graph[0].inputs[1]
    assert order is not None
    assert order.const_value is not None
    assert order.const_value.numpy().tolist() == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    assert list(prepared.ir.graph.initializers) == [order.name]


def test_shuffle_by_sizes_read_at_run_time_is_one_gather() -> None:
    model = parse(
        """net (float[batch, 12, h, w] x) => (float[batch, c, h, w] y) {
            s = Shape (x)
            bn = Gather <axis = 0> (s, zero)
            cn = Gather <axis = 0> (s, one)
            per = Div (cn, three)
            b1 = Unsqueeze (bn, at) p1 = Unsqueeze (per, at)
            c1 = Unsqueeze (cn, at) t1 = Unsqueeze (three, at)
            hw = Slice (s, two1, four1)
            down = Concat <axis = 0> (b1, t1, p1, hw)
            up = Concat <axis = 0> (b1, c1, hw)
            a = Reshape (x, down)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (a)
            y = Reshape (t, up)
        }""",
        zero=np.array(0), one=np.array(1), three=np.array(3), at=ints(0), two1=ints(2), four1=ints(4),
    )  # fmt: skip
    assert ops(check_fold(model, [(1, 12, 5, 7), (3, 12, 4, 4)])) == ["Gather"]


@pytest.mark.parametrize(
    ("why", "body", "down", "up"),
    [
        ("nothing moves", "a = Reshape (x, down) y = Reshape (a, up)", [-1, 3, 4, 36], [-1, 12, 6, 6]),
        (
            "another node reads the factors",
            SHUFFLE + " extra = ReduceMax <keepdims = 0> (b)",
            [-1, 2, 6, 6, 6],
            [-1, 12, 6, 6],
        ),
        ("two axes change places", TURNED, [], [-1, 12, 6, 6]),
        ("two axes are permuted", TWICE, [-1, 2, 6, 6, 2, 3], [-1, 12, 6, 6]),
        ("the shape changes", SHUFFLE, [-1, 2, 6, 6, 6], [-1, 12, 36, 1]),
        ("cut inside a factor", SHUFFLE, [-1, 8, 9, 2, 3], [-1, 12, 6, 6]),
    ],
)
def test_other_chains_stay(why: str, body: str, down: list[int], up: list[int]) -> None:
    outputs = "float[batch, c, h, w] y" + (", float extra" if "extra" in body else "")
    text = f"net (float[batch, 12, 6, 6] x) => ({outputs}) {{ {body} }}"
    model = parse(text, down=ints(*down), up=ints(*up))
    assert ops(check_fold(model, SIZES)) == ops(model), why


def test_chain_whose_middle_is_an_output_stays() -> None:
    text = (
        f"net (float[batch, 12, 6, 6] x) => (float[batch, c, h, w] y, float[p, q, r, s, t] b) {{ {SHUFFLE} }}"
    )
    model = parse(text, down=ints(-1, 2, 6, 6, 6), up=ints(-1, 12, 6, 6))
    assert "Gather" not in ops(check_fold(model, SIZES))


def test_permuted_runtime_axis_stays() -> None:
    model = parse(
        "net (float[batch, 5] x) => (float[n, 5] y) "
        "{ a = Reshape (x, down) t = Transpose <perm = [1, 0, 2]> (a) y = Reshape (t, up) }",
        down=ints(2, -1, 5), up=ints(-1, 5),
    )  # fmt: skip
    # The batch has to be even, which none of the traced primes is but 2.
    prepared, _ = prepare(load(model), {"batch": 2})
    assert "Gather" not in ops(prepared)


def test_sizes_that_might_be_confused_stay() -> None:
    """H and W are one dim: written back as W x H, the picture would look the same and not be."""
    model = parse(
        "net (float[batch, 6, side, side] x) => (float[b, c, h, w] y) {"
        " a = Reshape (x, down) t = Transpose <perm = [0, 2, 1, 3]> (a)"
        " s = Shape (x) y = Reshape (t, s) }",
        down=ints(0, 2, 3, -1),
    )
    assert "Gather" not in ops(check_fold(model, [(1, 6, 4, 4)]))


def test_factors_agree_with_data_for_random_chains() -> None:
    rng = np.random.default_rng(0)
    met = 0
    for _ in range(400):
        shape = tuple(rng.choice([1, 2, 4, 6, 12], 3).tolist())
        factors, x = Factors(shape), np.arange(prod(shape)).reshape(shape)
        start = x
        for new in (_regrouped(shape, rng), None, shape):
            if new is None:
                perm = rng.permutation(x.ndim)
                x = x.transpose(perm)
                factors.transpose(perm.tolist())
            elif factors.reshape(new):
                x = x.reshape(new)
            else:
                break
        found = factors.permutation()
        if found is not None:
            met += 1
            assert x.shape == start.shape
            np.testing.assert_array_equal(x, np.take(start, found.order, found.axis))
            assert not np.array_equal(x, start)
    assert met > 20


def _regrouped(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """Each axis split in two, or left alone."""
    new: list[int] = []
    for size in shape:
        divisors = [d for d in range(2, size) if size % d == 0]
        if divisors and rng.random() < 0.5:
            outer = int(rng.choice(divisors))
            new += [outer, size // outer]
        else:
            new.append(size)
    return tuple(new)


# ---- networks -----------------------------------------------------------------------------------


def shuffle_network(units: int, width: int = 8) -> onnx.ModelProto:
    """Units in which half of the channels pass, the others are convolved, and all are mixed."""
    half = width // 2
    body = "x0 = Conv (x, stem.w) "
    weights: dict[str, object] = {"stem.w": (width, 3, 1, 1)}
    for n in range(units):
        body += (
            f"p{n}, q{n} = Split <axis = 1> (x{n}, halves) "
            f"r{n} = Conv (q{n}, in{n}.w, in{n}.b) s{n} = Relu (r{n}) "
            f"t{n} = Conv <group = {half}, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s{n}, deep{n}.w) "
            f"u{n} = Conv (t{n}, out{n}.w) v{n} = Relu (u{n}) j{n} = Concat <axis = 1> (p{n}, v{n}) "
            f"down{n} = Reshape (j{n}, down) moved{n} = Transpose <perm = [0, 2, 1, 3, 4]> (down{n}) "
            f"x{n + 1} = Reshape (moved{n}, up) "
        )
        weights |= {
            f"in{n}.w": (half, half, 1, 1),
            f"in{n}.b": (half,),
            f"deep{n}.w": (half, 1, 3, 3),
            f"out{n}.w": (half, half, 1, 1),
        }
    head = (
        f"g = GlobalAveragePool (x{units}) f = Flatten <axis = 1> (g) y = Gemm <transB = 1> (f, fc.w, fc.b)"
    )
    weights |= {"halves": [half, half], "down": [-1, 2, half, 8, 8], "up": [-1, width, 8, 8]}
    return build(
        "(float[batch, 3, 8, 8] x) => (float[batch, 5] y)",
        body + head,
        {**weights, "fc.w": (5, width), **FC},
    )


def test_channels_of_a_shuffled_stage_are_free_of_each_other() -> None:
    graph = analyze(load(shuffle_network(3)))
    groups = {g.id: g for g in graph.groups if g.prunable and g.kind == "channels"}
    # Width 8: the stem's channels leave the stage 2, 1 and 1 at a time, and none is tied to another.
    assert sum(g.size for g in groups.values()) == 8 + 3 * (4 + 4)
    assert [groups[f"in{n}.w:0"].size for n in range(3)] == [4, 4, 4]
    assert all(g.exact for g in groups.values())


@pytest.mark.parametrize("target", [0.6, 0.35])
def test_shuffled_stage_reaches_its_target_with_the_oracle(target: float) -> None:
    result = gp.prune(shuffle_network(4, 16), target={"macs": target}, floor=0.02, criterion="random")
    assert result.verdict is not None
    assert result.verdict.exact
    assert result.plan.reached["macs"] <= target
    names = {p.name for p in result.plan.parameters}
    assert names <= set(load(shuffle_network(4, 16)).ir.graph.initializers)


def test_wrong_order_after_the_cut_is_caught() -> None:
    graph = analyze(load(shuffle_network(2)))
    removed = np.zeros(len(graph.analysis.algebra), bool)
    group = max((g for g in graph.groups if g.prunable), key=lambda g: g.size)
    removed[group.units[:1]] = True
    right = gp.apply(graph, gp.planner.make_plan(graph, removed, {}))
    wrong = right.to_proto()
    for tensor in wrong.graph.initializer:
        if tensor.name.endswith(("/order", "/indices")):
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(array, 1), tensor.name))
    with pytest.raises(gp.errors.ValidationError, match="differs"):
        gp.oracle.verify(graph.analysis, removed, load(wrong))
