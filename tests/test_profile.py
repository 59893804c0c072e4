"""Profiling: the JSON contract, made-up inputs, fair timing, own times, and the refusals."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from rich.console import Console

from graphprune.errors import ModelError, UsageError
from graphprune.profile import profile, render
from graphprune.profiling.feeds import batch_of, declared_inputs, describe, make_feeds
from graphprune.profiling.notes import conditions_of
from graphprune.profiling.timing import measure
from graphprune.runner.timing import alternate
from graphprune.runner.tracing import own_times

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
LINEAR = HEAD + "m (float[N, 4] x) => (float[N, 4] y) { h = Relu (x)  y = Neg (h) }"


def save(text: str, path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(LINEAR, tmp_path / "small.onnx")


def feeds(text: str, tmp_path: Path, batch: int = 1, dims: dict[str, int] | None = None) -> dict:
    path = save(HEAD + text, tmp_path / "feeds.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return make_feeds(session, batch, dims)


def test_json_keeps_the_contract(model: Path) -> None:
    report = profile([model], batch=3, threads=1, repeat=12, warmup=2)
    document = json.loads(json.dumps(report.to_json()))
    assert document["schema_version"] == 1
    assert document["relative"] == []
    (run,) = document["runs"]
    assert run["model"] == str(model)
    assert (run["provider"], run["threads"], run["batch"], run["repeat"]) == ("cpu", 1, 3, 12)
    assert run["device"]
    assert run["inputs"] == {"x": [3, 4]}
    latency = run["latency_ms"]
    assert set(latency) == {"p50", "p90", "p95", "p99", "mean", "least", "most"}
    order = ["least", "p50", "p90", "p95", "p99", "most"]
    assert [0, *(latency[name] for name in order)] == sorted([0, *(latency[name] for name in order)])
    assert run["throughput_per_s"] == pytest.approx(3e3 / latency["mean"])
    assert {op["op_type"] for op in run["ops"]} == {"Relu", "Neg"}
    assert sum(op["share"] for op in run["ops"]) == pytest.approx(1)


def test_several_models_are_compared_in_pairs(model: Path, tmp_path: Path) -> None:
    body = " ".join(f"h{i + 1} = MatMul (h{i}, h{i})" for i in range(8))
    large = save(
        HEAD + "m (float[300, 300] h0) => (float[300, 300] h8) { " + body + " }",
        tmp_path / "l.onnx",
    )
    report = profile([model, large, model], repeat=5, warmup=1, ops=False)
    pairs = [(pair.reference, pair.model) for pair in report.relative]
    assert pairs == [(str(model), str(large)), (str(model), str(model)), (str(large), str(model))]
    assert report.relative[0].latency_ratio > 2
    assert report.relative[2].latency_ratio < 0.5
    ratio = report.runs[1].latency_ms.p50 / report.runs[0].latency_ms.p50
    assert report.relative[0].latency_ratio == pytest.approx(ratio)
    assert report.runs[0].ops == ()


@pytest.mark.skipif(sys.platform == "win32", reason="no peak memory there")
def test_peak_memory_is_the_models_own(model: Path, tmp_path: Path) -> None:
    weight = np.zeros((4, 4_000_000), np.float32)  # 64 MB
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "m",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 4_000_000])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "l.onnx")
    del weight, graph
    large, small = profile([tmp_path / "l.onnx", model], repeat=1, warmup=1, ops=False).runs
    assert large.peak_rss_bytes is not None
    assert small.peak_rss_bytes is not None
    assert small.idle_rss_bytes is not None
    assert small.idle_rss_bytes < small.peak_rss_bytes < 150e6
    assert large.peak_rss_bytes - small.peak_rss_bytes > 60e6


def test_table_shows_the_runs_side_by_side(model: Path, tmp_path: Path) -> None:
    other = save(LINEAR, tmp_path / "other.onnx")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(profile([model, other], repeat=4, warmup=1)))
    text = console.export_text()
    for expected in ("small.onnx", "other.onnx", "p50 ms", "latency / first", "Relu ms", "batch 1"):
        assert expected in text


class TestFeeds:
    def test_sizes_of_text(self, tmp_path: Path) -> None:
        text = "m (int64[B, S] ids, int64[B, S] attention_mask) => (int64[B, S] y) {"
        text += " y = Add (ids, attention_mask) }"
        made = feeds(text, tmp_path, batch=2)
        assert made["ids"].shape == (2, 128)
        assert not made["ids"].any()
        assert made["attention_mask"].all()
        assert batch_of(made) == 2
        assert feeds(text, tmp_path, dims={"S": 7})["ids"].shape == (1, 7)

    def test_sizes_of_images(self, tmp_path: Path) -> None:
        text = "m (float[B, 3, H, W] x) => (float[B, 3, H, W] y) { y = Relu (x) }"
        assert feeds(text, tmp_path)["x"].shape == (1, 3, 224, 224)
        assert feeds(text, tmp_path, dims={"H": 64})["x"].shape == (1, 3, 64, 224)

    def test_a_cache_and_a_sum_of_lengths(self, tmp_path: Path) -> None:
        text = "m (float[B, 2, P, 8] past, bool[B, T] mask) => (float[B, 2, P, 8] y)"
        text += " { y = Neg (past) }"
        path = save(HEAD + text, tmp_path / "feeds.onnx")
        proto = onnx.load(path)
        proto.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "P + 1"
        onnx.save(proto, path)
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        made = make_feeds(session, 1, {"P": 5})
        assert made["past"].shape == (1, 2, 5, 8)
        assert made["mask"].shape == (1, 6)
        assert made["mask"].all()
        assert make_feeds(session, 1, None)["past"].shape == (1, 2, 128, 8)

    def test_a_fixed_batch_is_kept_or_refused(self, tmp_path: Path) -> None:
        text = "m (float[8, 3] x) => (float[8, 3] y) { y = Relu (x) }"
        assert batch_of(feeds(text, tmp_path)) == 8
        with pytest.raises(ModelError, match=r"takes no batch of 4(.|\n)*fixed at 8"):
            feeds(text, tmp_path, batch=4)

    def test_axes_without_a_name(self) -> None:
        value = onnx.helper.make_tensor_value_info("x", 1, [None, 3, None])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["x2"])], "m", [value], [])
        inputs = declared_inputs(onnx.helper.make_model(graph).SerializeToString())
        assert describe(inputs, 2, None)[0]["shape"] == [2, 3, 128]
        assert describe(inputs, 2, {"x:0": 4, "x:2": 9})[0]["shape"] == [4, 3, 9]
        with pytest.raises(UsageError, match="no input has a symbolic axis 'x:1'"):
            describe(inputs, 2, {"x:1": 4})

    def test_an_unknown_axis_name(self, tmp_path: Path) -> None:
        text = "m (float[B, S] x) => (float[B, S] y) { y = Relu (x) }"
        with pytest.raises(UsageError, match=r"no input has a symbolic axis 'T'(.|\n)*B, S"):
            feeds(text, tmp_path, dims={"T": 3})

    def test_text_inputs_can_not_be_made_up(self, tmp_path: Path) -> None:
        text = "m (string[B] x) => (string[B] y) { y = Identity (x) }"
        with pytest.raises(ModelError, match=r"input 'x' is a tensor\(string\)"):
            feeds(text, tmp_path)


class TestTiming:
    def test_blocks_alternate_and_the_first_run_of_each_is_not_counted(self) -> None:
        calls: list[str] = []
        timings = measure([lambda: calls.append("a"), lambda: calls.append("b")], 20, 1)
        assert "".join(calls) == "ab" + ("aaa" + "bbb" + "bbb" + "aaa") * 5
        assert [len(t.milliseconds) for t in timings] == [20, 20]
        assert [len(t.medians) for t in timings] == [10, 10]

    def test_one_model_has_no_rewarming(self) -> None:
        calls: list[int] = []
        measure([lambda: calls.append(0)], 7, 3)
        assert len(calls) == 10

    def test_repeat_follows_the_pace(self) -> None:
        (timing,) = measure([lambda: None], None, 1)
        assert len(timing.milliseconds) == 1000


class TestDrift:
    """A machine whose clock is ours: runs cost what we say, and twice that from some moment on."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        now = [0]
        monkeypatch.setattr("graphprune.runner.timing.time.perf_counter_ns", lambda: now[0])
        return now

    def runs(self, clock: list[int], slow_from: int) -> list[Callable[[], None]]:
        calls = [0]

        def run(cost: int) -> None:
            calls[0] += 1
            clock[0] += cost * (2 if calls[0] > slow_from else 1)

        return [lambda: run(10_000_000), lambda: run(8_000_000)]

    def test_one_after_the_other_it_looks_like_the_models(self, clock: list[int]) -> None:
        first, second = self.runs(clock, slow_from=101)
        a, b = (measure([run], 100, 1)[0] for run in (first, second))
        assert np.median(b.milliseconds) / np.median(a.milliseconds) == pytest.approx(1.6)

    @pytest.mark.parametrize("slow_from", range(60, 180, 11))
    def test_ratios_by_round_do_not_see_it(self, clock: list[int], slow_from: int) -> None:
        a, b = measure(self.runs(clock, slow_from), 100, 1)
        assert np.median(b.medians / a.medians) == pytest.approx(0.8)

    def test_it_is_reported(self, clock: list[int]) -> None:
        timed = alternate(self.runs(clock, slow_from=150), 100, 1)
        noted = {"mhz": [2000.0, 1500.0, 1800.0], "celsius": [], "throttled": 3}
        found = conditions_of({"runs": timed, "conditions": noted})
        assert found.drift == pytest.approx(1.0)
        assert (found.mhz, found.celsius, found.throttled) == ((2000, 1800, 1500), None, 3)


def test_own_times_leave_out_called_kernels() -> None:
    def event(op: str, ts: int, dur: int, tid: int = 1) -> dict:
        return {"ts": ts, "dur": dur, "tid": tid, "args": {"op_name": op}}

    events = [
        event("Loop", 10, 100),
        event("If", 20, 50),
        event("Add", 30, 20),
        event("Add", 55, 10),
        event("Mul", 80, 5),
        event("Relu", 110, 7),
        event("Conv", 15, 9, tid=2),
    ]
    times = {(event["args"]["op_name"], event["ts"]): own for event, own in own_times(events)}
    assert times == {
        ("Loop", 10): 45,
        ("Conv", 15): 9,
        ("If", 20): 20,
        ("Add", 30): 20,
        ("Add", 55): 10,
        ("Mul", 80): 5,
        ("Relu", 110): 7,
    }


class TestRefusals:
    def test_unknown_provider(self, model: Path) -> None:
        with pytest.raises(UsageError, match=r"no provider 'tpu'(.|\n)*cpu, cuda"):
            profile([model], provider="tpu")

    def test_absent_provider_says_what_is_there_and_how_to_get_it(self, model: Path) -> None:
        assert "QNNExecutionProvider" not in ort.get_available_providers()
        with pytest.raises(ModelError, match=r"'qnn' is not available(.|\n)*cpu(.|\n)*pip install"):
            profile([model], provider="qnn")

    @pytest.mark.parametrize(
        ("content", "text"),
        [(None, "there is no file"), (b"", "cannot load"), (b"hello", "cannot read")],
    )
    def test_no_model(self, tmp_path: Path, content: bytes | None, text: str) -> None:
        path = tmp_path / "m.onnx"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=text):
            profile([path])

    def test_sizes_that_do_not_go_together(self, tmp_path: Path) -> None:
        text = "m (float[A, B] x, float[A, C] y) => (float[A, D] z) { z = Add (x, y) }"
        path = save(HEAD + text, tmp_path / "m.onnx")
        with pytest.raises(ModelError, match=r"does not run on(.|\n)*x \[1, 3\](.|\n)*--dim"):
            profile([path], dims={"B": 3})

    @pytest.mark.parametrize("option", ["batch", "threads", "repeat", "warmup"])
    def test_counts_below_one(self, model: Path, option: str) -> None:
        with pytest.raises(UsageError, match=f"{option} must be at least 1, not 0"):
            profile([model], **{option: 0})

    def test_no_models(self) -> None:
        with pytest.raises(UsageError, match="no model"):
            profile([])
